# What every pretraining run shares.
custom_imports = dict(
    imports=['projects.soco.models', 'projects.soco.datasets', 'projects.soco.engine',
             'projects.soco.evaluation'],
    allow_failed_imports=False)
default_scope = 'mmselfsup'

default_hooks = dict(
    runtime_info=dict(type='DeferredInfoHook'),  # the log's values wait on the device
    timer=dict(type='IterTimerHook'),
    logger=dict(type='LoggerHook', interval=50),
    param_scheduler=dict(type='ParamSchedulerHook'),
    checkpoint=dict(type='PlainCheckpointHook', interval=1, max_keep_ckpts=3),
    sampler_seed=dict(type='DistSamplerSeedHook'),
    batch_info=dict(type='BatchInfoHook'),  # images a second, boxes by level
    views=dict(type='ViewPicturesHook', interval=5000),  # what the model sees, as pictures
    # objects of held-out photos, every so many epochs; off until photos and their boxes are given
    scores=dict(type='ObjectScoreHook', images=None, proposals=None, interval=10),
    momentum=dict(type='MomentumUpdateHook', momentum=0.99),  # of the target network
    stop_signal=dict(type='StopSignalHook'),  # SIGTERM: a checkpoint, then exit code 75
    finite_loss=dict(type='FiniteLossHook'),  # NaN or Inf in the loss: stop and say where
    collapse=dict(type='CollapseHook'),  # warn when all objects look alike
    same_run=dict(type='SameRunHook'),  # ranks must agree on config, code and data
    bad_images=dict(type='BadImageHook'))  # photos that cannot be used: listed, counted, limited

env_cfg = dict(
    cudnn_benchmark=True,  # view sizes never change
    mp_cfg=dict(mp_start_method='fork', opencv_num_threads=0),
    dist_cfg=dict(backend='nccl'))
# Without device ids the wrapper leaves the boxes on the CPU, where the model sorts them by level.
model_wrapper_cfg = dict(type='MMDistributedDataParallel', device_ids=None, broadcast_buffers=False)
randomness = dict(seed=0)

visualizer = dict(type='mmengine.Visualizer', vis_backends=[dict(type='LocalVisBackend')])
log_level = 'INFO'
load_from = None
resume = False
