# Mask R-CNN R50-FPN, COCO, 1x, from SoCo's backbone, FPN and box head.
#
#   bash tools/benchmarks/mmdetection/dist_train_fpn.sh \
#       configs/benchmarks/mmdetection/coco/mask-rcnn_r50_fpn_ms-1x_coco.py PRETRAIN.pth 8
#
# Hardware: 8 GPUs x 2 images (the schedule is made for a total batch of 16). With another number of
# GPUs, keep the total batch by `--cfg-options train_dataloader.batch_size=...`, or scale the learning
# rate by --auto-scale-lr. Data: COCO 2017 under data/coco (annotations/, train2017/, val2017/).
#
# Official results of this setting, detectron2 (box / mask AP, COCO val2017; the SoCo authors'):
#   from scratch 31.0 / 28.5, supervised ImageNet 38.9 / 35.4,
#   SoCo-100 42.3 / 37.6, SoCo-400 43.0 / 38.2, SoCo*-400 43.2 / 38.4.
_base_ = [
    '../_base_/mask-rcnn_r50_fpn_syncbn.py',
    '../_base_/coco_instance_ms.py',
    '../_base_/transfer_runtime.py',
    '../_base_/schedule_90k.py',
]
