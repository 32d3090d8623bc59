# Ablation: a total batch of 512 = 8 x 64 (2048 in the recipe), learning rate scaled with it.
#
#   bash tools/dist_train.sh configs/ablations/batch_512.py 8
_base_ = '../soco_r50_fpn_100e.py'
train_dataloader = dict(batch_size=64)
optim_wrapper = dict(optimizer=dict(lr=2.0))
