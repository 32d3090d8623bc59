# Mask R-CNN for the CPU study: the quickstart's detector on COCO's 12 supercategories, images of 128
# pixels, 600 iterations of 4 images. Predictions are saved at three points. The study sets annotations,
# images, seed and weights.
_base_ = '../mmdetection/coco/mask-rcnn_r18_fpn_quickstart.py'
classes = ('person', 'vehicle', 'outdoor', 'animal', 'accessory', 'sports', 'kitchen', 'food',
           'furniture', 'electronic', 'appliance', 'indoor')
model = dict(
    roi_head=dict(bbox_head=dict(num_classes=12), mask_head=dict(num_classes=12)))
train_dataloader = dict(batch_size=4, dataset=dict(metainfo=dict(classes=classes)))
val_dataloader = dict(batch_size=4, dataset=dict(metainfo=dict(classes=classes)))
test_dataloader = val_dataloader
optim_wrapper = dict(type='AutocastOptimWrapper')
_base_.train_dataloader.dataset.pipeline[2].scale = (213, 128)
_base_.val_dataloader.dataset.pipeline[1].scale = (213, 128)
_base_.test_dataloader.dataset.pipeline[1].scale = (213, 128)
max_iters = 600
train_cfg = dict(max_iters=max_iters, val_interval=200)
param_scheduler = [
    dict(type='WarmupLR', by_epoch=False, start_factor=0.1, share=0.05),
    dict(type='CosineLR', by_epoch=False, begin=0.05, eta_min_ratio=0.05)
]
default_hooks = dict(
    logger=dict(interval=10),
    checkpoint=dict(interval=200, max_keep_ckpts=1),
    precise_bn=dict(num_iters=20),
    predictions=dict(type='KeepPredictionsHook'))
