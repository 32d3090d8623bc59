# Mask R-CNN for coco_mini.py: the quickstart's detector at 213 × 128 pixels, 4 images per batch. The
# study sets data, classes, length and weights.
_base_ = '../mmdetection/coco/mask-rcnn_r18_fpn_quickstart.py'
train_dataloader = dict(batch_size=4)
val_dataloader = dict(batch_size=4)
test_dataloader = val_dataloader
optim_wrapper = dict(type='AutocastOptimWrapper')
_base_.train_dataloader.dataset.pipeline[2].scale = (213, 128)
_base_.val_dataloader.dataset.pipeline[1].scale = (213, 128)
_base_.test_dataloader.dataset.pipeline[1].scale = (213, 128)
param_scheduler = [
    dict(type='WarmupLR', by_epoch=False, start_factor=0.1, share=0.05),
    dict(type='CosineLR', by_epoch=False, begin=0.05, eta_min_ratio=0.05)
]
default_hooks = dict(logger=dict(interval=10), precise_bn=dict(num_iters=20))
