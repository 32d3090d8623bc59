# SoCo-FPN with ResNet-101; all else as soco_r50_fpn_400e.py, where hardware and batches are told.
#
#   bash tools/dist_train.sh configs/soco_r101_fpn_400e.py 8
#   NNODES=2 NODE_RANK=0 MASTER_ADDR=host0 bash tools/dist_train.sh configs/soco_r101_fpn_400e.py 8 \
#       --cfg-options train_dataloader.batch_size=128
#
# No official result: the authors' release has no ResNet-101.
_base_ = 'soco_r50_fpn_400e.py'
model = dict(backbone=dict(depth=101))
