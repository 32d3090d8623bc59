"""The pretraining config of a detector."""
import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mmengine.config import Config
from torch import nn

from ..datasets.transforms import transform_in
from ..launch.configs import RUNNER_KEYS, imports_of
from .parts import Parts, find_parts
from .read import plain
from .stages import first_stages


@dataclass(frozen=True)
class Schedule:
    """How fast a derived run learns.

    Attributes:
        rate (float): Learning rate of AdamW after the warm-up.
        backbone_rate (float): Factor of the rate for the backbone.
        warm_up (float): Share of the run that the warm-up takes, in [0, 1).
        momentum (float): EMA momentum of the target network at the start, in [0, 1].
    """

    rate: float
    backbone_rate: float
    warm_up: float
    momentum: float


# Our choice. The rate from weights is that of docs/results/own_photos.md; the other one was not tuned.
FROM_NOTHING = Schedule(rate=5e-4, backbone_rate=1.0, warm_up=0.05, momentum=0.99)
FROM_WEIGHTS = Schedule(rate=2e-3, backbone_rate=1.0, warm_up=0.05, momentum=0.99)
# Of the rate, for a backbone with LayerNorm, such as Swin: they are trained at lower rates than those
# with BN. Our choice, not tuned.
LAYER_NORM_RATE = 0.1
IMAGES_SEEN, EPOCHS = 10_240, 20  # of a run, at least: 640 steps of 16 photos
# What is learnt at the backbone's rate; in C4 detectors, its last stage is a part of the RoI head.
_BACKBONE = ('backbone.', 'roi_head.shared_head.')


def derive(detector: Config, recipe: Config, sizes: Sequence[int] | None = None,
           freeze: int | None = None) -> tuple[Config, Parts]:
    """Derive the pretraining config of a detector.

    Args:
        detector (Config): The output of `read_detector`.
        recipe (Config): A pretraining config, of which everything but the network is taken: views,
            data set, optimiser, schedule, hooks, widths of projector and predictor, regulariser.
        sizes (Sequence[int], optional): Side of each view in pixels. Defaults to None: as in the
            recipe.
        freeze (int, optional): Number of stages of the backbone that stay as they are loaded, at least
            1. Defaults to None: all are trained.

    Returns:
        tuple[Config, Parts]: The config, and what of the detector it trains.

    Raises:
        ValueError: See `find_parts` and `first_stages`.
    """
    cfg = copy.deepcopy(recipe)
    views = transform_in(cfg, 'ProposalViews').views
    parts = find_parts(detector, sizes or [view.size for view in views])
    if freeze is not None:
        parts.kept = first_stages(parts.backbone, freeze, max(parts.sizes))
    for view, size in zip(views, parts.sizes, strict=True):
        view.size = size
        view.pop('finest_level', None)  # only SoCoFPN leaves levels out
    projector, head = plain(cfg.model.projector), plain(cfg.model.head)
    projector['in_channels'] = parts.feature_length
    model = dict(
        type='SoCo',
        data_preprocessor=preprocessor(detector),
        backbone=parts.backbone,
        neck=parts.neck,
        roi_head=parts.roi_head,
        projector=projector,
        head=head,
        channels_last=True)  # faster, also on a CPU: docs/benchmarks.md
    if cfg.model.get('regulariser'):
        model['regulariser'] = plain(cfg.model.regulariser)
    if frozen := [*parts.kept, *parts.frozen]:
        model['frozen'] = frozen
    cfg.custom_imports.imports = [*cfg.custom_imports.imports, *imports_of(detector)]
    cfg.env_cfg.dist_cfg.backend = 'nccl'  # for SyncBN; on a CPU the launcher chooses gloo
    known = RUNNER_KEYS | {'custom_imports', 'auto_scale_lr'}  # without the recipe's variables
    content = plain({key: value for key, value in cfg.items() if key in known})
    prefixes = {ours: list(theirs) for ours, theirs in parts.prefixes.items()}
    return Config({**content, 'model': model, 'hand_over': prefixes}, filename=recipe.filename), parts


def preprocessor(detector: Config) -> dict:
    """Return the data preprocessor of `SoCo` with the mean, std and channel order of a detector."""
    theirs = detector.model.get('data_preprocessor') or {}
    return dict(
        type='SoCoDataPreprocessor',
        mean=list(theirs.get('mean') or [0.0] * 3),
        std=list(theirs.get('std') or [1.0] * 3),
        bgr_to_rgb=bool(theirs.get('bgr_to_rgb', False)))


def set_run(recipe: Config, photos: Path, proposals: Path, batch_size: int | None = None,
            weights: Path | None = None, backbone_rate: float | None = None) -> None:
    """Set what a run is about in a pretraining config.

    Args:
        recipe (Config): The config; it is changed in place.
        photos (Path): Folder of the photos.
        proposals (Path): Their proposal store.
        batch_size (int, optional): Photos per step and process. Defaults to None: as in the config.
        weights (Path, optional): Weights to start from. Defaults to None: random.
        backbone_rate (float, optional): Factor of the learning rate for the backbone, above 0. Defaults
            to None: that of the schedule, `FROM_WEIGHTS` or `FROM_NOTHING`.

    Raises:
        FileNotFoundError: If there is no such file of weights.
        ValueError: If the batch size is below 2, or the factor is not a positive number.
    """
    recipe.train_dataloader.dataset.data_root = str(photos)
    recipe.train_dataloader.dataset.proposals = str(proposals)
    if batch_size is not None:
        if batch_size < 2:
            raise ValueError(f'--batch-size must be at least 2, not {batch_size}: norms over a batch '
                             'need two photos.')
        recipe.train_dataloader.batch_size = batch_size
    checkpoint = recipe.default_hooks.checkpoint
    checkpoint.interval = min(checkpoint.interval, recipe.train_cfg.max_epochs)
    schedule = FROM_NOTHING
    if weights is not None:
        if not weights.is_file():
            raise FileNotFoundError(f'There are no weights at {weights}. Check the path of --weights.')
        recipe.load_from = str(weights.resolve())
        schedule = FROM_WEIGHTS
    _set_schedule(recipe, schedule, schedule.backbone_rate if backbone_rate is None else backbone_rate)


def _set_schedule(recipe: Config, schedule: Schedule, backbone_rate: float) -> None:
    if not (math.isfinite(backbone_rate) and backbone_rate > 0):
        raise ValueError(f'--backbone-rate must be a number above 0, such as 0.1, not {backbone_rate}. '
                         'To keep stages of the backbone as they are loaded, use --freeze.')
    warm_up, cosine = recipe.param_scheduler
    warm_up.share = cosine.begin = schedule.warm_up
    recipe.default_hooks.momentum.momentum = schedule.momentum
    recipe.optim_wrapper.optimizer.lr = schedule.rate
    _set_backbone_rate(recipe, backbone_rate)


def _set_backbone_rate(cfg: Config, factor: float) -> None:
    if factor != 1:
        cfg.optim_wrapper.paramwise_cfg = dict(
            custom_keys={part: dict(lr_mult=factor) for part in _BACKBONE})


def slow_layer_norm(cfg: Config, backbone: nn.Module, backbone_rate: float | None) -> str | None:
    """Lower the learning rate of a loaded backbone with LayerNorm, unless its factor was given.

    Args:
        cfg (Config): The output of `derive`; it is changed in place.
        backbone (nn.Module): Its backbone.
        backbone_rate (float | None): The factor that was given to `set_run`.

    Returns:
        str | None: A note for the user, or None if nothing was changed.
    """
    has_layer_norm = any('LayerNorm' in type(module).__name__ for module in backbone.modules())
    if not cfg.get('load_from') or backbone_rate is not None or not has_layer_norm:
        return None
    _set_backbone_rate(cfg, LAYER_NORM_RATE)
    return (f'backbone with LayerNorm: {LAYER_NORM_RATE} of the learning rate; --backbone-rate sets '
            'another factor')


def default_epochs(photos: int) -> int:
    """Return the length of a run in epochs: 10,240 photos seen, and at least 20 epochs.

    Args:
        photos (int): Number of photos.
    """
    return max(EPOCHS, math.ceil(IMAGES_SEEN / max(1, photos)))
