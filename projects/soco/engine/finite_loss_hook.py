"""A hook that stops training when the loss or the weights are not finite.

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


@HOOKS.register_module()
class FiniteLossHook(Hook):
    """Stop when the loss is NaN or infinite, and never write weights that are not finite.

    Nothing waits for the device between two checks. Under mixed precision, a gradient scaler skips
    some such steps, which is harmless, so `patience` of them in a row are tolerated.

    Args:
        interval (int): Iterations between two checks on a GPU, where a check makes it wait; on a CPU,
            every iteration is checked. Defaults to 50.
        patience (int): Consecutive steps that a gradient scaler may skip. Defaults to 20.
    """

    priority = 'ABOVE_NORMAL'  # before logs and checkpoints

    def __init__(self, interval: int = 50, patience: int = 20) -> None:
        if interval < 1 or patience < 0:
            raise ValueError('FiniteLossHook: interval must be at least 1 and patience at least 0, not '
                             f'{interval} and {patience}.')
        self.interval = interval
        self.patience = patience
        self._in_a_row: Tensor | None = None
        self._failed_at: Tensor | None = None
        self._images: list[Any] = []

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None,
                         outputs: dict | None = None) -> None:
        """Count losses that are not finite, and check the count when it is due.

        Raises:
            FloatingPointError: If there are too many in a row; the message names the iteration, its
                images and possible remedies.
        """
        loss = (outputs or {}).get('loss')
        if not isinstance(loss, Tensor):
            return
        scaler = getattr(runner.optim_wrapper, 'loss_scaler', None)
        allowed = self.patience if scaler is not None and scaler.is_enabled() else 0
        if self._in_a_row is None:
            self._in_a_row = torch.zeros((), dtype=torch.long, device=loss.device)
            self._failed_at = torch.full_like(self._in_a_row, -1)
        self._in_a_row = torch.where(loss.detach().isfinite().all(), 0, self._in_a_row + 1)
        self._failed_at = torch.where((self._in_a_row > allowed) & (self._failed_at < 0), runner.iter,
                                      self._failed_at)
        self._images.append(image_names(runner, batch_idx, data_batch))
        if loss.is_cuda and not self.every_n_train_iters(runner, self.interval):
            return
        failed_at = int(self._failed_at)
        if failed_at >= 0:
            raise FloatingPointError(self._explain(runner, failed_at))
        self._images.clear()

    def _explain(self, runner: Runner, failed_at: int) -> str:
        names = self._images[failed_at - runner.iter - 1]
        names = names() if callable(names) else names
        last = find_newest_checkpoint(runner.work_dir)
        return (
            f'The loss has not been finite since iteration {failed_at + 1}'
            f'{f" (rank {get_rank()})" if get_world_size() > 1 else ""}. Images of that batch: '
            f'{", ".join(names[:8]) or "not known"}{", …" if len(names) > 8 else ""}. The last good '
            f'checkpoint: {last or "none was written yet"}. Try a lower learning rate or a longer '
            'warm-up (optim_wrapper.optimizer.lr, param_scheduler), gradient clipping '
            '(optim_wrapper.clip_grad) or bfloat16 instead of float16 (optim_wrapper.dtype=bfloat16), '
            'and check these images; then resume with --resume.')

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
    return lambda: [dataset.image_name(key) for key in sampler.keys_of(batch_idx)]
