# Mask R-CNN R50-FPN as fine-tuned in the official runs: SyncBN in backbone, FPN, box head and mask
# head, a 4conv1fc box head (SoCo pretrains its shared layers), no frozen layers.
_base_ = 'mmdet::_base_/models/mask-rcnn_r50_fpn.py'

norm_cfg = dict(type='SyncBN', requires_grad=True)
model = dict(
    backbone=dict(
        frozen_stages=-1,
        norm_cfg=norm_cfg,
        norm_eval=False,
        init_cfg=None),  # otherwise mmdet first downloads another ResNet
    neck=dict(norm_cfg=norm_cfg),
    roi_head=dict(
        bbox_head=dict(type='Shared4Conv1FCBBoxHead', norm_cfg=norm_cfg),
        mask_head=dict(norm_cfg=norm_cfg)))
