# SoCo as in the recipe for own photos.
_base_ = '../../soco_effnetlite0_fpn_own_photos.py'
default_hooks = dict(checkpoint=dict(interval=5, max_keep_ckpts=1), views=dict(interval=0))
