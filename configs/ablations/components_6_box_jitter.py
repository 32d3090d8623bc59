# Ablation: the recipe without the third view.
#
#   bash tools/dist_train.sh configs/ablations/components_6_box_jitter.py 8
_base_ = '../soco_r50_fpn_100e.py'
_base_.train_dataloader.dataset.pipeline[1].views.pop(2)
