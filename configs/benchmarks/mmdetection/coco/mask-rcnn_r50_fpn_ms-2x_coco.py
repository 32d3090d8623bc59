# Mask R-CNN R50-FPN, COCO, 2x, from SoCo's backbone, FPN and box head.
#
#   bash tools/benchmarks/mmdetection/dist_train_fpn.sh \
#       configs/benchmarks/mmdetection/coco/mask-rcnn_r50_fpn_ms-2x_coco.py PRETRAIN 8
#
# PRETRAIN, hardware, data: see the 1x config. We have no source for an official result.
_base_ = [
    '../_base_/mask-rcnn_r50_fpn_syncbn.py',
    '../_base_/coco_instance_ms.py',
    '../_base_/transfer_runtime.py',
    '../_base_/schedule_180k.py',
]
