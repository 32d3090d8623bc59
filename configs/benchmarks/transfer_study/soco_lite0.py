# SoCo as in the recipe for own photos, with the paper's loss alone.
_base_ = '../collapse_study/own_photos_20e.py'
model = dict(regulariser=None)
default_hooks = dict(checkpoint=dict(interval=5, max_keep_ckpts=1), views=dict(interval=0))
