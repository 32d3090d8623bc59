# transfer_runtime.py for RetinaNet and FCOS. Their FPN starts at P3, so the lateral and output convs of
# P3 to P5 are loaded from SoCo's FPN, each at its own level. There is no box head to load.
_base_ = 'transfer_runtime.py'
default_hooks = dict(
    pretrained=dict(require=[
        'backbone', 'neck.lateral_convs', 'neck.fpn_convs.0', 'neck.fpn_convs.1',
        'neck.fpn_convs.2']))
