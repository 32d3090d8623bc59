# Mask R-CNN R50-FPN on 10 % of COCO's training images, evaluated on all of val2017.
#
#   python tools/dataset_converters/coco_subset.py \
#       data/coco/annotations/instances_train2017.json --percent 10
#   bash tools/benchmarks/mmdetection/dist_train_fpn.sh \
#       configs/benchmarks/mmdetection/coco/mask-rcnn_r50_fpn_ms-1x_coco-10percent.py PRETRAIN 8
#
# Same number of epochs as 1x, so 10 % of its iterations, with steps at the same relative positions (our
# choice; we have no source for the paper's mini-COCO schedule).
_base_ = 'mask-rcnn_r50_fpn_ms-1x_coco.py'
train_dataloader = dict(
    dataset=dict(ann_file='annotations/instances_train2017_10percent.json'))
train_cfg = dict(max_iters=9000, val_interval=9000)
_base_.param_scheduler[0].share = 1 / 9  # also 1000 iterations of warm-up
default_hooks = dict(checkpoint=dict(interval=9000))
