# Ablation: the third view has 96 pixels a side (112 in the recipe).
#
#   bash tools/dist_train.sh configs/ablations/view3_size_96.py 8
_base_ = '../soco_r50_fpn_100e.py'
_base_.train_dataloader.dataset.pipeline[1].views[2].size = 96
