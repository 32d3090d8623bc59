"""What reaches a detector of the weights that it starts from, and a stop where too little did.

The hook lives in MMEngine's root registry, so that a config of any scope finds them.
"""
from collections.abc import Sequence

from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import BaseLoop, Runner

from ..weights.match import fit_names, match_weights
from .runner_utils import unwrapped

SOURCES = ('soco', 'supervised', 'random')
_SUPERVISED = ('backbone', 'roi_head.shared_head')  # the parts that an ImageNet classifier has


@HOOKS.register_module()
class PretrainedWeightsHook(Hook):
    """Says how much of `load_from` reached the detector, and stops where it has to and did not.

    Names are fitted first (`fit_names`); the report is logged as one table. What the detector has no
    place for (`target`, `projector`, tensors of another shape) is taken out of the checkpoint. A
    resumed run passes over all this.

    Args:
        require: parts that have to match wholly; see `match_weights`.
        source: what the detector starts from: 'soco'; 'supervised', a ResNet that was trained to
            classify (of `require` only backbone and shared head are asked for); or 'random', no
            weights at all. `tools/train.py --pretrained` sets it.

    Raises:
        ValueError: when a required part did not match, or, where the checkpoint is only tested,
            when the detector keeps any untrained tensor.
    """

    def __init__(self, require: Sequence[str] = ('backbone', 'neck', 'roi_head.bbox_head'),
                 source: str = 'soco') -> None:
        if source not in SOURCES:
            raise ValueError(f'PretrainedWeightsHook: source is {source!r}, but it must be one of '
                             f'{", ".join(SOURCES)}.')
        self.source = source
        self.require = tuple(part for part in require
                             if source == 'soco' or part.startswith(_SUPERVISED))
        self._loaded = False

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Fits names, compares, logs, stops or cleans up; before anything is copied to the model."""
        self._loaded = True
        if runner._resume:
            return
        model = unwrapped(runner)
        state = checkpoint.get('state_dict', checkpoint)
        model_state = model.state_dict()
        names = fit_names(model_state, state, self.source == 'supervised')
        fitted = {name: state[key] for key, name in names.items()}
        state.clear()
        state.update(fitted)
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
        for key in (*report.unused, *report.mismatched):
            del state[key]
        # Fresh tensors load themselves, or MMEngine would warn of each of them once more.
        state.update({key: model_state[key] for key in untrained})

    def before_train(self, runner: Runner) -> None:
        """Says when no checkpoint was loaded at all; warns where one was expected."""
        if self._loaded:
            return
        if self.source == 'random':
            runner.logger.info('The whole detector starts from random weights, as asked for.')
        else:
            runner.logger.warning('No checkpoint was given (load_from is None): the whole '
                                  'detector starts from random weights.')
