# Mask R-CNN R50-C4 as fine-tuned in the official runs: SyncBN in the backbone and in its last stage,
# no frozen layers. The last stage is the shared head of the RoI heads (SoCo-C4 pretrains it) and has
# an additional BN at its end (`Res5ROIHeadsExtraNorm`, written by the MoCo authors for detectron2).
_base_ = 'mmdet::_base_/models/mask-rcnn_r50-caffe-c4.py'

norm_cfg = dict(type='SyncBN', requires_grad=True)
model = dict(
    data_preprocessor=dict(
        mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], bgr_to_rgb=True),
    backbone=dict(
        frozen_stages=-1,
        norm_cfg=norm_cfg,
        norm_eval=False,
        style='pytorch',
        init_cfg=None),  # otherwise mmdet first downloads another ResNet
    roi_head=dict(
        shared_head=dict(
            type='ResLayerExtraNorm', style='pytorch', norm_cfg=norm_cfg, norm_eval=False)))
