# Mask R-CNN R50-C4, COCO, 2x, from SoCo-C4's backbone including its last stage.
#
#   bash tools/benchmarks/mmdetection/dist_train_c4.sh \
#       configs/benchmarks/mmdetection/coco/mask-rcnn_r50_c4_ms-2x_coco.py PRETRAIN 8
#
# PRETRAIN, hardware, data: see the 1x config. We have no source for an official result.
_base_ = [
    '../_base_/mask-rcnn_r50_c4_syncbn.py',
    '../_base_/coco_instance_ms.py',
    '../_base_/transfer_runtime_c4.py',
    '../_base_/schedule_180k.py',
]
