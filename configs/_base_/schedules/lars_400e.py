# LARS, 400 epochs: lr = 1.0 x batch / 256. Warm-up for 10 epochs, then a cosine; both are updated
# per iteration. Schedules are shares of the run, so they follow its length.
optim_wrapper = dict(
    type='AmpOptimWrapper',
    optimizer=dict(type='SoCoLARS', lr=8.0, momentum=0.9, weight_decay=1e-5),
    accumulative_counts=1)
param_scheduler = [
    dict(type='WarmupLR', by_epoch=False, start_factor=0.01, share=10 / 400),
    dict(type='CosineLR', by_epoch=False, eta_min=1e-6, begin=10 / 400),
]
train_cfg = dict(type='ResumableEpochLoop', max_epochs=400)
auto_scale_lr = dict(base_batch_size=2048)  # used with --auto-scale-lr
