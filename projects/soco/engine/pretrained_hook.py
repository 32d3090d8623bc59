"""Loading of the weights that a run starts from: a report of what matched, a stop if too little did.

The hook is in MMEngine's root registry, so that configs of any scope find it.
"""
from collections.abc import Sequence

from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import BaseLoop, CheckpointLoader, Runner

from ..weights.match import brought_parts, fit_names, match_weights
from ..weights.read import load_content
from .runner_utils import unwrapped

SOURCES = ('soco', 'supervised', 'random')
_SUPERVISED = ('backbone', 'roi_head.shared_head')  # the parts that an ImageNet classifier has


@CheckpointLoader.register_scheme(prefixes=r'(?![\w-]+://).+')  # any file that is no address
def load_from_weights_file(filename: str, map_location: str | None = None) -> dict:
    """Read a checkpoint or weights of any library; MMEngine's own loader knows fewer formats.

    Args:
        filename (str): See `weights.read.load_content`.
        map_location (str, optional): Device of the tensors. Defaults to None: the CPU.

    Returns:
        dict: The content of the file, with its weights under `state_dict`.
    """
    return load_content(filename, map_location or 'cpu')


@HOOKS.register_module()
class PretrainedWeightsHook(Hook):
    """Report how much of `load_from` matches the model, and fail if a required part does not.

    Names are converted first (`fit_names`), and the report is logged as one table. Tensors that the
    model has no place for (of another module or shape, such as a `projector`) are removed from the
    checkpoint. SoCo's target gets what the online network gets, unless the file contains a target. The
    hook does none of this when a run is resumed.

    Args:
        require (Sequence[str], optional): Parts that must match completely; see `match_weights`.
            Defaults to None: the backbone, and every other part of which the file contains something.
        source (str): What the model starts from: 'soco'; 'supervised', a ResNet that was trained to
            classify (of `require`, only backbone and shared head are required); or 'random', no
            weights at all. `tools/train.py --pretrained` sets it. Defaults to 'soco'.

    Raises:
        ValueError: If a required part does not match, or, when a checkpoint is only tested, if any
            tensor of the detector stays untrained.
    """

    def __init__(self, require: Sequence[str] | None = None, source: str = 'soco') -> None:
        if source not in SOURCES:
            raise ValueError(f'PretrainedWeightsHook: source is {source!r}, but it must be one of '
                             f'{", ".join(SOURCES)}.')
        self.source = source
        self.require = None if require is None else tuple(require)
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
        names = fit_names(model_state, state)
        fitted = {name: state[key] for key, name in names.items()}
        trains = isinstance(runner._train_loop, BaseLoop)
        require = brought_parts(model_state, fitted) if self.require is None else self.require
        if hasattr(model, 'fill_target'):
            model.fill_target(fitted)
        state.clear()
        state.update(fitted)
        if self.source == 'supervised':
            require = tuple(part for part in require if part.startswith(_SUPERVISED))
        report = match_weights(model_state, state, require if trains else ())
        runner.logger.info(f'Weights from {runner._load_from}{_renamed(names)}:\n{report.table()}')
        if not report.complete:
            raise ValueError(f'{runner._load_from}: {report.explain()}')
        if not trains:
            report.check_whole(runner._load_from)
        for key in report.not_loaded:
            del state[key]
        # Fresh tensors get the model's own values, or MMEngine would warn about each of them again.
        state.update({key: model_state[key] for key in report.unfilled})

    def before_train(self, runner: Runner) -> None:
        """Log that no checkpoint was loaded; warn if one was expected."""
        if self._loaded:
            return
        if self.source == 'random':
            runner.logger.info('The whole model starts from random weights, as requested.')
        elif self.require is None:
            runner.logger.info('The whole model starts from random weights (load_from is not set).')
        else:
            runner.logger.warning('No checkpoint was given (load_from is None): the whole '
                                  'model starts from random weights.')


def _renamed(names: dict[str, str]) -> str:
    """Return an example of each prefix that changed, as a clause for the log."""
    changed = {}
    for key, name in names.items():
        part = name.split('.')[0]
        if key.removeprefix('module.') != name and part in ('backbone', 'neck', 'roi_head'):
            changed.setdefault(part, f'{key} is {name} here')
    return f' ({", ".join(changed.values())}, and so on)' if changed else ''
