# Mask R-CNN R50-C4 as the official runs fine-tune it: SyncBN in the backbone and in its last stage,
# which is the RoI heads' shared head (SoCo-C4 pretrains it) and has one BN more at its end
# (detectron2's `Res5ROIHeadsExtraNorm` of the MoCo authors), nothing frozen.
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
        init_cfg=None),  # else mmdet downloads another ResNet first
    roi_head=dict(
        shared_head=dict(
            type='ResLayerExtraNorm', style='pytorch', norm_cfg=norm_cfg, norm_eval=False)))
