# Mask R-CNN R50-C4, COCO, 1x, from SoCo-C4's backbone including its last stage.
#
#   bash tools/benchmarks/mmdetection/dist_train_c4.sh \
#       configs/benchmarks/mmdetection/coco/mask-rcnn_r50_c4_ms-1x_coco.py PRETRAIN 8
#
# PRETRAIN is a SoCo-C4 checkpoint; hardware and data: see mask-rcnn_r50_fpn_ms-1x_coco.py.
#
# Official results of this setting, detectron2 (box / mask AP, COCO val2017; the SoCo authors'):
#   supervised ImageNet 38.2 / 33.3, SoCo-C4-100 40.4 / 34.9, SoCo-C4-400 40.9 / 35.3.
_base_ = [
    '../_base_/mask-rcnn_r50_c4_syncbn.py',
    '../_base_/coco_instance_ms.py',
    '../_base_/transfer_runtime_c4.py',
    '../_base_/schedule_90k.py',
]
