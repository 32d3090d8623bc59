"""BatchNorm statistics from training data before a detector is evaluated."""
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
    """Recomputes the statistics of BatchNorm on training data before the model is evaluated.

    Each statistic becomes the plain average over `num_iters` training batches (of every process)
    of what a batch gives; the weights stay as they are. The model runs in train mode and computes
    its losses, so that BN in RoI heads sees the RoIs that are sampled in training. Layers that
    the model keeps in eval mode are left alone. It runs before every validation and at the end of
    training, ahead of the checkpoint of that moment. Detectron2's PreciseBN, which the official
    runs used, serves as the model.

    Args:
        num_iters: training batches per process, at least 1; fewer when the data ends before.

    Raises:
        ValueError: when the training data gives no batch.
    """

    priority = 'LOW'  # before the hook that writes checkpoints (VERY_LOW)

    def __init__(self, num_iters: int = 200) -> None:
        if num_iters < 1:
            raise ValueError(f'PreciseBNHook: num_iters is {num_iters}, but at least one batch '
                             'is needed to compute statistics.')
        self.num_iters = num_iters

    def after_train_epoch(self, runner: Runner) -> None:
        if not isinstance(runner.train_loop, IterBasedTrainLoop):
            self._update_when_due(runner, runner.epoch + 1, runner.max_epochs)

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch: dict | None = None,
                         outputs: dict | None = None) -> None:
        if isinstance(runner.train_loop, IterBasedTrainLoop):
            self._update_when_due(runner, runner.iter + 1, runner.max_iters)

    def _update_when_due(self, runner: Runner, done: int, total: int) -> None:
        """Updates when the loop validates after `done` epochs (iterations), or ends there."""
        if validation_is_due(runner, done) or done == total:
            self.update(runner)

    def _batches(self, runner: Runner) -> Iterator[dict]:
        """Training batches from a loader of its own, so that training's stream is not moved."""
        cfg = runner.cfg.get('train_dataloader')
        if cfg is None:
            raise ValueError('PreciseBNHook builds a training loader of its own, and the Runner '
                             'has no config of one: build it by Runner.from_cfg(cfg) from a '
                             'config that has `train_dataloader`.')
        # The dataset is training's own: COCO takes long to read.
        cfg = {**cfg, 'dataset': runner.train_dataloader.dataset, 'persistent_workers': False}
        # Another seed each time, else the statistics would always rest on the same batches.
        loader = runner.build_dataloader(cfg, seed=runner.seed + runner.iter + 1)
        return itertools.islice(loader, self.num_iters)

    def update(self, runner: Runner) -> None:
        """Recomputes the statistics now; momentum and mode of every layer are as before."""
        model = unwrapped(runner)
        was_training = model.training
        model.train()
        norms = [m for m in model.modules()
                 if isinstance(m, _BatchNorm) and m.training and m.track_running_stats]
        batches = self._batches(runner)
        first = next(batches, None)
        if first is None:
            raise ValueError(
                'PreciseBNHook: the training data gives no batch, so that the statistics of '
                'BatchNorm cannot be computed. Check train_dataloader: its dataset may be empty '
                'after filtering, or smaller than one batch with drop_last.')
        momenta = [m.momentum for m in norms]
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None  # torch then keeps the cumulative average
        try:
            with torch.no_grad(), runner.optim_wrapper.optim_context(model):
                for count, batch in enumerate(  # noqa: B007 (the log tells count)
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
    """Sets running mean and variance to their averages over all processes, in one message."""
    stats = [s for norm in norms for s in (norm.running_mean, norm.running_var)]
    if not stats:
        return
    joint = torch.cat(stats)
    all_reduce(joint, op='mean')
    for stat, mean in zip(stats, joint.split([s.numel() for s in stats])):
        stat.copy_(mean)
