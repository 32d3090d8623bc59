# Ablation: a total batch of 4096 = 8 x 256 x 2 accumulated iterations (2048 in the recipe),
# learning rate scaled with it. SyncBN still normalises over 2048 images.
#
#   bash tools/dist_train.sh configs/ablations/batch_4096.py 8
_base_ = '../soco_r50_fpn_100e.py'
optim_wrapper = dict(accumulative_counts=2, optimizer=dict(lr=16.0))
