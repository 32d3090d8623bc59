# What every detector shares that starts from SoCo's weights. They arrive through `load_from`.
_base_ = 'mmdet::_base_/default_runtime.py'

custom_imports = dict(imports=['projects.soco.engine'], allow_failed_imports=False)

# Everything counts iterations, as the official runs do in detectron2.
default_hooks = dict(
    logger=dict(log_metric_by_epoch=False),
    checkpoint=dict(type='PlainCheckpointHook', by_epoch=False, interval=10000, max_keep_ckpts=3),
    # Logs which tensors of the checkpoint match, and stops when one of these parts does not.
    pretrained=dict(
        type='PretrainedWeightsHook', require=['backbone', 'neck', 'roi_head.bbox_head']),
    # Stops when the class list fits neither the annotation nor the heads.
    classes=dict(type='ClassesHook'),
    # BN statistics from 200 training batches per GPU before each evaluation, as detectron2's
    # PreciseBN in the official runs.
    precise_bn=dict(type='PreciseBNHook', num_iters=200),
    finite_loss=dict(type='FiniteLossHook'),  # NaN or Inf in the loss: stop and say where
    same_run=dict(type='SameRunHook'),  # ranks must agree on config, code and data
    stop_signal=dict(type='StopSignalHook'))  # SIGTERM: a checkpoint, then exit code 75
log_processor = dict(by_epoch=False)
randomness = dict(seed=0)
