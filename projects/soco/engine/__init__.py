from .. import compat  # noqa: F401  (serves mmcv's ops before mmdet asks for them)
from .checkpoint import PlainCheckpointHook, find_newest_checkpoint, read_checkpoint
from .hooks import MomentumUpdateHook
from .lars import SoCoLARS
from .loops import ResumableBatchSampler, ResumableEpochLoop
from .schedules import WarmupLR, cosine_momentum
from .transfer import PreciseBNHook, PretrainedWeightsHook

__all__ = [
    'MomentumUpdateHook', 'PlainCheckpointHook', 'PreciseBNHook', 'PretrainedWeightsHook',
    'ResumableBatchSampler', 'ResumableEpochLoop', 'SoCoLARS', 'WarmupLR', 'cosine_momentum',
    'find_newest_checkpoint', 'read_checkpoint'
]
