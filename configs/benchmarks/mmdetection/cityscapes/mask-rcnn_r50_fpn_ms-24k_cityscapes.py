# Mask R-CNN R50-FPN, Cityscapes, 24k iterations, from SoCo's backbone, FPN and box head.
#
#   bash tools/benchmarks/mmdetection/dist_train_fpn.sh \
#       configs/benchmarks/mmdetection/cityscapes/mask-rcnn_r50_fpn_ms-24k_cityscapes.py PRETRAIN 8
#
# Hardware: 8 GPUs x 1 image. Schedule and learning rate as in detectron2's Cityscapes config.
# Evaluation needs the package cityscapesscripts (requirements/datasets.txt). PRETRAIN: see
# coco/mask-rcnn_r50_fpn_ms-1x_coco.py. We have no source for an official result.
_base_ = [
    '../_base_/mask-rcnn_r50_fpn_syncbn.py',
    '../_base_/cityscapes_instance_ms.py',
    '../_base_/transfer_runtime.py',
    '../_base_/schedule_90k.py',
]
custom_imports = dict(imports=['projects.soco.engine', 'projects.soco.compat.metrics'])
model = dict(roi_head=dict(bbox_head=dict(num_classes=8), mask_head=dict(num_classes=8)))
optim_wrapper = dict(optimizer=dict(lr=0.01))
_base_.param_scheduler[0].share = 1 / 24  # full learning rate at iteration 1000
_base_.param_scheduler[1].shares = [18 / 24]
train_cfg = dict(max_iters=24000, val_interval=8000)
default_hooks = dict(checkpoint=dict(interval=8000))
auto_scale_lr = dict(base_batch_size=8)
