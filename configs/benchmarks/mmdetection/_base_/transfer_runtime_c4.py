# transfer_runtime.py for detectors that use the last backbone stage as shared head of the RoI heads.
_base_ = 'transfer_runtime.py'

custom_imports = dict(
    imports=['projects.soco.engine', 'mmselfsup.models.utils.res_layer_extra_norm'],
    allow_failed_imports=False)
# The norm after the shared head is not pretrained.
default_hooks = dict(pretrained=dict(require=['backbone', 'roi_head.shared_head.layer4']))
