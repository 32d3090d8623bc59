# Settings shared by all detectors that start from SoCo's weights. `load_from` loads the weights.
_base_ = 'mmdet::_base_/default_runtime.py'

custom_imports = dict(imports=['projects.soco.engine'], allow_failed_imports=False)

# All intervals count iterations, as in the official detectron2 runs.
default_hooks = dict(
    logger=dict(log_metric_by_epoch=False),
    checkpoint=dict(type='PlainCheckpointHook', by_epoch=False, interval=10000, max_keep_ckpts=3),
    # Log which tensors of the checkpoint match; stop if one of these parts does not.
    pretrained=dict(
        type='PretrainedWeightsHook', require=['backbone', 'neck', 'roi_head.bbox_head']),
    # Stop if the class list does not fit the annotation or the heads.
    classes=dict(type='ClassesHook'),
    # Recompute BN statistics on 200 training batches per GPU before each evaluation, like detectron2's
    # PreciseBN in the official runs.
    precise_bn=dict(type='PreciseBNHook', num_iters=200),
    resume=dict(type='ResumeHook'),  # rate and schedule of the config hold when a run is resumed
    finite_loss=dict(type='FiniteLossHook'),  # stop at NaN or Inf in the loss and report where
    same_run=dict(type='SameRunHook'),  # ranks must agree on config, code and data
    stop_signal=dict(type='StopSignalHook'),  # on SIGTERM: save a checkpoint, exit with code 75
    channels_last=dict(type='ChannelsLastHook'))  # faster convolutions on a CPU
log_processor = dict(by_epoch=False)
randomness = dict(seed=0)
