# Faster R-CNN for photos of your own with boxes, without masks: ResNet-18, photos of 288 × 192 pixels.
# Backbone, FPN and box head are those of configs/soco_r18_fpn_quickstart.py. A demonstration: too small
# for a useful detector.
#
#   SOCO_PHOTOS=images SOCO_TRAIN=train.json SOCO_VAL=val.json \
#       bash tools/benchmarks/mmdetection/dist_train_fpn.sh \
#       configs/benchmarks/mmdetection/own_photos/faster-rcnn_r18_fpn.py WEIGHTS 1
#
# Hardware: a CPU or one GPU.
_base_ = 'faster-rcnn_effnetlite0_fpn.py'
model = dict(
    data_preprocessor=dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375]),
    backbone=dict(
        _delete_=True,
        type='ResNet',
        depth=18,
        out_indices=(0, 1, 2, 3),
        frozen_stages=-1,
        norm_cfg=dict(type='BN', requires_grad=True),
        norm_eval=False,
        style='pytorch'),
    neck=dict(in_channels=[64, 128, 256, 512]))
