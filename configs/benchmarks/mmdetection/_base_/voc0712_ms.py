# VOC 2007 and 2012 trainval, tested on 2007, 2 images per GPU, short side 480-800 (800 in testing).
#
# data/VOCdevkit/{VOC2007,VOC2012}/: Annotations/, ImageSets/Main/, JPEGImages/
_base_ = 'mmdet::_base_/datasets/voc0712.py'

train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(
        type='RandomChoiceResize',
        scales=[(1333, size) for size in range(480, 801, 32)],
        keep_ratio=True),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackDetInputs')
]
train_dataloader = dict(
    sampler=dict(_delete_=True, type='InfiniteSampler', shuffle=True),  # for an iteration-based loop
    dataset=dict(
        _delete_=True,
        type='ConcatDataset',
        ignore_keys=['dataset_type'],
        datasets=[
            dict(
                type='VOCDataset',
                data_root='data/VOCdevkit/',
                ann_file=f'VOC{year}/ImageSets/Main/trainval.txt',
                data_prefix=dict(sub_data_root=f'VOC{year}/'),
                filter_cfg=dict(filter_empty_gt=True, min_size=32),
                pipeline=train_pipeline) for year in (2007, 2012)
        ]))
_base_.val_dataloader.dataset.pipeline[1].scale = (1333, 800)
_base_.test_dataloader.dataset.pipeline[1].scale = (1333, 800)

# As reported by detectron2: AP over IoU 0.5 to 0.95 and AP50, with 11-point interpolation.
_base_.val_evaluator.iou_thrs = [0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95]
_base_.test_evaluator.iou_thrs = [0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95]
