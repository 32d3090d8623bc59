# SoCo-FPN for a few hundred photos of your own, from ImageNet weights: EfficientNet-Lite0, views of
# 96, 96 and 64 pixels, terms against dimensional collapse (docs/results/collapse.md). Rate, length,
# search and views: docs/results/own_photos.md.
#
#   python tools/benchmarks/imagenet_lite0.py work_dirs/lite0.pth
#   python tools/generate_proposals.py PHOTOS work_dirs/photos.arrow --setting fine --short-side 320 \
#       --min-side 8 --max-ratio 3 --min-size 0.1 --max-size 0.8 --fallback
#   bash tools/dist_train.sh configs/soco_effnetlite0_fpn_own_photos.py 1 --cfg-options \
#       load_from=work_dirs/lite0.pth train_dataloader.dataset.data_root=PHOTOS \
#       train_dataloader.dataset.proposals=work_dirs/photos.arrow
#
# Hardware: a CPU or one GPU.
_base_ = [
    '_base_/models/soco_effnetlite0_fpn.py',
    '_base_/datasets/imagenet_soco.py',
    '_base_/default_runtime.py',
]
colours = dict(
    brightness=0.2, contrast=0.2, saturation=0.1, hue=0.05, grey_prob=0.05, blur_sigma=(0.1, 1.0))
model = dict(regulariser=dict(type='VarianceCovariance'))

train_dataloader = dict(
    batch_size=16,
    num_workers=0,
    persistent_workers=False,
    pin_memory=False,
    dataset=dict(data_root='data/photos', proposals='data/proposals/photos.arrow'))
_base_.train_dataloader.dataset.pipeline[1].num_proposals = 8
_base_.train_dataloader.dataset.pipeline[1].views = [
    dict(size=96, blur_prob=1.0, **colours),
    dict(size=96, area=(0.5, 1.0), blur_prob=0.1, **colours),
    dict(size=64, area=(0.5, 1.0), blur_prob=0.1, **colours),
]

optim_wrapper = dict(
    type='OptimWrapper', optimizer=dict(type='AdamW', lr=2e-3, weight_decay=1e-2))
param_scheduler = [
    dict(type='WarmupLR', by_epoch=False, start_factor=0.01, share=0.05),
    dict(type='CosineLR', by_epoch=False, eta_min=1e-6, begin=0.05),
]
train_cfg = dict(type='ResumableEpochLoop', max_epochs=40)

default_hooks = dict(
    logger=dict(interval=10),
    checkpoint=dict(interval=5, max_keep_ckpts=2),
    views=dict(interval=200),
    rank=dict(interval=20),
    collapse=dict(interval=10),
    momentum=dict(momentum=0.99))
env_cfg = dict(cudnn_benchmark=False, dist_cfg=dict(backend='gloo'))
