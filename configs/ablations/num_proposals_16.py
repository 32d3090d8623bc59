# Ablation: K = 16 proposals per view pair (4 in the recipe).
#
#   bash tools/dist_train.sh configs/ablations/num_proposals_16.py 8
_base_ = '../soco_r50_fpn_100e.py'
_base_.train_dataloader.dataset.pipeline[1].num_proposals = 16
