# Faster R-CNN for a few hundred photos of your own with boxes, without masks: EfficientNet-Lite0, FPN
# and head of 64 channels, photos of 288 × 192 pixels, 300 iterations of 8. Backbone, FPN and box head
# are those of configs/soco_effnetlite0_fpn_own_photos.py.
#
#   SOCO_PHOTOS=images SOCO_TRAIN=train.json SOCO_VAL=val.json \
#       bash tools/benchmarks/mmdetection/dist_train_fpn.sh \
#       configs/benchmarks/mmdetection/own_photos/faster-rcnn_effnetlite0_fpn.py WEIGHTS 1
#
# The classes are read from SOCO_TRAIN. Without the variables, it uses the eight photos of the
# quickstart, for a demonstration. Hardware: a CPU or one GPU.
_base_ = [
    'mmdet::_base_/models/faster-rcnn_r50_fpn.py',
    '../_base_/transfer_runtime.py',
]

# After `_base_`, since MMEngine takes a config that begins with an import for a pure Python config.
import os  # noqa: E402

from projects.soco.annotations.read import read_categories  # noqa: E402

root = os.path.abspath('{{ fileDirname }}/../../../..')
photos = os.environ.get('SOCO_PHOTOS', f'{root}/work_dirs/quickstart/photos')
ann_file = os.environ.get('SOCO_TRAIN', f'{root}/configs/_base_/datasets/quickstart_coco.json')
val_file = os.environ.get('SOCO_VAL', ann_file)
classes = read_categories(ann_file)

norm_cfg = dict(type='BN', requires_grad=True)
model = dict(
    data_preprocessor=dict(mean=[127.5, 127.5, 127.5], std=[127.5, 127.5, 127.5]),
    backbone=dict(
        _delete_=True,
        type='mmcls.TIMMBackbone',
        model_name='tf_efficientnet_lite0',
        features_only=True,
        pretrained=False,
        out_indices=(1, 2, 3, 4)),
    neck=dict(in_channels=[24, 40, 112, 320], out_channels=64, norm_cfg=norm_cfg),
    rpn_head=dict(in_channels=64, feat_channels=64),
    roi_head=dict(
        bbox_roi_extractor=dict(out_channels=64),
        bbox_head=dict(
            type='Shared4Conv1FCBBoxHead', in_channels=64, conv_out_channels=64,
            fc_out_channels=256, num_classes=len(classes), norm_cfg=norm_cfg)),
    # Few RoIs, since the 4conv1fc head takes most of the time on a CPU.
    train_cfg=dict(
        rpn_proposal=dict(nms_pre=500, max_per_img=100), rcnn=dict(sampler=dict(num=32))),
    test_cfg=dict(rpn=dict(nms_pre=500, max_per_img=100), rcnn=dict(max_per_img=100)))

train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='Resize', scale=(288, 192), keep_ratio=True),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackDetInputs')
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=(288, 192), keep_ratio=True),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(
        type='PackDetInputs',
        meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor'))
]
dataset = dict(
    type='CocoDataset', data_prefix=dict(img=photos), metainfo=dict(classes=classes))
train_dataloader = dict(
    batch_size=8, num_workers=0, sampler=dict(type='InfiniteSampler', shuffle=True),
    dataset=dict(ann_file=ann_file, filter_cfg=dict(filter_empty_gt=True), pipeline=train_pipeline,
                 **dataset))
val_dataloader = dict(
    batch_size=4, num_workers=0, sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(ann_file=val_file, test_mode=True, pipeline=test_pipeline, **dataset))
test_dataloader = val_dataloader
val_evaluator = dict(type='CocoMetric', ann_file=val_file, metric='bbox')
test_evaluator = val_evaluator

max_iters = 300
train_cfg = dict(type='ResumableIterLoop', max_iters=max_iters, val_interval=75)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=1e-3, weight_decay=0.01),
    clip_grad=dict(max_norm=10.))
param_scheduler = [
    dict(type='WarmupLR', by_epoch=False, start_factor=0.1, share=0.05),
    dict(type='CosineLR', by_epoch=False, begin=0.05, eta_min_ratio=0.05)
]
default_hooks = dict(
    logger=dict(interval=10), checkpoint=dict(interval=75, max_keep_ckpts=1),
    precise_bn=dict(num_iters=16))
log_processor = dict(window_size=10)
