"""A comparison of the schedules of a config with the length of its run."""
from collections.abc import Iterator

from mmengine.config import Config, ConfigDict

from .configs import schedulers_of

_WARM_UPS = ('LinearLR', 'ConstantLR', 'QuadraticWarmupLR')


def schedule_warning(cfg: Config) -> str:
    """Describe where the schedules of a config disagree with the length of its run.

    The project's own schedules are shares of the run and cannot disagree. Those of MMEngine contain
    numbers of epochs or iterations.

    Args:
        cfg (Config): The config to train.

    Returns:
        str: A paragraph with all numbers; empty if nothing disagrees.
    """
    found = list(_findings(cfg))
    if not found:
        return ''
    loop = cfg.train_cfg
    key = 'max_epochs' if 'max_epochs' in loop else 'max_iters'
    return (f'The schedule and the length of the run disagree: train_cfg.{key} is {loop[key]}, but '
            f'{"; ".join(found)}. Change these numbers with the length, or use the schedules of '
            'projects/soco/engine/schedules.py, which follow it.')


def _findings(cfg: Config) -> Iterator[str]:
    schedulers = schedulers_of(cfg)
    if not all(isinstance(scheduler, dict) and 'type' in scheduler for scheduler in schedulers):
        return  # one list for each optimizer of several
    for i, scheduler in enumerate(schedulers):
        by_epoch = scheduler.get('by_epoch', True)
        length = cfg.train_cfg.get('max_epochs' if by_epoch else 'max_iters')
        if length is None:
            continue  # counted in the unit that the loop does not count
        unit = 'epoch' if by_epoch else 'iteration'
        name = f'param_scheduler.{i} ({scheduler.type})'
        later = [other for other in schedulers if other is not scheduler
                 and other.get('by_epoch', True) == by_epoch]
        yield from (f'{name} {finding}' for finding in _of_one(scheduler, later, length, unit))


def _of_one(scheduler: ConfigDict, later: list[ConfigDict], length: int, unit: str) -> Iterator[str]:
    kind = str(scheduler.type).split('.')[-1]
    begin, end = scheduler.get('begin', 0), scheduler.get('end')
    if begin >= length:
        yield f'begins at {unit} {begin}'
    elif kind in _WARM_UPS and begin == 0 and end is not None and end - 1 > length:
        yield f'warms up until {unit} {end}, so the full rate is never reached'
    elif 'milestones' in scheduler:
        missed = [str(milestone) for milestone in scheduler.milestones if milestone >= length]
        if missed:
            yield f'has steps at {unit} {" and ".join(missed)}, which are never reached'
    elif kind not in _WARM_UPS:
        halfway = begin + scheduler.T_max if scheduler.get('T_max') else end
        stop = scheduler.get('total_steps') or end or halfway
        if stop is None:
            return
        continued = any(other.get('begin', 0) >= stop for other in later)
        if max(stop, halfway or 0) > length:
            yield (f'ends at {unit} {max(stop, halfway or 0)}, so the rate does not reach its end')
        elif stop < length and not continued:
            yield f'ends at {unit} {stop}, so the rate stays as it is from there on'
