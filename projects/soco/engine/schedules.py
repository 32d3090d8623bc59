"""Schedules of the learning rate, as shares of the run, and of the EMA momentum."""
import math
from collections.abc import Sequence
from typing import Any

from mmengine.optim.scheduler import CosineAnnealingLR, LinearLR, MultiStepLR
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
    """Linear warm-up over a share of the run.

    mmengine's `LinearLR` reaches the full rate in the last iteration of the warm-up. The official
    schedule, and detectron2's, reach it one iteration later, where the next schedule begins.

    Args:
        optimizer (OptimWrapper): The optimizer.
        share (float): Share of the run that the warm-up takes, in [0, 1). It is at least one iteration.
        end (int): Iterations of the run. The Runner sets it if the config contains `by_epoch=False`.
        start_factor (float): Factor of the rate in the first iteration. Defaults to 0.01.
        by_epoch (bool): Must be False. Defaults to False.

    Raises:
        ValueError: If `share` is not in [0, 1).
    """

    def __init__(self, optimizer: Any, share: float, end: int, start_factor: float = 0.01,
                 by_epoch: bool = False) -> None:
        _check_shares('WarmupLR: share', [share], by_epoch)
        super().__init__(optimizer, start_factor=start_factor, by_epoch=False,
                         end=_warm_up(share, end) + 1)


@PARAM_SCHEDULERS.register_module()
class CosineLR(CosineAnnealingLR):
    """Cosine from a share of the run to another one, by default to its end, per iteration.

    Args:
        optimizer (OptimWrapper): The optimizer.
        end (int): Iterations of the run. The Runner sets it if the config contains `by_epoch=False`.
        begin (float): Share of the run before the cosine, in [0, 1). Defaults to 0.0.
        until (float): Share of the run at which the cosine ends, in (begin, 1]; the rate stays at its
            lowest afterwards. Defaults to 1.0.
        by_epoch (bool): Must be False. Defaults to False.
        **kwargs: `eta_min` or `eta_min_ratio`; see `mmengine.optim.CosineAnnealingLR`.

    Raises:
        ValueError: If `begin` is not in [0, 1), or `until` not in (begin, 1].
    """

    def __init__(self, optimizer: Any, end: int, begin: float = 0.0, until: float = 1.0,
                 by_epoch: bool = False, **kwargs: Any) -> None:
        _check_shares('CosineLR: begin', [begin], by_epoch)
        if not begin < until <= 1:
            raise ValueError(f'CosineLR: until must be a share of the run above begin ({begin}) and at '
                             f'most 1, not {until}.')
        first = _warm_up(begin, end) if begin else 0
        last = max(1, round(until * end))
        super().__init__(optimizer, begin=min(first, last - 1), end=last, by_epoch=False, **kwargs)


@PARAM_SCHEDULERS.register_module()
class StepsLR(MultiStepLR):
    """Decay the rate by a factor at shares of the run.

    Args:
        optimizer (OptimWrapper): The optimizer.
        shares (Sequence[float]): Where the rate decays, each in [0, 1).
        end (int): Iterations of the run. The Runner sets it if the config contains `by_epoch=False`.
        gamma (float): The factor. Defaults to 0.1.
        by_epoch (bool): Must be False. Defaults to False.

    Raises:
        ValueError: If a share is not in [0, 1).
    """

    def __init__(self, optimizer: Any, shares: Sequence[float], end: int, gamma: float = 0.1,
                 by_epoch: bool = False) -> None:
        _check_shares('StepsLR: shares', shares, by_epoch)
        super().__init__(optimizer, milestones=[round(share * end) for share in shares], gamma=gamma,
                         end=end, by_epoch=False)


def _warm_up(share: float, end: int) -> int:
    """Return the iterations before a schedule that begins at a share of the run."""
    return max(1, round(share * end))


def _check_shares(what: str, shares: Sequence[float], by_epoch: bool) -> None:
    if by_epoch or not all(0 <= share < 1 for share in shares):
        raise ValueError(f'{what} must be within [0, 1), as a share of the run, with by_epoch=False; '
                         f'got {list(shares)} and by_epoch={by_epoch}.')
