"""Hooks that watch over a long run: numbers gone wrong, collapse, ranks that disagree.

They live in MMEngine's root registry, so that a config of any scope finds them.
"""
import hashlib
from pathlib import Path
from typing import Any, Dict, List, Optional

import torch
from mmengine.config import Config
from mmengine.dist import all_gather_object, get_rank, get_world_size
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner
from torch import Tensor

from .checkpoint import find_newest_checkpoint


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
        self._in_a_row: Optional[Tensor] = None
        self._failed_at: Optional[Tensor] = None
        self._images: List[Any] = []

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None,
                         outputs: Optional[dict] = None) -> None:
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


@HOOKS.register_module()
class CollapseHook(Hook):
    """Warn when object features hardly differ any more: the network has found the trivial answer.

    `obj_std`, which `SoCo` logs, is the spread of normalised object features, near 1 when they point
    everywhere and 0 when all are alike.

    Args:
        threshold (float): Spread under which features count as collapsed, within (0, 1). Defaults to
            0.1 (our choice).
        patience (int): Logs in a row under it before the warning. Defaults to 5.
        interval (int): Iterations from one look to the next. Defaults to 50, as the log's.
    """

    def __init__(self, threshold: float = 0.1, patience: int = 5, interval: int = 50) -> None:
        if not 0 < threshold < 1 or patience < 1 or interval < 1:
            raise ValueError('CollapseHook: threshold must lie within (0, 1), patience and interval be '
                             f'at least 1, not {threshold}, {patience} and {interval}.')
        self.threshold = threshold
        self.patience = patience
        self.interval = interval
        self._in_a_row = 0

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None,
                         outputs: Optional[dict] = None) -> None:
        """Look at the spread every `interval` iterations."""
        if not self.every_n_train_iters(runner, self.interval) or 'obj_std' not in (outputs or {}):
            return
        spread = float(outputs['obj_std'])
        self._in_a_row = self._in_a_row + 1 if spread < self.threshold else 0
        if self._in_a_row and self._in_a_row % self.patience == 0:
            runner.logger.warning(
                f'COLLAPSE? The spread of object features (obj_std) is {spread:.3f}, under '
                f'{self.threshold}, for {self._in_a_row} looks in a row: all objects look alike to the '
                'network. Common causes: a learning rate too high for the batch, a warm-up too short, '
                'a predictor or BN left out, weight decay on BN. Look at the curves before going on.')


@HOOKS.register_module()
class SameRunHook(Hook):
    """Stop before the first step when ranks disagree on config, code, libraries or data.

    Raises:
        ValueError: They do; the message names the ranks and what differs.
    """

    def before_train(self, runner: Runner) -> None:
        """Compare what all ranks are about to do."""
        if get_world_size() == 1:
            return
        everywhere = all_gather_object(run_identity(runner))
        differing = {what: sorted({rank for rank, other in enumerate(everywhere)
                                   if other[what] != everywhere[0][what]}) for what in everywhere[0]}
        told = [f'{what} (rank 0: {everywhere[0][what]}; rank {ranks[0]}: {everywhere[ranks[0]][what]})'
                for what, ranks in differing.items() if ranks]
        if told:
            raise ValueError(f'The processes do not do the same: they differ in {"; ".join(told)}. '
                             'Give every machine the same checkout, environment, config and data.')


def run_identity(runner: Runner) -> Dict[str, str]:
    """Describe a run in a few words that have to be the same on every rank."""
    cfg = Config(runner.cfg._cfg_dict.to_dict())
    for key in ('work_dir', 'launcher', 'local_rank', 'load_from'):
        cfg.pop(key, None)
    code = hashlib.sha256()
    root = Path(__file__).resolve().parents[1]
    for path in sorted(root.rglob('*.py')):
        code.update(str(path.relative_to(root)).encode() + path.read_bytes())
    dataset = runner.train_dataloader.dataset
    data = getattr(dataset, 'fingerprint', lambda: str(len(dataset)))()
    return {'the config': hashlib.sha256(cfg.dump().encode()).hexdigest()[:12],
            'the code': code.hexdigest()[:12], 'torch': torch.__version__, 'the data': data}
