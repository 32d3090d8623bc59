# Ablation: the target network starts with momentum 0.98 (0.99 in the recipe).
#
#   bash tools/dist_train.sh configs/ablations/momentum_098.py 8
_base_ = '../soco_r50_fpn_100e.py'
default_hooks = dict(momentum=dict(momentum=0.98))
