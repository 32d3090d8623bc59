# SoCo-FPN, ResNet-50, 400 epochs of ImageNet.
#
#   bash tools/dist_train.sh configs/soco_r50_fpn_400e.py 8
#
# Hardware: the paper's batch of 2048 as 8 GPUs x 256, mixed precision, SyncBN; for GPUs with 80 GB.
# Smaller GPUs, 8 x 128 with two iterations per optimizer step:
#
#   bash tools/dist_train.sh configs/soco_r50_fpn_400e.py 8 --cfg-options \
#       train_dataloader.batch_size=128 optim_wrapper.accumulative_counts=2
#
# The difference: SyncBN then normalises over 1024 images and not 2048.
# Another total batch: add --auto-scale-lr (lr = 8.0 x batch / 2048).
#
# Official result (Mask R-CNN R50-FPN 1x, COCO val2017): box AP 43.0, mask AP 38.2.
_base_ = [
    '_base_/models/soco_r50_fpn.py',
    '_base_/datasets/imagenet_soco.py',
    '_base_/schedules/lars_400e.py',
    '_base_/default_runtime.py',
]
