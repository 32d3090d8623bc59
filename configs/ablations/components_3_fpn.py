# Ablation: components_4 without the box head. RoI features are average-pooled.
#
#   bash tools/dist_train.sh configs/ablations/components_3_fpn.py 8
#
# Only backbone and FPN transfer to the detector: pass
# --cfg-options default_hooks.pretrained.require=[backbone,neck] to dist_train_fpn.sh.
_base_ = 'components_4_head.py'
model = dict(
    roi_head=dict(bbox_head=None),
    projector=dict(in_channels=256))
