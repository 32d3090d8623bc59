# Ablation: random boxes instead of selective search.
#
#   python tools/generate_proposals.py data/imagenet/train \
#       data/proposals/imagenet_train_random.arrow --source random
#
#   bash tools/dist_train.sh configs/ablations/proposals_random.py 8
_base_ = '../soco_r50_fpn_100e.py'
train_dataloader = dict(
    dataset=dict(proposals='data/proposals/imagenet_train_random.arrow'))
