# SoCo-FPN with EfficientNet-Lite0 (timm), a narrow FPN and RoI head, for a CPU or a small GPU.
norm_cfg = dict(type='BN', requires_grad=True)

model = dict(
    type='SoCo',
    data_preprocessor=dict(
        type='SoCoDataPreprocessor',
        mean=[127.5, 127.5, 127.5],
        std=[127.5, 127.5, 127.5],
        bgr_to_rgb=True),
    backbone=dict(
        type='mmcls.TIMMBackbone',
        model_name='tf_efficientnet_lite0',
        features_only=True,
        pretrained=False,
        out_indices=(1, 2, 3, 4)),
    neck=dict(
        type='SoCoFPN',
        in_channels=[24, 40, 112, 320],
        out_channels=64,
        norm_cfg=norm_cfg),
    roi_head=dict(
        type='SoCoRoIHead',
        bbox_roi_extractor=dict(
            type='SoCoRoIExtractor',
            roi_layer=dict(type='RoIAlign', output_size=7, sampling_ratio=0),
            out_channels=64,
            featmap_strides=[4, 8, 16, 32],
            level_sizes=(27, 55, 110)),
        bbox_head=dict(
            type='SoCoBBoxHead',
            in_channels=64,
            conv_out_channels=64,
            fc_out_channels=256,
            norm_cfg=norm_cfg)),
    projector=dict(
        type='NonLinearNeck',
        in_channels=256,
        hid_channels=512,
        out_channels=128,
        with_bias=True,
        with_last_bias=True,
        with_last_bn=False,
        with_avg_pool=False,
        norm_cfg=dict(type='BN1d')),
    head=dict(
        type='LatentPredictHead',
        loss=dict(type='CosineSimilarityLoss', scale_factor=2.0),
        predictor=dict(
            type='NonLinearNeck',
            in_channels=128,
            hid_channels=512,
            out_channels=128,
            with_bias=True,
            with_last_bias=True,
            with_last_bn=False,
            with_avg_pool=False,
            norm_cfg=dict(type='BN1d'))))
