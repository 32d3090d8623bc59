# Faster R-CNN R50-C4, VOC 07+12, 24k iterations, from SoCo-C4's backbone including its last stage.
#
#   bash tools/benchmarks/mmdetection/dist_train_c4.sh \
#       configs/benchmarks/mmdetection/voc0712/faster-rcnn_r50_c4_ms-24k_voc0712.py PRETRAIN 8
#
# PRETRAIN and hardware: see the COCO configs. We have no source for an official result.
_base_ = [
    '../_base_/faster-rcnn_r50_c4_syncbn.py',
    '../_base_/voc0712_ms.py',
    '../_base_/transfer_runtime_c4.py',
    '../_base_/schedule_24k_voc.py',
]
model = dict(roi_head=dict(bbox_head=dict(num_classes=20)))
default_hooks = dict(checkpoint=dict(interval=4000))
