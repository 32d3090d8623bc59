# Detectron2's 1x schedule: 90k iterations of 16 images.
#
# The loop is iteration-based, as in detectron2. mmdet's 1x schedule is 12 epochs, which is about 88k
# iterations at this batch size, with other steps. Counting iterations makes warm-up, steps, evaluations
# and the end of training match the official runs.
train_cfg = dict(type='IterBasedTrainLoop', max_iters=90000, val_interval=10000)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')

param_scheduler = [
    # MMEngine reaches the full learning rate one iteration before `end`, detectron2 at iteration 1000.
    dict(type='LinearLR', start_factor=0.001, by_epoch=False, begin=0, end=1001),
    dict(type='MultiStepLR', by_epoch=False, begin=0, end=90000, milestones=[60000, 80000],
         gamma=0.1)
]

# As in detectron2, BN parameters have no weight decay.
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='SGD', lr=0.02, momentum=0.9, weight_decay=2.5e-5),
    paramwise_cfg=dict(norm_decay_mult=0.))
auto_scale_lr = dict(enable=False, base_batch_size=16)
