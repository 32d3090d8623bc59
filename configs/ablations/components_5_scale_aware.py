# Ablation: components_6 without box jitter.
#
#   bash tools/dist_train.sh configs/ablations/components_5_scale_aware.py 8
_base_ = 'components_6_box_jitter.py'
_base_.train_dataloader.dataset.pipeline[1].jitter_prob = 0.0
