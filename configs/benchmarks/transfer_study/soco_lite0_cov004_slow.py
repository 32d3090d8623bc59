# soco_lite0_cov004.py with a tenth of the learning rate for the backbone, which has ImageNet weights.
_base_ = 'soco_lite0_cov004.py'
optim_wrapper = dict(paramwise_cfg=dict(custom_keys={'backbone': dict(lr_mult=0.1)}))
