# SoCo-FPN with ResNet-101. Everything else is as in soco_r50_fpn_400e.py, which describes hardware
# and batch sizes.
#
#   bash tools/dist_train.sh configs/soco_r101_fpn_400e.py 8
#   NNODES=2 NODE_RANK=0 MASTER_ADDR=host0 bash tools/dist_train.sh configs/soco_r101_fpn_400e.py 8 \
#       --cfg-options train_dataloader.batch_size=128
#
# No official result: the authors' release does not include ResNet-101.
_base_ = 'soco_r50_fpn_400e.py'
model = dict(backbone=dict(depth=101))
