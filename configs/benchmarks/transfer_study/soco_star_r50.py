# SoCo* for the GPU study: soco_r50.py with the four views of soco_r50_fpn_star_400e.py.
_base_ = '../../soco_r50_fpn_star_400e.py'
train_dataloader = dict(batch_size=64)
optim_wrapper = dict(
    type='AutocastOptimWrapper',
    optimizer=dict(_delete_=True, type='AdamW', lr=1e-3, weight_decay=1e-2))
default_hooks = dict(
    logger=dict(interval=10), checkpoint=dict(interval=20, max_keep_ckpts=1))
