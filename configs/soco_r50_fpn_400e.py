# SoCo-FPN, ResNet-50, 400 epochs on ImageNet.
#
#   bash tools/dist_train.sh configs/soco_r50_fpn_400e.py 8
#
# Hardware: 8 GPUs x 256 images (total batch 2048), mixed precision, SyncBN; GPUs with 80 GB (not
# measured). For 8 smaller GPUs use the first command. For 2 machines with 8 GPUs each run the second
# command on both, with NODE_RANK=0 and 1:
#
#   bash tools/dist_train.sh configs/soco_r50_fpn_400e.py 8 --cfg-options \
#       train_dataloader.batch_size=128 optim_wrapper.accumulative_counts=2
#   NNODES=2 NODE_RANK=0 MASTER_ADDR=host0 bash tools/dist_train.sh configs/soco_r50_fpn_400e.py 8 \
#       --cfg-options train_dataloader.batch_size=128
#
# To save memory, add --cfg-options model.backbone.with_cp=True (gradient checkpointing: stages are
# recomputed in the backward pass, and BN updates its running statistics twice per step).
#
# With accumulation, SyncBN normalises over 1024 images instead of 2048. For another total batch, add
# --auto-scale-lr (lr = 8.0 x batch / 2048).
#
# Official result (Mask R-CNN R50-FPN 1x, COCO val2017): box AP 43.0, mask AP 38.2.
_base_ = [
    '_base_/models/soco_r50_fpn.py',
    '_base_/datasets/imagenet_soco.py',
    '_base_/schedules/lars_400e.py',
    '_base_/default_runtime.py',
]
