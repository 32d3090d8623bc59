# The recipe for own photos before: the paper's loss alone, K of 4, views of 128 pixels, a rate of 5e-4.
# docs/results/own_photos.md compares it with the recipe of now.
_base_ = '../collapse_study/own_photos_20e.py'
model = dict(regulariser=None)
default_hooks = dict(checkpoint=dict(interval=5, max_keep_ckpts=1), views=dict(interval=0))
