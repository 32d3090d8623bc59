# Detectron2's 1x schedule: 90k iterations of 16 images.
#
# The loop is iteration-based, as in detectron2. mmdet's 1x schedule is 12 epochs, which is about 88k
# iterations at this batch size, with other steps. Counting iterations makes warm-up, steps, evaluations
# and the end of training match the official runs.
train_cfg = dict(type='ResumableIterLoop', max_iters=90000, val_interval=10000)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')

param_scheduler = [
    # Shares of the run: full learning rate at iteration 1000, steps at 60k and 80k.
    dict(type='WarmupLR', by_epoch=False, start_factor=0.001, share=1 / 90),
    dict(type='StepsLR', by_epoch=False, shares=[6 / 9, 8 / 9], gamma=0.1)
]

# As in detectron2, BN parameters have no weight decay.
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='SGD', lr=0.02, momentum=0.9, weight_decay=2.5e-5),
    paramwise_cfg=dict(norm_decay_mult=0.))
auto_scale_lr = dict(enable=False, base_batch_size=16)
