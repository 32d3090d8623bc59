# Ablation: the third view is 160 x 160 pixels (112 x 112 in the recipe).
#
#   bash tools/dist_train.sh configs/ablations/view3_size_160.py 8
_base_ = '../soco_r50_fpn_100e.py'
_base_.train_dataloader.dataset.pipeline[1].views[2].size = 160
