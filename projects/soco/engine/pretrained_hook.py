"""A hook that reports which pretrained weights match a detector, and fails if required ones do not.

The hook is in MMEngine's root registry, so that configs of any scope find it.
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
    """Report how much of `load_from` matches the detector, and fail if a required part does not.

    Names are converted first (`fit_names`), and the report is logged as one table. Tensors that the
    detector has no place for (`target`, `projector`, tensors of another shape) are removed from the
    checkpoint. The hook does none of this when a run is resumed.

    Args:
        require (Sequence[str]): Parts that must match completely; see `match_weights`. Defaults to
            ('backbone', 'neck', 'roi_head.bbox_head').
        source (str): What the detector starts from: 'soco'; 'supervised', a ResNet that was trained to
            classify (of `require`, only backbone and shared head are required); or 'random', no
            weights at all. `tools/train.py --pretrained` sets it. Defaults to 'soco'.

    Raises:
        ValueError: If a required part does not match, or, when a checkpoint is only tested, if any
            tensor of the detector stays untrained.
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
        """Convert names, compare, and fail or clean up, before anything is copied to the model.

        Raises:
            ValueError: See the class.
        """
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
                f'tensors are missing or have another shape, such as {untrained[0]}. Use a '
                'checkpoint that fine-tuning with this config wrote (iter_*.pth or epoch_*.pth).')
        for key in (*report.unused, *report.mismatched):
            del state[key]
        # Fresh tensors get the model's own values, or MMEngine would warn about each of them again.
        state.update({key: model_state[key] for key in untrained})

    def before_train(self, runner: Runner) -> None:
        """Log that no checkpoint was loaded; warn if one was expected."""
        if self._loaded:
            return
        if self.source == 'random':
            runner.logger.info('The whole detector starts from random weights, as requested.')
        else:
            runner.logger.warning('No checkpoint was given (load_from is None): the whole '
                                  'detector starts from random weights.')
