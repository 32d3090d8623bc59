"""What a detector needs that starts from SoCo's weights: a report of what matched, and PreciseBN.

Both hooks live in MMEngine's root registry, so that a config of any scope finds them.
"""

from __future__ import annotations

import itertools
from bisect import bisect
from collections import Counter
from dataclasses import dataclass
from typing import Iterator, Mapping, Sequence

import torch
from mmengine.dist import all_reduce
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.registry import HOOKS
from mmengine.runner import BaseLoop, IterBasedTrainLoop, Runner
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

# Predictors depend on the detector's classes: no pretraining has them, no requirement holds them.
_PREDICTORS = ('fc_cls', 'fc_reg')
_COLUMNS = ('matched', 'fresh', 'unused', 'shape differs')


def key_group(key: str) -> str:
    """The part of a detector that a key belongs to, such as 'roi_head.bbox_head.shared_convs'."""
    parts = key.split('.')
    depth = 1
    if parts[0] == 'roi_head':
        depth = 3 if parts[1:2] == ['bbox_head'] else 2
    return '.'.join(parts[:min(depth, len(parts))])


@dataclass(frozen=True)
class WeightsReport:
    """How the tensors of a checkpoint and those of a model fit, key by key; see `match_weights`."""

    matched: tuple[str, ...]
    fresh: tuple[str, ...]
    unused: tuple[str, ...]
    mismatched: dict[str, tuple[tuple[int, ...], tuple[int, ...]]]
    require: tuple[str, ...]

    def is_required(self, key: str) -> bool:
        """Whether a key lies in a required part and is no classifier or regressor."""
        parts = key.split('.')
        return not any(p in _PREDICTORS for p in parts) and any(
            key.startswith(group + '.') for group in self.require)

    @property
    def required(self) -> tuple[int, int]:
        """Keys of the required parts that matched, and all of them."""
        found = sum(map(self.is_required, self.matched))
        return found, found + sum(map(self.is_required, [*self.fresh, *self.mismatched]))

    @property
    def complete(self) -> bool:
        """Whether every required part is there (it has keys) and matched wholly."""
        all_there = all(any(k.startswith(g + '.') for k in self.matched) for g in self.require)
        return all_there and len(set(self.required)) == 1

    def table(self) -> str:
        """A plain table of counts, one line for each part of the model or the checkpoint."""
        counts = [Counter(map(key_group, keys))
                  for keys in (self.matched, self.fresh, self.unused, self.mismatched)]
        groups = sorted(set().union(*counts), key=lambda g: (counts[2][g] > 0, g))
        rows = [('part', *_COLUMNS), *((g, *(str(c[g] or '-') for c in counts)) for g in groups),
                ('total', *(str(c.total()) for c in counts))]
        widths = [max(map(len, column)) for column in zip(*rows)]
        header, *body, total = [row[0].ljust(widths[0]) + ''.join(
            f'  {cell:>{width}}' for cell, width in zip(row[1:], widths[1:])) for row in rows]
        rule = '-' * len(header)
        lines = [header, rule, *body, rule, total]
        if self.require:
            found, needed = self.required
            lines.append(f'{found} of {needed} keys matched that the detector has to get from its '
                         f'checkpoint ({", ".join(self.require)}; never {", ".join(_PREDICTORS)})')
        return '\n'.join(lines)

    def explain(self) -> str:
        """One paragraph for a report that is not complete: found, expected, and the way out."""
        found, total = self.required
        wrong = [(k, *shapes) for k, shapes in self.mismatched.items() if self.is_required(k)]
        if wrong:
            key, theirs, ours = wrong[0]
            why = (f'{len(wrong)} of them have another shape, such as {key}: {list(theirs)} in '
                   f'the checkpoint and {list(ours)} in the detector, so the two were made with '
                   'another depth or other widths')
        else:
            missing = [k for k in self.fresh if self.is_required(k)]
            example = f', such as {missing[0]}' if missing else ''
            why = f'{len(missing)} of them are not in the checkpoint{example}; {self._family()}'
        return (
            f'The checkpoint does not fit this detector: {found} of {total} keys of '
            f'{", ".join(self.require)} matched. {why[0].upper()}{why[1:]}. Give the checkpoint '
            'that tools/train.py wrote for a SoCo config with the same backbone, neck and box '
            'head as this detector. To fine-tune on purpose from weights without these parts, '
            'leave them out of `require` of the PretrainedWeightsHook in the config.')

    def _family(self) -> str:
        """What kind of checkpoint this is, as its own key names tell."""
        tops = {k.split('.')[0] for k in (*self.matched, *self.unused, *self.mismatched)}
        keys = (*self.matched, *self.unused)
        if {'conv1', 'layer1'} <= tops:
            return 'it looks like a plain ResNet (torchvision) without neck and box head'
        if 'encoder' in tops:
            return ('it has the names of the official SoCo code (encoder.*), which are to be '
                    'converted first')
        if any(k.startswith('roi_head.shared_head.') for k in keys):
            return 'it looks like a SoCo-C4 checkpoint, which has no neck and fits C4 detectors'
        if 'backbone' in tops and 'neck' not in tops:
            return 'it holds a backbone without neck and box head'
        return f'its keys begin with {", ".join(sorted(tops)[:6]) or "nothing at all"}'


def match_weights(model_state: Mapping[str, Tensor], checkpoint_state: Mapping[str, Tensor],
                  require: Sequence[str] = ()) -> WeightsReport:
    """Compares the tensors of a checkpoint with those of a model, by name and shape.

    Args:
        model_state: state dict of the detector.
        checkpoint_state: state dict of the checkpoint; a leading 'module.' of its keys (as a
            parallel wrapper writes it) is passed over.
        require: parts of the detector, such as 'neck' or 'roi_head.bbox_head', of which every
            key must match but those of the classifier (fc_cls) and the regressor (fc_reg).

    Returns:
        The report; nothing is raised, and neither state dict is changed.
    """
    theirs = {k.removeprefix('module.'): tuple(getattr(v, 'shape', ()))
              for k, v in checkpoint_state.items()}
    ours = {k: tuple(v.shape) for k, v in model_state.items()}
    shared = [k for k in ours if k in theirs]
    return WeightsReport(
        matched=tuple(k for k in shared if ours[k] == theirs[k]),
        fresh=tuple(k for k in ours if k not in theirs),
        unused=tuple(k for k in theirs if k not in ours),
        mismatched={k: (theirs[k], ours[k]) for k in shared if ours[k] != theirs[k]},
        require=tuple(require))


@HOOKS.register_module()
class PretrainedWeightsHook(Hook):
    """Says how much of `load_from` reached the detector, and stops where it has to and did not.

    The report is logged as one table. What the detector has no place for (`target`, `projector`,
    tensors of another shape) is taken out of the checkpoint. A resumed run passes over all this.

    Args:
        require: parts that have to match wholly; see `match_weights`.

    Raises:
        ValueError: when a required part did not match, or, where the checkpoint is only tested,
            when the detector keeps any untrained tensor.
    """

    def __init__(self, require: Sequence[str] = ('backbone', 'neck', 'roi_head.bbox_head')
                 ) -> None:
        self.require = tuple(require)
        self._loaded = False

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Compares, logs, stops or cleans up; before anything is copied into the model."""
        self._loaded = True
        if runner._resume:
            return
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        state = checkpoint.get('state_dict', checkpoint)
        model_state = model.state_dict()
        report = match_weights(model_state, state, self.require)
        runner.logger.info(f'Weights from {runner._load_from}:\n{report.table()}')
        if not report.complete:
            raise ValueError(report.explain())
        trains = isinstance(runner._train_loop, BaseLoop)
        untrained = (*report.fresh, *report.mismatched)
        if untrained and not trains:
            raise ValueError(
                f'This checkpoint is not the detector to be tested: {len(untrained)} of its '
                f'tensors are missing or have another shape, such as {untrained[0]}. Give a '
                'checkpoint that fine-tuning with this config wrote (iter_*.pth or epoch_*.pth).')
        dropped = {*report.unused, *report.mismatched}
        for key in [k for k in state if k.removeprefix('module.') in dropped]:
            del state[key]
        # Fresh tensors load themselves, or MMEngine would warn of each of them once more.
        state.update({key: model_state[key] for key in untrained})

    def before_train(self, runner: Runner) -> None:
        """Warns when no checkpoint was loaded at all."""
        if not self._loaded:
            runner.logger.warning('No checkpoint was given (load_from is None): the whole '
                                  'detector starts from random weights.')


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
        loop = runner.train_loop
        interval = loop.dynamic_intervals[bisect(loop.dynamic_milestones, done + 1) - 1]
        validates = (runner.val_loop is not None and done >= loop.val_begin
                     and done % interval == 0)
        if validates or done == total:
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
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
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
                for count, batch in enumerate(itertools.chain([first], batches), start=1):
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
