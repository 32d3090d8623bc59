# SoCo-FPN with ResNet-50 (paper, section 4.1). SyncBN everywhere, nothing frozen.
norm_cfg = dict(type='SyncBN', requires_grad=True)

model = dict(
    type='SoCo',
    channels_last=True,  # convolutions are faster in this memory format
    data_preprocessor=dict(
        type='SoCoDataPreprocessor',
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True),
    backbone=dict(
        type='mmdet.ResNet',
        depth=50,
        out_indices=(0, 1, 2, 3),
        frozen_stages=-1,
        norm_cfg=norm_cfg,
        norm_eval=False,
        zero_init_residual=True,
        style='pytorch'),
    neck=dict(
        type='SoCoFPN',
        in_channels=[256, 512, 1024, 2048],
        out_channels=256,
        norm_cfg=norm_cfg),
    roi_head=dict(
        type='SoCoRoIHead',
        bbox_roi_extractor=dict(
            type='SoCoRoIExtractor',
            roi_layer=dict(type='RoIAlign', output_size=7, sampling_ratio=0),
            out_channels=256,
            featmap_strides=[4, 8, 16, 32],
            level_sizes=(48, 96, 192)),
        bbox_head=dict(
            type='SoCoBBoxHead',
            in_channels=256,
            conv_out_channels=256,
            fc_out_channels=1024,
            norm_cfg=norm_cfg)),
    projector=dict(
        type='NonLinearNeck',
        in_channels=1024,
        hid_channels=4096,
        out_channels=256,
        with_bias=True,
        with_last_bias=True,
        with_last_bn=False,
        with_avg_pool=False,
        norm_cfg=dict(type='SyncBN')),
    head=dict(
        type='LatentPredictHead',
        loss=dict(type='CosineSimilarityLoss', scale_factor=2.0),
        predictor=dict(
            type='NonLinearNeck',
            in_channels=256,
            hid_channels=4096,
            out_channels=256,
            with_bias=True,
            with_last_bias=True,
            with_last_bn=False,
            with_avg_pool=False,
            norm_cfg=dict(type='SyncBN'))))
