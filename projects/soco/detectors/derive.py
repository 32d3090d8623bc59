"""The pretraining config of a detector."""
import copy
from collections.abc import Sequence
from pathlib import Path

from mmengine.config import Config

from ..datasets.transforms import transform_in
from ..launch.configs import RUNNER_KEYS
from .parts import Parts, find_parts
from .read import plain


def derive(detector: Config, recipe: Config, sizes: Sequence[int] | None = None) -> tuple[Config, Parts]:
    """Derive the pretraining config of a detector.

    Args:
        detector (Config): The output of `read_detector`.
        recipe (Config): A pretraining config, of which everything but the network is taken: views,
            data set, optimiser, schedule, hooks, widths of projector and predictor, regulariser.
        sizes (Sequence[int], optional): Side of each view in pixels. Defaults to None: as in the
            recipe.

    Returns:
        tuple[Config, Parts]: The config, and what of the detector it trains.

    Raises:
        ValueError: See `find_parts`.
    """
    cfg = copy.deepcopy(recipe)
    views = transform_in(cfg, 'ProposalViews').views
    parts = find_parts(detector, sizes or [view.size for view in views])
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
        head=head)
    if cfg.model.get('regulariser'):
        model['regulariser'] = plain(cfg.model.regulariser)
    if parts.frozen:
        model['frozen'] = parts.frozen
    known = RUNNER_KEYS | {'custom_imports', 'auto_scale_lr'}  # without the recipe's variables
    content = plain({key: value for key, value in cfg.items() if key in known})
    return Config({**content, 'model': model}, filename=recipe.filename), parts


def preprocessor(detector: Config) -> dict:
    """Return the data preprocessor of `SoCo` with the mean, std and channel order of a detector."""
    theirs = detector.model.get('data_preprocessor') or {}
    return dict(
        type='SoCoDataPreprocessor',
        mean=list(theirs.get('mean') or [0.0] * 3),
        std=list(theirs.get('std') or [1.0] * 3),
        bgr_to_rgb=bool(theirs.get('bgr_to_rgb', False)))


def set_run(cfg: Config, photos: Path, proposals: Path, epochs: int | None = None,
            batch_size: int | None = None, weights: Path | None = None) -> None:
    """Set what a run is about in a config of `derive`.

    Args:
        cfg (Config): The config; it is changed in place.
        photos (Path): Folder of the photos.
        proposals (Path): Their proposal store.
        epochs (int, optional): Length of the run; the schedule is stretched to it. Defaults to None:
            as in the recipe.
        batch_size (int, optional): Photos per step and process. Defaults to None: as in the recipe.
        weights (Path, optional): Weights to start from. Defaults to None: random.

    Raises:
        ValueError: If a number is below 1, or the batch size below 2.
    """
    cfg.train_dataloader.dataset.data_root = str(photos)
    cfg.train_dataloader.dataset.proposals = str(proposals)
    if batch_size is not None:
        if batch_size < 2:
            raise ValueError(f'--batch-size must be at least 2, not {batch_size}: norms over a batch '
                             'need two photos.')
        cfg.train_dataloader.batch_size = batch_size
    if epochs is not None:
        if epochs < 1:
            raise ValueError(f'--epochs must be at least 1, not {epochs}.')
        cfg.train_cfg.max_epochs = epochs
        warmup, cosine = cfg.param_scheduler
        cosine.end, cosine.T_max = epochs, max(1, epochs - warmup.end)
        cfg.param_scheduler = [warmup, cosine] if epochs > warmup.end else [warmup]
        cfg.default_hooks.checkpoint.interval = min(cfg.default_hooks.checkpoint.interval, epochs)
    if weights is not None:
        cfg.load_from = str(weights)
