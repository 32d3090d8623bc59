# SoCo-FPN, ResNet-50, 100 epochs of ImageNet, with cutout inside the boxes.
#
#   bash tools/dist_train.sh configs/soco_r50_fpn_100e.py 8
#
# Hardware, smaller GPUs and other batches: see soco_r50_fpn_400e.py.
#
# Official result (Mask R-CNN R50-FPN 1x, COCO val2017): box AP 42.3, mask AP 37.6.
_base_ = [
    '_base_/models/soco_r50_fpn.py',
    '_base_/datasets/imagenet_soco.py',
    '_base_/schedules/lars_100e.py',
    '_base_/default_runtime.py',
]
_base_.train_dataloader.dataset.pipeline[2].prob = 0.5
