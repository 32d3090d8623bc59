# SoCo-FPN for two CPU cores: ResNet-18, narrow FPN and RoI head, small views.
# It demonstrates the whole pipeline in a minute; its weights are not a result.
#
#   bash tools/quickstart.sh
#   bash tools/dist_train.sh configs/soco_r18_fpn_quickstart.py 2
#
# Hardware: a CPU. Besides the sizes, these settings differ from the recipe so that the model learns
# within 100 iterations of batch 8: AdamW (the updates of LARS are too small), a faster target network,
# half the colour jitter, no zero initialisation of the residual branches, and terms against dimensional
# collapse (docs/results/collapse.md). Blur and level borders are scaled with the views.
_base_ = [
    '_base_/models/soco_r50_fpn.py',
    '_base_/datasets/imagenet_soco.py',
    '_base_/default_runtime.py',
]
norm_cfg = dict(type='BN', requires_grad=True)
colours = dict(
    brightness=0.2, contrast=0.2, saturation=0.1, hue=0.05, grey_prob=0.05, blur_sigma=(0.1, 0.6))
model = dict(
    backbone=dict(depth=18, norm_cfg=norm_cfg, zero_init_residual=False),
    neck=dict(in_channels=[64, 128, 256, 512], out_channels=64, norm_cfg=norm_cfg),
    roi_head=dict(
        bbox_roi_extractor=dict(out_channels=64, level_sizes=(14, 27, 55)),
        bbox_head=dict(
            in_channels=64, conv_out_channels=64, fc_out_channels=256, norm_cfg=norm_cfg)),
    projector=dict(
        in_channels=256, hid_channels=512, out_channels=128, norm_cfg=dict(type='BN1d')),
    head=dict(
        predictor=dict(
            in_channels=128, hid_channels=512, out_channels=128, norm_cfg=dict(type='BN1d'))),
    regulariser=dict(type='VarianceCovariance'))

train_dataloader = dict(
    batch_size=8,
    num_workers=0,
    persistent_workers=False,
    pin_memory=False,
    dataset=dict(
        data_root='work_dirs/quickstart/photos',
        proposals='work_dirs/quickstart/proposals.arrow',
        repeat=10))
_base_.train_dataloader.dataset.pipeline[1].views = [
    dict(size=64, blur_prob=1.0, **colours),
    dict(size=64, area=(0.5, 1.0), blur_prob=0.1, **colours),
    dict(size=48, area=(0.5, 1.0), blur_prob=0.1, **colours),
]

optim_wrapper = dict(
    type='OptimWrapper', optimizer=dict(type='AdamW', lr=1e-3, weight_decay=1e-2))
param_scheduler = [
    dict(type='WarmupLR', by_epoch=False, start_factor=0.01, share=0.1),
    dict(type='CosineLR', by_epoch=False, eta_min=1e-6, begin=0.1),
]
train_cfg = dict(type='ResumableEpochLoop', max_epochs=10)

default_hooks = dict(
    logger=dict(interval=5),
    checkpoint=dict(interval=5, max_keep_ckpts=2),
    views=dict(interval=50),
    rank=dict(interval=20),
    momentum=dict(momentum=0.9),
    collapse=dict(interval=5, patience=3))
env_cfg = dict(cudnn_benchmark=False, dist_cfg=dict(backend='gloo'))
