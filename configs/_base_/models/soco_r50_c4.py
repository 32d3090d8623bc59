# SoCo-C4 with ResNet-50: RoIAlign 14x14 on C4, the backbone's last stage as RoI head, average
# pooling. Two views, no FPN.
_base_ = 'soco_r50_fpn.py'
norm_cfg = dict(type='SyncBN', requires_grad=True)

model = dict(
    backbone=dict(num_stages=3, strides=(1, 2, 2), dilations=(1, 1, 1), out_indices=(2, )),
    neck=None,
    roi_head=dict(
        _delete_=True,
        type='SoCoC4RoIHead',
        bbox_roi_extractor=dict(
            type='mmdet.SingleRoIExtractor',
            roi_layer=dict(type='RoIAlign', output_size=14, sampling_ratio=0),
            out_channels=1024,
            featmap_strides=[16]),
        shared_head=dict(
            type='mmdet.ResLayer',
            depth=50,
            stage=3,
            stride=2,
            norm_cfg=norm_cfg,
            norm_eval=False)),
    projector=dict(in_channels=2048))
