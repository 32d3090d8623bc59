# The recipe for own photos without its term, 6 epochs: the base of the runs from ImageNet weights.
_base_ = 'own_photos_20e.py'
model = dict(regulariser=None)
train_cfg = dict(max_epochs=6)
_base_.param_scheduler[0].share = 1 / 6  # one epoch of warm-up
_base_.param_scheduler[1].begin = 1 / 6
default_hooks = dict(
    checkpoint=dict(interval=6, max_keep_ckpts=1),
    views=dict(interval=0),
    rank=dict(interval=10))
