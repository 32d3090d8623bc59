# SoCo-FPN, ResNet-50, 400 epochs of ImageNet.
#
#   bash tools/dist_train.sh configs/soco_r50_fpn_400e.py 8
#
# Hardware: the batch of 2048 as 8 GPUs x 256, mixed precision, SyncBN; GPUs with 80 GB (not measured).
# On 8 smaller ones, or on 2 machines with 8 each (run it on both, NODE_RANK=0 and 1):
#
#   bash tools/dist_train.sh configs/soco_r50_fpn_400e.py 8 --cfg-options \
#       train_dataloader.batch_size=128 optim_wrapper.accumulative_counts=2
#   NNODES=2 NODE_RANK=0 MASTER_ADDR=host0 bash tools/dist_train.sh configs/soco_r50_fpn_400e.py 8 \
#       --cfg-options train_dataloader.batch_size=128
#
# For less memory, --cfg-options model.backbone.with_cp=True (stages are computed again in the backward
# pass; BN's running statistics then move twice a step). model.channels_last=True may be quicker.
#
# With accumulation SyncBN normalises over 1024 images and not 2048. Another total batch: add
# --auto-scale-lr (lr = 8.0 x batch / 2048).
#
# Official result (Mask R-CNN R50-FPN 1x, COCO val2017): box AP 43.0, mask AP 38.2.
_base_ = [
    '_base_/models/soco_r50_fpn.py',
    '_base_/datasets/imagenet_soco.py',
    '_base_/schedules/lars_400e.py',
    '_base_/default_runtime.py',
]
