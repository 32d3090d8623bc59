"""Mixed precision that also runs on a CPU, and that leaves the coordinates of detectors in float32."""
import functools
import importlib
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from mmengine.optim import OptimWrapper
from mmengine.registry import OPTIM_WRAPPERS
from mmengine.runner import Runner
from torch import nn


@OPTIM_WRAPPERS.register_module()
class AutocastOptimWrapper(OptimWrapper):
    """Run forward passes in half precision, without a gradient scaler; weights stay in float32.

    MMEngine's `AmpOptimWrapper` rejects CPUs and always uses a gradient scaler. bfloat16 does not need
    one, because its exponent has the range of float32.

    Args:
        dtype (str): 'bfloat16' or 'float16'. Defaults to 'bfloat16'.
        **kwargs: See `mmengine.optim.OptimWrapper`.

    Raises:
        ValueError: If `dtype` is neither.
    """

    def __init__(self, dtype: str = 'bfloat16', **kwargs: Any) -> None:
        if dtype not in ('bfloat16', 'float16'):
            raise ValueError('AutocastOptimWrapper: dtype must be bfloat16 or float16, not '
                             f'{dtype!r}.')
        super().__init__(**kwargs)
        self.dtype = getattr(torch, dtype)

    @contextmanager
    def optim_context(self, model: nn.Module) -> Iterator[None]:
        """Enter autocast on the model's device."""
        device = next(model.parameters()).device.type
        with super().optim_context(model), torch.autocast(device, self.dtype):
            yield


def _with_exact_coordinates(build: Callable) -> Callable:
    """Return `Runner.build_model`; if it has built a part of mmdet, its coordinates stay in float32."""
    @functools.wraps(build)
    def built(self: Runner, model: nn.Module | dict) -> nn.Module:
        module = build(self, model)
        if 'mmdet.models' in sys.modules:  # its import takes seconds, and a classifier needs none of it
            importlib.import_module('projects.soco.compat.coordinates')
        return module

    return built


Runner.build_model = _with_exact_coordinates(Runner.build_model)
