# BYOL (from MMSelfSup) for the CPU study, with the backbone, images, colours, optimiser and schedule of
# soco_r18.py. Two crops of 64 pixels that cover 8 to 100 % of the image, as in MMSelfSup's BYOL config.
_base_ = 'soco_r18.py'
model = dict(
    _delete_=True,
    type='ForeachBYOL',
    base_momentum=0.99,
    data_preprocessor=dict(
        type='ImageViewsPreprocessor',
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True),
    backbone=dict(
        type='mmdet.ResNet',
        depth=18,
        out_indices=(3, ),
        frozen_stages=-1,
        norm_cfg=dict(type='BN', requires_grad=True),
        norm_eval=False,
        zero_init_residual=False,
        style='pytorch'),
    neck=dict(
        type='NonLinearNeck',
        in_channels=512,
        hid_channels=512,
        out_channels=128,
        with_bias=True,
        with_last_bn=False,
        with_avg_pool=True,
        norm_cfg=dict(type='BN1d')),
    head=dict(
        type='LatentPredictHead',
        loss=dict(type='CosineSimilarityLoss'),
        predictor=dict(
            type='NonLinearNeck',
            in_channels=128,
            hid_channels=512,
            out_channels=128,
            with_bias=True,
            with_last_bn=False,
            with_avg_pool=False,
            norm_cfg=dict(type='BN1d'))))
_base_.train_dataloader.dataset.pipeline[1].views = [
    dict(size=64, area=(0.08, 1.0), blur_prob=1.0, **_base_.colours),
    dict(size=64, area=(0.08, 1.0), blur_prob=0.1, solarize_prob=0.2, **_base_.colours),
]
_base_.train_dataloader.dataset.pipeline[1].min_shared = 0
_base_.train_dataloader.dataset.pipeline[1].max_tries = 1
# These hooks need SoCo's model or boxes.
for name in ('batch_info', 'views', 'scores', 'rank', 'collapse', 'momentum'):
    _base_.default_hooks.pop(name)
