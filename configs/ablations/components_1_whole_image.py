# Ablation: components_2 without selective search. The whole view is the only object.
#
#   bash tools/dist_train.sh configs/ablations/components_1_whole_image.py 8
#
# Only the backbone transfers to the detector: pass
# --cfg-options default_hooks.pretrained.require=[backbone] to dist_train_fpn.sh.
_base_ = 'components_2_selective_search.py'
_base_.train_dataloader.dataset.pipeline[0].max_proposals = 0
_base_.train_dataloader.dataset.pipeline[1].num_proposals = 1
