# Ablation: components_3 without the FPN. Boxes are pooled from C5.
#
#   bash tools/dist_train.sh configs/ablations/components_2_selective_search.py 8
#
# Only the backbone transfers to the detector: pass
# --cfg-options default_hooks.pretrained.require=[backbone] to dist_train_fpn.sh.
_base_ = 'components_3_fpn.py'
model = dict(
    backbone=dict(out_indices=(3, )),
    neck=None,
    roi_head=dict(
        bbox_roi_extractor=dict(out_channels=2048, featmap_strides=[32], level_sizes=())),
    projector=dict(in_channels=2048))
