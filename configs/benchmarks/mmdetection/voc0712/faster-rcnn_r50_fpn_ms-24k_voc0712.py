# Faster R-CNN R50-FPN, VOC 07+12, 24k iterations, from SoCo's backbone, FPN and box head.
#
#   bash tools/benchmarks/mmdetection/dist_train_fpn.sh \
#       configs/benchmarks/mmdetection/voc0712/faster-rcnn_r50_fpn_ms-24k_voc0712.py PRETRAIN 8
#
# PRETRAIN and hardware: see the COCO configs. We have no source for an official result.
_base_ = [
    '../_base_/faster-rcnn_r50_fpn_syncbn.py',
    '../_base_/voc0712_ms.py',
    '../_base_/transfer_runtime.py',
    '../_base_/schedule_24k_voc.py',
]
model = dict(roi_head=dict(bbox_head=dict(num_classes=20)))
default_hooks = dict(checkpoint=dict(interval=4000))
