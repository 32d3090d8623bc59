# SoCo-FPN with EfficientNet-Lite0 (timm), a narrow FPN and RoI head, for a CPU or a small GPU.
_base_ = 'soco_r50_fpn.py'
norm_cfg = dict(type='BN', requires_grad=True)

model = dict(
    data_preprocessor=dict(mean=[127.5, 127.5, 127.5], std=[127.5, 127.5, 127.5]),
    backbone=dict(
        _delete_=True,
        type='mmcls.TIMMBackbone',
        model_name='tf_efficientnet_lite0',
        features_only=True,
        pretrained=False,
        out_indices=(1, 2, 3, 4)),
    neck=dict(in_channels=[24, 40, 112, 320], out_channels=64, norm_cfg=norm_cfg),
    roi_head=dict(
        bbox_roi_extractor=dict(out_channels=64, level_sizes=(27, 55, 110)),
        bbox_head=dict(
            in_channels=64, conv_out_channels=64, fc_out_channels=256, norm_cfg=norm_cfg)),
    projector=dict(
        in_channels=256, hid_channels=512, out_channels=128, norm_cfg=dict(type='BN1d')),
    head=dict(
        predictor=dict(
            in_channels=128, hid_channels=512, out_channels=128, norm_cfg=dict(type='BN1d'))))
