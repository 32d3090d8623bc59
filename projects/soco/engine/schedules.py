"""Schedules of the learning rate and the EMA momentum."""
import math
from typing import Any

from mmengine.optim.scheduler import LinearLR
from mmengine.registry import PARAM_SCHEDULERS


def cosine_momentum(base: float, step: int, max_steps: int) -> float:
    """Return the EMA momentum after `step` optimizer steps (paper, section 4.1; official).

    Args:
        base (float): Momentum at step 0, in [0, 1].
        step (int): Optimizer steps done, in [0, max_steps].
        max_steps (int): Optimizer steps of the whole run.

    Returns:
        float: The momentum, which rises from `base` at the start to 1 at the end.
    """
    return 1 - (1 - base) * (math.cos(math.pi * step / max_steps) + 1) / 2


@PARAM_SCHEDULERS.register_module()
class WarmupLR(LinearLR):
    """Linear warm-up, given in epochs, that reaches the full rate *after* its last iteration.

    mmengine's `LinearLR` reaches it in the last iteration of the warm-up; the official schedule
    reaches it one iteration later, where the cosine begins. Use with `convert_to_iter_based=True`.
    """

    @classmethod
    def build_iter_from_epoch(cls, *args: Any, begin: int = 0, end: int = 0, by_epoch: bool = True,
                              epoch_length: int, **kwargs: Any) -> 'WarmupLR':
        """Build the scheduler in iterations from a config in epochs."""
        assert by_epoch, 'WarmupLR needs by_epoch=True: begin and end are in epochs'
        return cls(*args, begin=begin * epoch_length, end=int(end * epoch_length) + 1,
                   by_epoch=False, **kwargs)
