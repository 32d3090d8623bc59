"""When things happen during pretraining."""
from typing import Dict, List, Optional

import torch
from mmengine.hooks import Hook, LoggerHook, RuntimeInfoHook
from mmengine.model import is_model_wrapper
from mmengine.registry import HOOKS
from mmengine.runner import Runner
from torch import Tensor

from .schedules import cosine_momentum


@HOOKS.register_module()
class MomentumUpdateHook(Hook):
    """Move the target network before each optimizer step's first forward pass.

    The momentum depends on nothing but `runner.iter` and `runner.max_iters`, so a resumed run is
    right by construction. Under gradient accumulation the target moves once per optimizer step.

    Args:
        momentum (float): EMA momentum at the start, within [0, 1]; it rises to 1 by a cosine.
            Defaults to 0.99.
    """

    def __init__(self, momentum: float = 0.99) -> None:
        if not 0 <= momentum <= 1:
            raise ValueError(f'The EMA momentum must lie in [0, 1], not {momentum}.')
        self.momentum = momentum

    def before_train_iter(self, runner: Runner, batch_idx: int,
                          data_batch: Optional[dict] = None) -> None:
        """Compute, log and apply the momentum."""
        per_step = runner.optim_wrapper._accumulative_counts
        if runner.iter % per_step:
            return
        momentum = cosine_momentum(self.momentum, runner.iter // per_step,
                                   max(1, runner.max_iters // per_step))
        runner.message_hub.update_scalar('train/momentum', momentum)
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        model.momentum_update(momentum)


@HOOKS.register_module()
class DeferredInfoHook(RuntimeInfoHook):
    """mmengine's `RuntimeInfoHook`, but a GPU is waited for once a log and not in every iteration.

    The model's outputs stay on the device until the log, an epoch's end or a checkpoint needs them;
    the histories are then the same.
    """

    def __init__(self) -> None:
        self._pending: List[Dict[str, Tensor]] = []

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch: Optional[dict] = None,
                         outputs: Optional[dict] = None) -> None:
        """Put the outputs aside; write them down when a log is due."""
        self._pending.append({key: value.detach() for key, value in (outputs or {}).items()})
        interval = next((h.interval for h in runner.hooks if isinstance(h, LoggerHook)), 1)
        if (self.every_n_inner_iters(batch_idx, interval)
                or self.end_of_epoch(runner.train_dataloader, batch_idx)):
            self._write(runner)

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Complete the histories in a checkpoint that is written between two logs."""
        if self._pending:
            self._write(runner)
            checkpoint['message_hub'] = runner.message_hub.state_dict()

    def _write(self, runner: Runner) -> None:
        values = [value.float() for outputs in self._pending for value in outputs.values()]
        numbers = iter(torch.stack(values).tolist() if values else [])  # waits once
        for outputs in self._pending:
            for key in outputs:
                runner.message_hub.update_scalar(f'train/{key}', next(numbers))
        self._pending.clear()
