# FCOS R50-FPN, COCO, 1x, from SoCo's backbone and P3 to P5 of its FPN.
#
#   bash tools/benchmarks/mmdetection/dist_train_fpn.sh \
#       configs/benchmarks/mmdetection/coco/fcos_r50_fpn_ms-1x_coco.py PRETRAIN 8
#
# PRETRAIN, hardware, data: see mask-rcnn_r50_fpn_ms-1x_coco.py. The learning rate of 0.01, doubled for
# biases, and gradient clipping are those of mmdet's FCOS. Norm layers, image sizes, schedule and weight
# decay are those of the official Mask R-CNN runs.
_base_ = [
    '../_base_/fcos_r50_fpn_syncbn.py',
    '../_base_/coco_detection_ms.py',
    '../_base_/transfer_runtime_dense.py',
    '../_base_/schedule_90k.py',
]
optim_wrapper = dict(
    optimizer=dict(lr=0.01),
    paramwise_cfg=dict(bias_lr_mult=2., bias_decay_mult=0.),
    clip_grad=dict(max_norm=35, norm_type=2))
