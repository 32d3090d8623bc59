# RetinaNet R50-FPN, COCO, 1x, from SoCo's backbone and P3 to P5 of its FPN.
#
#   bash tools/benchmarks/mmdetection/dist_train_fpn.sh \
#       configs/benchmarks/mmdetection/coco/retinanet_r50_fpn_ms-1x_coco.py PRETRAIN 8
#
# PRETRAIN, hardware, data: see mask-rcnn_r50_fpn_ms-1x_coco.py. The learning rate of 0.01 is that of
# mmdet and detectron2. Norm layers, image sizes, schedule and weight decay are those of the official
# Mask R-CNN runs.
_base_ = [
    'mmdet::_base_/models/retinanet_r50_fpn.py',
    '../_base_/coco_detection_ms.py',
    '../_base_/transfer_runtime_dense.py',
    '../_base_/schedule_90k.py',
]
norm_cfg = dict(type='SyncBN', requires_grad=True)
model = dict(
    backbone=dict(frozen_stages=-1, norm_cfg=norm_cfg, norm_eval=False, init_cfg=None),
    neck=dict(norm_cfg=norm_cfg))
optim_wrapper = dict(optimizer=dict(lr=0.01))
