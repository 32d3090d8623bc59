"""Modules of a detector, built on the CPU and without downloads."""
import contextlib
import copy
import logging
from collections.abc import Iterator
from typing import Any

from mmengine.config import Config, ConfigDict
from mmengine.logging import MMLogger
from mmengine.registry import MODELS, DefaultScope
from torch import nn

from ..compat.cpu import cpu_config
from ..launch.configs import drop_weights
from .read import SCOPE, typed


def build(cfg: Any, name: str) -> nn.Module:
    """Build a module on the CPU; an error becomes a sentence for the user.

    Args:
        cfg (Any): Config of a module, or a list of configs of modules that run one after the other.
        name (str): Name of the part, for the sentence.

    Returns:
        nn.Module: The module.

    Raises:
        ValueError: If it cannot be built.
    """
    cfg = cpu_config(Config(dict(part=cfg))).part
    try:
        with DefaultScope.overwrite_default_scope('mmselfsup'), quiet():
            return MODELS.build(cfg)
    except Exception as error:
        missing = isinstance(error, ImportError) or 'install' in str(error)
        way = ('Install the package that it names' if missing else
               'Check this part of the config; does the detector train with MMDetection')
        raise ValueError(f'The {name} of the detector cannot be built: {error} '
                         f'({type(error).__name__}). {way}{"." if missing else "?"}') from error


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Leave out what modules log while they are built, such as the channels of a timm backbone."""
    logger = MMLogger.get_current_instance()
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(level)


def build_detector(detector: Config) -> tuple[nn.Module, bool]:
    """Build a detector on the CPU; if that fails, only its backbone, neck and RoI head.

    Args:
        detector (Config): The output of `read_detector`.

    Returns:
        tuple[nn.Module, bool]: The detector, and whether it is whole. The language model of a detector,
        for example, needs a package and weights that are not needed here.
    """
    model = copy.deepcopy(cpu_config(detector).model)
    for part in typed(model):  # no file and no download
        drop_weights(part)
    with DefaultScope.overwrite_default_scope(SCOPE), quiet():
        try:
            return MODELS.build(model), True
        except Exception:  # any error of any part; those of the shared parts are raised below
            return _shared_parts(model), False


def _shared_parts(model: ConfigDict) -> nn.Module:
    parts = nn.Module()
    for name in ('backbone', 'neck', 'roi_head'):
        if model.get(name):
            cfg = copy.deepcopy(model[name])
            if name == 'roi_head':  # as mmdet's TwoStageDetector does
                cfg.update(train_cfg=(model.get('train_cfg') or {}).get('rcnn'),
                           test_cfg=(model.get('test_cfg') or {}).get('rcnn'))
            setattr(parts, name, MODELS.build(cfg))
    return parts
