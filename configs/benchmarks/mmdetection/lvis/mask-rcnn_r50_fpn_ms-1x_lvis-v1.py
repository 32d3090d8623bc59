# Mask R-CNN R50-FPN, LVIS v1, 1x, from SoCo's backbone, FPN and box head.
#
#   bash tools/benchmarks/mmdetection/dist_train_fpn.sh \
#       configs/benchmarks/mmdetection/lvis/mask-rcnn_r50_fpn_ms-1x_lvis-v1.py PRETRAIN 8
#
# PRETRAIN and hardware: see coco/mask-rcnn_r50_fpn_ms-1x_coco.py. Evaluation needs the package lvis
# (requirements/datasets.txt).
#
# Official results of this setting, detectron2 (box / mask AP, LVIS v1 val; the SoCo authors'):
#   supervised ImageNet 20.4 / 19.4, SoCo*-400 26.3 / 25.0.
_base_ = [
    '../_base_/mask-rcnn_r50_fpn_syncbn.py',
    '../_base_/lvis_v1_instance_ms.py',
    '../_base_/transfer_runtime.py',
    '../_base_/schedule_90k.py',
]
custom_imports = dict(imports=['projects.soco.engine', 'projects.soco.compat.metrics'])
model = dict(
    roi_head=dict(bbox_head=dict(num_classes=1203), mask_head=dict(num_classes=1203)),
    test_cfg=dict(rcnn=dict(score_thr=0.0001, max_per_img=300)))
