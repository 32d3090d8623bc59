# BYOL (from MMSelfSup) on photos of your own, with the backbone, batch, colours, optimiser, rate,
# schedule and target momentum of the recipe for own photos. Two crops of 96 pixels that cover 8 to
# 100 % of the photo, as in MMSelfSup's BYOL config.
_base_ = '../../soco_effnetlite0_fpn_own_photos.py'
model = dict(
    _delete_=True,
    type='ForeachBYOL',
    base_momentum=0.99,
    data_preprocessor=dict(
        type='ImageViewsPreprocessor', mean=[127.5] * 3, std=[127.5] * 3, bgr_to_rgb=True),
    backbone=dict(
        type='mmcls.TIMMBackbone',
        model_name='tf_efficientnet_lite0',
        features_only=True,
        pretrained=False,
        out_indices=(4, )),
    neck=dict(
        type='NonLinearNeck',
        in_channels=320,
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
    dict(size=96, area=(0.08, 1.0), blur_prob=1.0, **_base_.colours),
    dict(size=96, area=(0.08, 1.0), blur_prob=0.1, solarize_prob=0.2, **_base_.colours),
]
_base_.train_dataloader.dataset.pipeline[1].min_shared = 0
_base_.train_dataloader.dataset.pipeline[1].max_tries = 1
# These hooks need SoCo's model or boxes.
for name in ('batch_info', 'views', 'scores', 'rank', 'collapse', 'momentum'):
    _base_.default_hooks.pop(name)
