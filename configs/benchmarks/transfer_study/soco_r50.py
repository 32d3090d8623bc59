# SoCo-FPN for the GPU study: the recipe's network, views and colours, with AdamW at a batch of 64 in
# bfloat16. With a small batch and few steps, the updates of LARS are too small. One GPU.
#
#   python tools/benchmarks/transfer_study.py configs/benchmarks/transfer_study/gpu.py --data DIR
#
# The study sets data, seed and length of the run.
_base_ = '../../soco_r50_fpn_400e.py'
train_dataloader = dict(batch_size=64)
optim_wrapper = dict(
    type='AutocastOptimWrapper',
    optimizer=dict(_delete_=True, type='AdamW', lr=1e-3, weight_decay=1e-2))
default_hooks = dict(
    logger=dict(interval=10), checkpoint=dict(interval=20, max_keep_ckpts=1))
