"""A hook that stops training when the loss or the weights are not finite, or no step is taken.

The hook is in MMEngine's root registry, so that configs of any scope find it.
"""
from typing import Any

import torch
from mmengine.dist import get_rank, get_world_size
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner
from torch import Tensor

from ..weights.read import find_newest_checkpoint
from .runner_utils import log_is_due


@HOOKS.register_module()
class FiniteLossHook(Hook):
    """Stop when the loss is NaN or infinite, and never write weights that are not finite.

    Nothing waits for the device between two checks. A gradient scaler skips the optimizer steps whose
    gradients overflow. That is harmless while the loss is finite: the scale falls, and training goes
    on. The hook logs the scale as `amp_scale` and the skipped steps since the start as `skipped_steps`,
    and stops a run whose scale only falls. A loss that is not finite stops the run also under a scaler:
    the scaler saves the weights, but the running statistics of BN have seen the activations that
    overflowed.

    Args:
        interval (int): Iterations between two checks on a GPU, where a check makes it wait; the end of
            an epoch is checked too, and on a CPU every iteration. Defaults to 50.
        patience (int): Consecutive optimizer steps that a gradient scaler may skip. They are not
            counted for a scaler with a constant scale (`loss_scale=FLOAT`), which does not tell.
            Defaults to 20.
    """

    priority = 'ABOVE_NORMAL'  # before logs and checkpoints

    def __init__(self, interval: int = 50, patience: int = 20) -> None:
        if interval < 1 or patience < 0:
            raise ValueError('FiniteLossHook: interval must be at least 1 and patience at least 0, not '
                             f'{interval} and {patience}.')
        self.interval = interval
        self.patience = patience
        self._failed_at: Tensor | None = None
        self._images: list[Any] = []
        self._scale: Tensor | None = None  # of the gradient scaler, after its last step
        self._skipped: Tensor | None = None  # optimizer steps: all, and the last ones in a row
        self._stuck: Tensor | None = None  # whether there ever were too many in a row

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None,
                         outputs: dict | None = None) -> None:
        """Note whether loss and step are good, and check this when it is due.

        Raises:
            FloatingPointError: If a loss was not finite, or the scaler skips too many steps in a row.
                The message names the iteration, its images and possible remedies.
        """
        loss = (outputs or {}).get('loss')
        if not isinstance(loss, Tensor):
            return
        self._watch_scaler(runner)
        if self._failed_at is None:
            self._failed_at = torch.full((), -1, device=loss.device)
        failed = ~loss.detach().isfinite().all()
        self._failed_at = torch.where(failed & (self._failed_at < 0), runner.iter, self._failed_at)
        self._images.append(image_names(runner, batch_idx, data_batch))
        if self._scale is not None and log_is_due(self, runner, batch_idx):
            runner.message_hub.update_scalar('train/amp_scale', float(self._scale))
            runner.message_hub.update_scalar('train/skipped_steps', int(self._skipped[0]))
        if loss.is_cuda and not (self.every_n_train_iters(runner, self.interval)
                                 or self.end_of_epoch(runner.train_dataloader, batch_idx)):
            return
        failed_at = int(self._failed_at)
        if failed_at >= 0:
            raise FloatingPointError(self._explain(runner, failed_at))
        if self._stuck is not None and self._stuck:
            raise FloatingPointError(self._explain_scale(runner))
        self._images.clear()

    def _watch_scaler(self, runner: Runner) -> None:
        """Count the optimizer steps that a gradient scaler skips: its scale then falls."""
        wrapper = runner.optim_wrapper
        scaler = getattr(wrapper, 'loss_scaler', None)
        scale = getattr(scaler, '_scale', None)  # a tensor from the first step on; get_scale() waits
        if scale is None or not wrapper.should_update():
            return
        if self._scale is None:
            # Of the config or of the checkpoint that is resumed.
            self._scale = torch.full_like(scale, scaler._init_scale)
            self._skipped = torch.zeros(2, dtype=torch.long, device=scale.device)
            self._stuck = torch.zeros((), dtype=torch.bool, device=scale.device)
        skipped = (scale < self._scale).long()
        total, in_a_row = self._skipped
        self._skipped = torch.stack([total + skipped, (in_a_row + 1) * skipped])
        self._stuck = self._stuck | (self._skipped[1] > self.patience)
        self._scale = scale.detach().clone()

    def _explain(self, runner: Runner, failed_at: int) -> str:
        names = self._images[failed_at - runner.iter - 1]
        names = names() if callable(names) else names
        return (
            f'The loss has not been finite since iteration {failed_at + 1}'
            f'{_rank()}. Images of that batch: '
            f'{", ".join(names[:8]) or "not known"}{", …" if len(names) > 8 else ""}. '
            f'{_last_good(runner)} Try a lower learning rate or a longer '
            'warm-up (optim_wrapper.optimizer.lr, param_scheduler), gradient clipping '
            '(optim_wrapper.clip_grad) or bfloat16 instead of float16 (optim_wrapper.dtype=bfloat16), '
            'and check these images; then resume with --resume.')

    def _explain_scale(self, runner: Runner) -> str:
        return (
            f'Up to iteration {runner.iter + 1}, the gradient scaler has skipped more than '
            f'{self.patience} optimizer steps in a row{_rank()}: the gradients overflow float16 at any '
            f'loss scale (it is {float(self._scale):g} now), so nothing is trained any more. '
            f'{_last_good(runner)} Use '
            'bfloat16 instead of float16 (optim_wrapper.dtype=bfloat16) or a lower learning rate '
            '(optim_wrapper.optimizer.lr), then resume with --resume.')

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Refuse to write weights that are not finite.

        Raises:
            FloatingPointError: If they are not; the message names one of them.
        """
        for name, value in checkpoint['state_dict'].items():
            if value.is_floating_point() and not value.isfinite().all():
                raise FloatingPointError(
                    f'{name} is not finite after iteration {runner.iter + 1}; no checkpoint was '
                    'written, earlier ones are good. Resume from one of them with a lower learning '
                    'rate: --resume, or --cfg-options load_from=FILE to restart the schedule.')


def _rank() -> str:
    return f' (rank {get_rank()})' if get_world_size() > 1 else ''


def _last_good(runner: Runner) -> str:
    last = find_newest_checkpoint(runner.work_dir)
    return f'The last good checkpoint: {last or "none was written yet"}.'


def image_names(runner: Runner, batch_idx: int, data_batch: Any) -> Any:
    """Return the names of the images in a batch, or a function that returns them.

    Args:
        runner (Runner): The runner.
        batch_idx (int): Iteration within the epoch.
        data_batch (Any): A batch of mmdet, which contains the paths, or of SoCo, whose names
            are looked up by the sampler's keys.

    Returns:
        list[str] | Callable[[], list[str]]: The names; empty if they are not known.
    """
    samples = data_batch.get('data_samples') if isinstance(data_batch, dict) else None
    if samples is not None:
        return [str(getattr(sample, 'img_path', '')) for sample in samples]
    sampler = getattr(runner.train_dataloader, 'batch_sampler', None)
    dataset = runner.train_dataloader.dataset
    if not hasattr(sampler, 'keys_of') or not hasattr(dataset, 'image_name'):
        return []
    epoch = sampler.epoch  # now: on a GPU, the names may be asked for in a later epoch
    return lambda: [dataset.image_name(key) for key in sampler.keys_of(batch_idx, epoch)]
