"""A hook that computes BatchNorm statistics on training data before a detector is evaluated."""
import itertools
from collections.abc import Iterator, Sequence

import torch
from mmengine.dist import all_reduce
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import IterBasedTrainLoop, Runner
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from .runner_utils import unwrapped, validation_is_due


@HOOKS.register_module()
class PreciseBNHook(Hook):
    """Recompute the statistics of BatchNorm on training data before the model is evaluated.

    Each statistic becomes the plain average of the statistics of `num_iters` training batches (of
    every process); the weights do not change. The model runs in train mode and computes its losses,
    so that BN in RoI heads sees the RoIs that are sampled in training. Layers that the model keeps in
    eval mode are not changed. The hook runs before every validation and at the end of training, before
    the checkpoint of that iteration is written. It follows Detectron2's PreciseBN, which the official
    runs used.

    Args:
        num_iters (int): Training batches per process, at least 1; fewer if the data ends earlier.
            Defaults to 200.

    Raises:
        ValueError: If the training data gives no batch.
    """

    priority = 'LOW'  # before the hook that writes checkpoints (VERY_LOW)

    def __init__(self, num_iters: int = 200) -> None:
        if num_iters < 1:
            raise ValueError(f'PreciseBNHook: num_iters is {num_iters}, but at least one batch '
                             'is needed to compute statistics.')
        self.num_iters = num_iters

    def after_train_epoch(self, runner: Runner) -> None:
        """Update the statistics if they are due, in a loop that counts epochs."""
        if not isinstance(runner.train_loop, IterBasedTrainLoop):
            self._update_when_due(runner, runner.epoch + 1, runner.max_epochs)

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch: dict | None = None,
                         outputs: dict | None = None) -> None:
        """Update the statistics if they are due, in a loop that counts iterations."""
        if isinstance(runner.train_loop, IterBasedTrainLoop):
            self._update_when_due(runner, runner.iter + 1, runner.max_iters)

    def _update_when_due(self, runner: Runner, done: int, total: int) -> None:
        """Update if the loop validates after `done` epochs or iterations, or ends there."""
        if validation_is_due(runner, done) or done == total:
            self.update(runner)

    def _batches(self, runner: Runner) -> Iterator[dict]:
        """Return training batches of a separate loader, which leaves the training loader unchanged."""
        cfg = runner.cfg.get('train_dataloader')
        if cfg is None:
            raise ValueError('PreciseBNHook builds a training loader of its own, but the Runner '
                             'has no config of one. Build the Runner with Runner.from_cfg(cfg) from '
                             'a config that has `train_dataloader`.')
        # Reuse the training data set: COCO takes long to read.
        cfg = {**cfg, 'dataset': runner.train_dataloader.dataset, 'persistent_workers': False}
        # Another seed each time, or the statistics would always come from the same batches.
        loader = runner.build_dataloader(cfg, seed=runner.seed + runner.iter + 1)
        return itertools.islice(loader, self.num_iters)

    def update(self, runner: Runner) -> None:
        """Recompute the statistics now, and restore the momentum and mode of every layer.

        Args:
            runner (Runner): The runner.

        Raises:
            ValueError: If the training data gives no batch, or the Runner has no config of a loader.
        """
        model = unwrapped(runner)
        was_training = model.training
        model.train()
        norms = [m for m in model.modules()
                 if isinstance(m, _BatchNorm) and m.training and m.track_running_stats]
        batches = self._batches(runner)
        first = next(batches, None)
        if first is None:
            raise ValueError(
                'PreciseBNHook: the training data gives no batch, so the statistics of '
                'BatchNorm cannot be computed. Check train_dataloader: its dataset may be empty '
                'after filtering, or smaller than one batch with drop_last.')
        momenta = [m.momentum for m in norms]
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None  # torch then computes the cumulative average
        try:
            with torch.no_grad(), runner.optim_wrapper.optim_context(model):
                for count, batch in enumerate(  # noqa: B007 (the log reports count)
                        itertools.chain([first], batches), start=1):
                    model._run_forward(model.data_preprocessor(batch, True), mode='loss')
        finally:
            for norm, momentum in zip(norms, momenta):
                norm.momentum = momentum
            model.train(was_training)
        _average_over_processes(norms)
        runner.logger.info(f'PreciseBN: statistics of {len(norms)} layers from {count} batches '
                           'of each process')


def _average_over_processes(norms: Sequence[nn.Module]) -> None:
    """Set running mean and variance to their averages over all processes, in one message."""
    stats = [s for norm in norms for s in (norm.running_mean, norm.running_var)]
    if not stats:
        return
    joint = torch.cat(stats)
    all_reduce(joint, op='mean')
    for stat, mean in zip(stats, joint.split([s.numel() for s in stats])):
        stat.copy_(mean)
