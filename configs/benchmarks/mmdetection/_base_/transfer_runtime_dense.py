# As transfer_runtime.py, for RetinaNet and FCOS: their pyramid starts at P3, so that of SoCo's FPN
# the lateral and output convs of P3 to P5 arrive, each at its own level; there is no box head.
_base_ = 'transfer_runtime.py'
default_hooks = dict(
    pretrained=dict(require=[
        'backbone', 'neck.lateral_convs', 'neck.fpn_convs.0', 'neck.fpn_convs.1',
        'neck.fpn_convs.2']))
