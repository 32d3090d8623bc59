from .. import compat  # noqa: F401  (serves mmcv's ops before mmdet asks for them)
from .bad_images import BadImageHook
from .checkpoint import (
    PlainCheckpointHook,
    check_work_dir,
    find_newest_checkpoint,
    read_checkpoint,
)
from .classes import ClassesHook
from .guards import CollapseHook, FiniteLossHook, SameRunHook
from .hooks import BatchInfoHook, DeferredInfoHook, MomentumUpdateHook
from .lars import SoCoLARS
from .loops import ResumableBatchSampler, ResumableEpochLoop
from .precise_bn import PreciseBNHook
from .precision import Bf16OptimWrapper
from .predictions import KeepPredictionsHook
from .schedules import WarmupLR, cosine_momentum
from .score_hook import ObjectScoreHook
from .stopping import StopSignalHook
from .transfer import PretrainedWeightsHook
from .view_pictures import ViewDrawer, ViewPicturesHook

__all__ = [
    'BadImageHook', 'BatchInfoHook', 'Bf16OptimWrapper', 'ClassesHook', 'CollapseHook',
    'DeferredInfoHook', 'FiniteLossHook', 'KeepPredictionsHook', 'MomentumUpdateHook',
    'ObjectScoreHook', 'PlainCheckpointHook', 'PreciseBNHook', 'PretrainedWeightsHook',
    'ResumableBatchSampler', 'ResumableEpochLoop', 'SameRunHook', 'SoCoLARS', 'StopSignalHook',
    'ViewDrawer', 'ViewPicturesHook', 'WarmupLR', 'check_work_dir', 'cosine_momentum',
    'find_newest_checkpoint', 'read_checkpoint'
]
