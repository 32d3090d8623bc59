# Mask R-CNN for the quickstart, small enough to be fine-tuned and evaluated on two CPU cores.
#
#   bash tools/benchmarks/mmdetection/dist_train_fpn.sh \
#       configs/benchmarks/mmdetection/coco/mask-rcnn_r18_fpn_quickstart.py \
#       work_dirs/quickstart/pretrain/epoch_N.pth 1
#
# This is a demonstration, not a measurement: it trains and evaluates on the same eight photos.
# Backbone, FPN and box head have the widths of configs/soco_r18_fpn_quickstart.py.
# To use your own photos and annotations, set SOCO_QUICKSTART_PHOTOS (a folder) and
# SOCO_QUICKSTART_ANNOTATIONS (a COCO json; the classes are read from it) before the command.
_base_ = [
    'mmdet::_base_/models/mask-rcnn_r50_fpn.py',
    '../_base_/transfer_runtime.py',
]

# After `_base_`, since MMEngine takes a config that begins with an import for a pure Python config.
import os  # noqa: E402

from projects.soco.annotations.read import read_categories  # noqa: E402

root = os.path.abspath('{{ fileDirname }}/../../../..')
photos = os.environ.get('SOCO_QUICKSTART_PHOTOS', f'{root}/work_dirs/quickstart/photos')
ann_file = os.environ.get('SOCO_QUICKSTART_ANNOTATIONS',
                          f'{root}/configs/_base_/datasets/quickstart_coco.json')
classes = read_categories(ann_file)

norm_cfg = dict(type='BN', requires_grad=True)
model = dict(
    backbone=dict(
        depth=18, frozen_stages=-1, norm_cfg=norm_cfg, norm_eval=False, init_cfg=None),
    neck=dict(in_channels=[64, 128, 256, 512], out_channels=64, norm_cfg=norm_cfg),
    rpn_head=dict(in_channels=64, feat_channels=64),
    roi_head=dict(
        bbox_roi_extractor=dict(out_channels=64),
        bbox_head=dict(
            type='Shared4Conv1FCBBoxHead', in_channels=64, conv_out_channels=64,
            fc_out_channels=256, num_classes=len(classes), norm_cfg=norm_cfg),
        mask_roi_extractor=dict(out_channels=64),
        mask_head=dict(
            in_channels=64, conv_out_channels=64, num_classes=len(classes), norm_cfg=norm_cfg)),
    # Few RoIs, since the 4conv1fc head takes most of the time on a CPU.
    train_cfg=dict(
        rpn_proposal=dict(nms_pre=500, max_per_img=100), rcnn=dict(sampler=dict(num=32))),
    test_cfg=dict(rpn=dict(nms_pre=500, max_per_img=50), rcnn=dict(max_per_img=20)))

train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
    dict(type='Resize', scale=(320, 192), keep_ratio=True),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackDetInputs')
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=(320, 192), keep_ratio=True),
    dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
    dict(
        type='PackDetInputs',
        meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor'))
]
dataset = dict(
    type='CocoDataset', ann_file=ann_file, data_prefix=dict(img=photos),
    metainfo=dict(classes=classes))
train_dataloader = dict(
    batch_size=2, num_workers=0, sampler=dict(type='InfiniteSampler', shuffle=True),
    dataset=dict(filter_cfg=dict(filter_empty_gt=True), pipeline=train_pipeline, **dataset))
val_dataloader = dict(
    batch_size=1, num_workers=0, sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(test_mode=True, pipeline=test_pipeline, **dataset))
test_dataloader = val_dataloader
val_evaluator = dict(type='CocoMetric', ann_file=ann_file, metric=['bbox', 'segm'])
test_evaluator = val_evaluator

max_iters = 50
train_cfg = dict(type='ResumableIterLoop', max_iters=max_iters, val_interval=max_iters)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=1e-3, weight_decay=0.01),
    clip_grad=dict(max_norm=10.))
param_scheduler = [
    dict(type='WarmupLR', by_epoch=False, start_factor=0.1, share=0.1),
    dict(type='CosineLR', by_epoch=False, begin=0.1, eta_min_ratio=0.05)
]
default_hooks = dict(
    logger=dict(interval=10), checkpoint=dict(interval=max_iters), precise_bn=dict(num_iters=8))
log_processor = dict(window_size=10)
