# Ablation: a total batch of 1024 = 8 x 128 (2048 in the recipe), learning rate scaled with it.
#
#   bash tools/dist_train.sh configs/ablations/batch_1024.py 8
_base_ = '../soco_r50_fpn_100e.py'
train_dataloader = dict(batch_size=128)
optim_wrapper = dict(optimizer=dict(lr=4.0))
