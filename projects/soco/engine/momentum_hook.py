"""A hook that updates the target network."""
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner

from .runner_utils import unwrapped
from .schedules import cosine_momentum


@HOOKS.register_module()
class MomentumUpdateHook(Hook):
    """Update the target network before the first forward pass of each optimizer step.

    The momentum depends only on `runner.iter` and `runner.max_iters`, so it is also correct in a
    resumed run. With gradient accumulation, the target is updated once per optimizer step.

    Args:
        momentum (float): EMA momentum at the start, in [0, 1]; it rises to 1 along a cosine.
            Defaults to 0.99.
    """

    def __init__(self, momentum: float = 0.99) -> None:
        if not 0 <= momentum <= 1:
            raise ValueError(f'MomentumUpdateHook: momentum must be in [0, 1], not {momentum}.')
        self.momentum = momentum

    def before_train_iter(self, runner: Runner, batch_idx: int,
                          data_batch: dict | None = None) -> None:
        """Compute, log and apply the momentum."""
        per_step = runner.optim_wrapper._accumulative_counts
        if runner.iter % per_step:
            return
        momentum = cosine_momentum(self.momentum, runner.iter // per_step,
                                   max(1, runner.max_iters // per_step))
        runner.message_hub.update_scalar('train/momentum', momentum)
        unwrapped(runner).momentum_update(momentum)
