"""Hooks that watch over a long run: numbers gone wrong, collapse, ranks that disagree.

They live in MMEngine's root registry, so that a config of any scope finds them.
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
    """Stop when the loss is NaN or infinite, and never write weights that are.

    Nothing waits for the device between two looks. Under mixed precision with a gradient scaler some
    such steps are skipped and harmless, so `patience` of them in a row are let pass.

    Args:
        interval (int): Look every so many iterations where a look makes a GPU wait; on a CPU it is
            every iteration. Defaults to 50.
        patience (int): Steps in a row that a gradient scaler may skip. Defaults to 20.
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
        """Count losses that are not finite; look at the count when it is time.

        Raises:
            FloatingPointError: Too many in a row; the message names iteration, images, ways out.
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
            f'The loss is not finite since iteration {failed_at + 1}'
            f'{f" (rank {get_rank()})" if get_world_size() > 1 else ""}. Images of that batch: '
            f'{", ".join(names[:8]) or "not known"}{", …" if len(names) > 8 else ""}. The last good '
            f'checkpoint is {last or "none: none was written yet"}. What helps: a lower learning rate '
            'or a longer warm-up (optim_wrapper.optimizer.lr, param_scheduler), gradient clipping '
            '(optim_wrapper.clip_grad), bfloat16 in place of float16 (optim_wrapper.dtype=bfloat16), '
            'and a look at these images; then go on with --resume.')

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Refuse to write weights that are not finite.

        Raises:
            FloatingPointError: They are not; the message names one.
        """
        for name, value in checkpoint['state_dict'].items():
            if value.is_floating_point() and not value.isfinite().all():
                raise FloatingPointError(
                    f'{name} is not finite after iteration {runner.iter + 1}; no checkpoint was '
                    'written, earlier ones are good. Go on from one of them with a lower learning '
                    'rate: --resume, or --cfg-options load_from=FILE to start its schedule anew.')


def image_names(runner: Runner, batch_idx: int, data_batch: Any) -> Any:
    """Tell which images are in a batch: a list of names, or a function that finds it out.

    Args:
        runner (Runner): The runner.
        batch_idx (int): Iteration within the epoch.
        data_batch (Any): Of mmdet, which carries paths, or of SoCo, whose sampler knows.
    """
    samples = data_batch.get('data_samples') if isinstance(data_batch, dict) else None
    if samples is not None:
        return [str(getattr(sample, 'img_path', '')) for sample in samples]
    sampler = getattr(runner.train_dataloader, 'batch_sampler', None)
    dataset = runner.train_dataloader.dataset
    if not hasattr(sampler, 'keys_of') or not hasattr(dataset, 'image_name'):
        return []
    return lambda: [dataset.image_name(key) for key in sampler.keys_of(batch_idx)]


