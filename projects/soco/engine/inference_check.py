"""A check of the weights that mmdet loads into a detector for inference.

`init_detector` and `DetInferencer` of mmdet load whatever matches, and give a detector without trained
heads the names of COCO's classes: its boxes are random. A config of this project imports this module,
so that such a file is refused. With a config that imports nothing of it, mmdet only warns.
"""
import functools
import sys
from collections.abc import Callable
from typing import Any

import mmengine.runner
from mmengine.infer import BaseInferencer
from mmengine.runner import CheckpointLoader
from torch import nn

from ..weights.match import match_weights


def check_detector(model: nn.Module, path: str) -> None:
    """Check that a file has every tensor of a detector; other models and addresses are not checked.

    Args:
        model (nn.Module): Any model.
        path (str): The file that it is loaded from; '' for none.

    Raises:
        ValueError: If the model is a detector of mmdet and tensors of it are missing.
    """
    local = path and '://' not in path
    if local and any(kind.__module__.startswith('mmdet.models.') for kind in type(model).__mro__):
        content = CheckpointLoader.load_checkpoint(path, 'cpu')
        match_weights(model.state_dict(), content.get('state_dict', content)).check_whole(path)


def _checked_load(load: Callable) -> Callable:
    """Return MMEngine's `load_checkpoint` with the check before it."""
    @functools.wraps(load)
    def checked(model: nn.Module, filename: str, *args: Any, **kwargs: Any) -> dict:
        check_detector(model, str(filename))
        return load(model, filename, *args, **kwargs)

    return checked


def _checked_init(init: Callable) -> Callable:
    """Return an inferencer's way to its model with the check after it."""
    @functools.wraps(init)
    def checked(self: BaseInferencer, cfg: Any, weights: str | None, *args: Any, **kwargs: Any
                ) -> nn.Module:
        model = init(self, cfg, weights, *args, **kwargs)
        check_detector(model, str(weights or ''))
        return model

    return checked


# `init_detector` imports `load_checkpoint` by this name, which training does not use.
mmengine.runner.load_checkpoint = _checked_load(mmengine.runner.load_checkpoint)
if 'mmdet.apis.inference' in sys.modules:
    vars(sys.modules['mmdet.apis.inference'])['load_checkpoint'] = mmengine.runner.load_checkpoint
BaseInferencer._init_model = _checked_init(BaseInferencer._init_model)
