# Mask R-CNN R101-FPN, COCO, 1x, for configs/soco_r101_fpn_400e.py.
# Everything else is as with ResNet-50.
#
#   bash tools/benchmarks/mmdetection/dist_train_fpn.sh \
#       configs/benchmarks/mmdetection/coco/mask-rcnn_r101_fpn_ms-1x_coco.py PRETRAIN 8
_base_ = 'mask-rcnn_r50_fpn_ms-1x_coco.py'
model = dict(backbone=dict(depth=101))
