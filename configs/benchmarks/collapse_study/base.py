# The base of the collapse study: the quickstart with the paper's loss alone, a batch of 16, 6 epochs.
_base_ = '../../soco_r18_fpn_quickstart.py'
model = dict(regulariser=None)
train_dataloader = dict(batch_size=16, dataset=dict(repeat=1))
train_cfg = dict(max_epochs=6)
_base_.param_scheduler[0].share = 1 / 6  # one epoch of warm-up
_base_.param_scheduler[1].begin = 1 / 6
default_hooks = dict(
    checkpoint=dict(interval=6, max_keep_ckpts=1),
    views=dict(interval=0),
    rank=dict(interval=10))
