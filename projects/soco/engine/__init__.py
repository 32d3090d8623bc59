"""Training loops, optimiser, schedules and hooks."""
from .. import compat  # noqa: F401  (provides mmcv's ops before mmdet imports them)
from . import inference_check  # noqa: F401  (refuses weights without trained heads)
from .autocast import AutocastOptimWrapper
from .bad_image_hook import BadImageHook
from .channels_last_hook import ChannelsLastHook
from .checkpoint_hook import PlainCheckpointHook
from .classes_hook import ClassesHook
from .collapse_hook import CollapseHook
from .finite_loss_hook import FiniteLossHook
from .info_hook import BatchInfoHook, DeferredInfoHook
from .keep_predictions_hook import KeepPredictionsHook
from .lars import SoCoLARS
from .loops import (
    AdvancedBatchSampler,
    ResumableBatchSampler,
    ResumableDetectorEpochLoop,
    ResumableEpochLoop,
    ResumableIterLoop,
)
from .momentum_hook import MomentumUpdateHook
from .precise_bn_hook import PreciseBNHook
from .pretrained_hook import PretrainedWeightsHook
from .resume_hook import ResumeHook
from .same_run_hook import SameRunHook
from .schedules import CosineLR, StepsLR, WarmupLR, cosine_momentum
from .stop_signal_hook import StopSignalHook
from .view_pictures_hook import ViewDrawer, ViewPicturesHook

__all__ = [
    'AdvancedBatchSampler', 'AutocastOptimWrapper', 'BadImageHook', 'BatchInfoHook', 'ChannelsLastHook',
    'ClassesHook', 'CollapseHook', 'CosineLR', 'DeferredInfoHook', 'FiniteLossHook',
    'KeepPredictionsHook', 'MomentumUpdateHook', 'PlainCheckpointHook', 'PreciseBNHook',
    'PretrainedWeightsHook', 'ResumableBatchSampler', 'ResumableDetectorEpochLoop',
    'ResumableEpochLoop', 'ResumableIterLoop', 'ResumeHook', 'SameRunHook', 'SoCoLARS', 'StepsLR',
    'StopSignalHook', 'ViewDrawer', 'ViewPicturesHook', 'WarmupLR', 'cosine_momentum'
]
