# SoCo*, ResNet-50, 400 epochs of ImageNet: four views of 224, 224, 192 and 112 pixels.
#
#   bash tools/dist_train.sh configs/soco_r50_fpn_star_400e.py 8
#
# Hardware: the batch of 2048 as 8 GPUs x 256, mixed precision, SyncBN; GPUs with 80 GB (not measured).
# On 8 smaller ones, or on 2 machines with 8 each (run it on both, NODE_RANK=0 and 1):
#
#   bash tools/dist_train.sh configs/soco_r50_fpn_star_400e.py 8 --cfg-options \
#       train_dataloader.batch_size=128 optim_wrapper.accumulative_counts=2
#   NNODES=2 NODE_RANK=0 MASTER_ADDR=host0 bash tools/dist_train.sh \
#       configs/soco_r50_fpn_star_400e.py 8 --cfg-options train_dataloader.batch_size=128
#
# What accumulation changes, and other batches: see soco_r50_fpn_400e.py.
#
# Official result (Mask R-CNN R50-FPN 1x, COCO val2017): box AP 43.2, mask AP 38.4.
_base_ = [
    '_base_/models/soco_r50_fpn.py',
    '_base_/datasets/imagenet_soco_star.py',
    '_base_/schedules/lars_400e.py',
    '_base_/default_runtime.py',
]
