# Mask R-CNN for the GPU study: the detector of the 1x transfer on COCO's 12 supercategories, images of
# at most 400 pixels, 900 iterations of 16 images. Predictions are saved at three points. One GPU,
# bfloat16. The study sets annotations, images, seed and weights.
_base_ = '../mmdetection/coco/mask-rcnn_r50_fpn_ms-1x_coco.py'
classes = ('person', 'vehicle', 'outdoor', 'animal', 'accessory', 'sports', 'kitchen', 'food',
           'furniture', 'electronic', 'appliance', 'indoor')
model = dict(
    roi_head=dict(bbox_head=dict(num_classes=12), mask_head=dict(num_classes=12)))
train_pipeline = [
    dict(type='LoadImageFromFile', backend_args=None),
    dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
    dict(
        type='RandomChoiceResize',
        scales=[(667, 320), (667, 352), (667, 384), (667, 400)],
        keep_ratio=True),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackDetInputs')
]
test_pipeline = [
    dict(type='LoadImageFromFile', backend_args=None),
    dict(type='Resize', scale=(667, 400), keep_ratio=True),
    dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
    dict(
        type='PackDetInputs',
        meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor'))
]
train_dataloader = dict(
    batch_size=16,
    num_workers=12,
    dataset=dict(data_root='', metainfo=dict(classes=classes), pipeline=train_pipeline))
val_dataloader = dict(
    batch_size=8,
    num_workers=4,
    dataset=dict(data_root='', metainfo=dict(classes=classes), pipeline=test_pipeline))
test_dataloader = val_dataloader
optim_wrapper = dict(type='AutocastOptimWrapper')
train_cfg = dict(max_iters=900, val_interval=300)
param_scheduler = [
    dict(type='WarmupLR', by_epoch=False, start_factor=0.001, share=1 / 9),
    dict(type='StepsLR', by_epoch=False, shares=[6 / 9, 8 / 9], gamma=0.1)
]
default_hooks = dict(
    logger=dict(interval=20),
    checkpoint=dict(interval=300, max_keep_ckpts=1),
    precise_bn=dict(num_iters=40),
    predictions=dict(type='KeepPredictionsHook'))
