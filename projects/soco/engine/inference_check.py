"""A check of the weights that mmdet loads into a detector for inference.

`mmdet.apis.init_detector` loads whatever matches, and gives a detector without trained heads the names
of COCO's classes: its boxes are random. A config of this project imports this module, so that such a
file is refused. With a config that imports nothing of this project, mmdet only warns.
"""
import functools
import sys
from collections.abc import Callable
from typing import Any

import mmengine.runner
from mmengine.runner import CheckpointLoader
from torch import nn

from ..weights.match import match_weights


def refuse_untrained(load: Callable) -> Callable:
    """Return a loading function that fails if a tensor of a detector is not in the file.

    Args:
        load (Callable): `load_checkpoint` or `_load_checkpoint_to_model` of MMEngine.

    Returns:
        Callable: The same, with a `ValueError` for a file that is not of the whole detector.
    """
    if hasattr(load, '__wrapped__'):
        return load

    @functools.wraps(load)
    def checked(model: nn.Module, checkpoint: Any, *args: Any, **kwargs: Any) -> dict:
        if any(kind.__module__.startswith('mmdet.models.') for kind in type(model).__mro__):
            given = isinstance(checkpoint, dict)
            content = checkpoint if given else CheckpointLoader.load_checkpoint(checkpoint, 'cpu')
            match_weights(model.state_dict(), content.get('state_dict', content)).check_whole(
                'This file' if given else checkpoint)
        return load(model, checkpoint, *args, **kwargs)

    return checked


# mmdet's two ways to inference have the functions under these names; training uses neither.
mmengine.runner.load_checkpoint = refuse_untrained(mmengine.runner.load_checkpoint)
for _module, _name in (('mmdet.apis.inference', 'load_checkpoint'),
                       ('mmdet.apis.det_inferencer', '_load_checkpoint_to_model')):
    if _module in sys.modules:
        setattr(sys.modules[_module], _name, refuse_untrained(getattr(sys.modules[_module], _name)))
