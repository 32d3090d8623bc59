# As transfer_runtime.py, for detectors whose last backbone stage is their RoI heads' shared head.
_base_ = 'transfer_runtime.py'

custom_imports = dict(
    imports=['projects.soco.engine', 'mmselfsup.models.utils.res_layer_extra_norm'],
    allow_failed_imports=False)
# The norm behind the shared head is the detector's own.
default_hooks = dict(pretrained=dict(require=['backbone', 'roi_head.shared_head.layer4']))
