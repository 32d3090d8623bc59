# Mask R-CNN of the CPU study: the quickstart's, on COCO's 12 supercategories, with predictions kept at
# three points of its schedule. The study sets annotations, photos, seed and weights.
_base_ = '../mmdetection/coco/mask-rcnn_r18_fpn_quickstart.py'
classes = ('person', 'vehicle', 'outdoor', 'animal', 'accessory', 'sports', 'kitchen', 'food',
           'furniture', 'electronic', 'appliance', 'indoor')
model = dict(
    roi_head=dict(bbox_head=dict(num_classes=12), mask_head=dict(num_classes=12)))
train_dataloader = dict(batch_size=4, dataset=dict(metainfo=dict(classes=classes)))
val_dataloader = dict(batch_size=4, dataset=dict(metainfo=dict(classes=classes)))
test_dataloader = val_dataloader
optim_wrapper = dict(type='Bf16OptimWrapper')
max_iters = 300
train_cfg = dict(max_iters=max_iters, val_interval=100)
_base_.param_scheduler[0].end = 30
_base_.param_scheduler[1].update(begin=30, end=max_iters)
default_hooks = dict(logger=dict(interval=10), checkpoint=dict(interval=100, max_keep_ckpts=1))
_base_.custom_hooks[2].num_iters = 20
custom_hooks = _base_.custom_hooks + [dict(type='KeepPredictionsHook')]
