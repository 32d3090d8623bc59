# Ablation: components_5 without scale-aware assignment. Every box is pooled from P5.
# (P5 is our choice; we have no source for the paper's level.)
#
#   bash tools/dist_train.sh configs/ablations/components_4_head.py 8
_base_ = 'components_5_scale_aware.py'
model = dict(roi_head=dict(bbox_roi_extractor=dict(level_sizes=(0, 0, 0))))
