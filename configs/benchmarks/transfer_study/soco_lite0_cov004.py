# SoCo as in the recipe for own photos, with a weight of 0.04 on the covariance term.
_base_ = '../collapse_study/own_photos_20e.py'
model = dict(regulariser=dict(covariance_weight=0.04))
default_hooks = dict(checkpoint=dict(interval=5, max_keep_ckpts=1), views=dict(interval=0))
