"""The pretraining config of a detector."""
import copy
from collections.abc import Sequence
from pathlib import Path

from mmengine.config import Config

from ..datasets.transforms import transform_in
from ..launch.configs import RUNNER_KEYS, imports_of
from .parts import Parts, find_parts
from .read import plain


def derive(detector: Config, recipe: Config,
           sizes: Sequence[int] | None = None) -> tuple[Config, Parts]:
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
    cfg.custom_imports.imports = [*cfg.custom_imports.imports, *imports_of(detector)]
    cfg.env_cfg.dist_cfg.backend = 'nccl'  # for SyncBN; on a CPU the launcher chooses gloo
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


def set_run(recipe: Config, photos: Path, proposals: Path, batch_size: int | None = None,
            weights: Path | None = None) -> None:
    """Set what a run is about in a pretraining config.

    Args:
        recipe (Config): The config; it is changed in place.
        photos (Path): Folder of the photos.
        proposals (Path): Their proposal store.
        batch_size (int, optional): Photos per step and process. Defaults to None: as in the config.
        weights (Path, optional): Weights to start from. Defaults to None: random.

    Raises:
        FileNotFoundError: If there is no such file of weights.
        ValueError: If the batch size is below 2.
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
    if weights is not None:
        if not weights.is_file():
            raise FileNotFoundError(f'There are no weights at {weights}. Check the path of --weights.')
        recipe.load_from = str(weights.resolve())
