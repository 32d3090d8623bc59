# Detectron2's 1x schedule: 90k iterations of 16 images.
#
# The loop counts iterations, not epochs, as detectron2 does: mmdet's 1x is 12 epochs, about 88k
# iterations at this batch, and its steps lie elsewhere too. Counted in iterations, warm-up, steps,
# evaluations and end are where the official runs have them.
train_cfg = dict(type='IterBasedTrainLoop', max_iters=90000, val_interval=10000)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')

param_scheduler = [
    # MMEngine reaches the full rate one iteration before `end`, detectron2 at iteration 1000.
    dict(type='LinearLR', start_factor=0.001, by_epoch=False, begin=0, end=1001),
    dict(type='MultiStepLR', by_epoch=False, begin=0, end=90000, milestones=[60000, 80000],
         gamma=0.1)
]

# As in detectron2, BN's own parameters do not decay.
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='SGD', lr=0.02, momentum=0.9, weight_decay=2.5e-5),
    paramwise_cfg=dict(norm_decay_mult=0.))
auto_scale_lr = dict(enable=False, base_batch_size=16)
