"""Functions that several hooks use to query a Runner."""
from bisect import bisect

from mmengine.hooks import Hook, LoggerHook
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner
from torch import distributed, nn

from ..compat.network import choose_gloo_interface


def cpu_group() -> distributed.ProcessGroup:
    """Return a new group of all ranks for messages between CPUs, for which no GPU has to wait."""
    choose_gloo_interface()
    group = distributed.new_group(backend='gloo')
    assert isinstance(group, distributed.ProcessGroup)  # this rank is in it
    return group


def unwrapped(runner: Runner) -> nn.Module:
    """Return the model without the wrapper of distributed training."""
    return runner.model.module if is_model_wrapper(runner.model) else runner.model


def log_is_due(hook: Hook, runner: Runner, batch_idx: int) -> bool:
    """Return whether a hook has to log after this iteration: at a log or at the end of an epoch."""
    interval = next((h.interval for h in runner.hooks if isinstance(h, LoggerHook)), 1)
    return (hook.every_n_inner_iters(batch_idx, interval)
            or hook.end_of_epoch(runner.train_dataloader, batch_idx))


def validation_is_due(runner: Runner, done: int) -> bool:
    """Return whether the loop validates after `done` epochs, or iterations if it counts these."""
    loop = runner.train_loop
    interval = loop.dynamic_intervals[bisect(loop.dynamic_milestones, done + 1) - 1]
    return runner.val_loop is not None and done >= loop.val_begin and done % interval == 0
