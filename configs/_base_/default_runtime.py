# Settings shared by all pretraining runs.
custom_imports = dict(
    imports=['projects.soco.models', 'projects.soco.datasets', 'projects.soco.engine',
             'projects.soco.evaluation'],
    allow_failed_imports=False)
default_scope = 'mmselfsup'

default_hooks = dict(
    runtime_info=dict(type='DeferredInfoHook'),  # logged values stay on the device until the next log
    timer=dict(type='IterTimerHook'),
    logger=dict(type='LoggerHook', interval=50),
    param_scheduler=dict(type='ParamSchedulerHook'),
    checkpoint=dict(type='PlainCheckpointHook', interval=1, max_keep_ckpts=3),
    sampler_seed=dict(type='DistSamplerSeedHook'),
    batch_info=dict(type='BatchInfoHook'),  # images per second, boxes per level
    views=dict(type='ViewPicturesHook', interval=5000),  # pictures of the model's input
    # Object scores on held-out images, every `interval` epochs; off until images and proposals are set.
    scores=dict(type='ObjectScoreHook', images=None, proposals=None, interval=10),
    rank=dict(type='FeatureRankHook', interval=50),  # in how many directions features differ
    resume=dict(type='ResumeHook'),  # resume at the right photo, also with another batch
    momentum=dict(type='MomentumUpdateHook', momentum=0.99),  # EMA momentum of the target network
    stop_signal=dict(type='StopSignalHook'),  # on SIGTERM: save a checkpoint, exit with code 75
    finite_loss=dict(type='FiniteLossHook'),  # stop at NaN or Inf in the loss and report where
    collapse=dict(type='CollapseHook'),  # warn when features collapse
    same_run=dict(type='SameRunHook'),  # ranks must agree on config, code and data
    bad_images=dict(type='BadImageHook'))  # list, count and limit unusable images

env_cfg = dict(
    cudnn_benchmark=True,  # view sizes never change
    mp_cfg=dict(mp_start_method='fork', opencv_num_threads=0),
    dist_cfg=dict(backend='nccl'))
# Without device IDs the wrapper leaves the boxes on the CPU, where the model assigns their levels.
model_wrapper_cfg = dict(type='MMDistributedDataParallel', device_ids=None, broadcast_buffers=False)
randomness = dict(seed=0)

visualizer = dict(type='mmengine.Visualizer', vis_backends=[dict(type='LocalVisBackend')])
log_level = 'INFO'
load_from = None
resume = False
