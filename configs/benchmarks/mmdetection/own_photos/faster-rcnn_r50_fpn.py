# Faster R-CNN for photos of your own with boxes, without masks: ResNet-50, photos of 1333 × 800 pixels,
# batches of 4. Backbone, FPN and box head are those of configs/soco_r50_fpn_400e.py. The schedule is
# that of faster-rcnn_effnetlite0_fpn.py; the learning rate is AdamW's usual one. Neither was tuned.
#
#   SOCO_PHOTOS=images SOCO_TRAIN=train.json SOCO_VAL=val.json \
#       bash tools/benchmarks/mmdetection/dist_train_fpn.sh \
#       configs/benchmarks/mmdetection/own_photos/faster-rcnn_r50_fpn.py WEIGHTS 1
#
# Hardware: one GPU.
_base_ = 'faster-rcnn_r18_fpn.py'
model = dict(
    backbone=dict(depth=50),
    neck=dict(in_channels=[256, 512, 1024, 2048], out_channels=256),
    rpn_head=dict(in_channels=256, feat_channels=256),
    roi_head=dict(
        bbox_roi_extractor=dict(out_channels=256),
        bbox_head=dict(in_channels=256, conv_out_channels=256, fc_out_channels=1024)),
    train_cfg=dict(
        rpn_proposal=dict(nms_pre=2000, max_per_img=1000), rcnn=dict(sampler=dict(num=512))),
    test_cfg=dict(rpn=dict(nms_pre=1000, max_per_img=1000)))

_base_.train_dataloader.dataset.pipeline[2].scale = (1333, 800)
_base_.val_dataloader.dataset.pipeline[1].scale = (1333, 800)
_base_.test_dataloader.dataset.pipeline[1].scale = (1333, 800)
train_dataloader = dict(batch_size=4)
optim_wrapper = dict(optimizer=dict(lr=1e-4))
