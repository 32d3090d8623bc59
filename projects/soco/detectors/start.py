"""The weights that a pretraining starts from, compared with its network before anything is made."""
from pathlib import Path

from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope

from ..compat.cpu import cpu_config
from ..weights.convert import resnet_depth
from ..weights.match import WeightsReport, fit_names, match_weights
from ..weights.read import read_weights
from .build import quiet

_SHARED_HEAD = 'roi_head.shared_head'  # the last stage of the backbone in C4 detectors


def check_start(derived: Config, weights: Path) -> WeightsReport:
    """Compare weights with the network of a derived config, as the run will load them.

    The backbone must arrive completely. Of neck and box head, what is the same module is loaded. The
    config is changed so that the run requires the same.

    Args:
        derived (Config): The output of `derive`; its `PretrainedWeightsHook` is changed in place.
        weights (Path): Weights of any library (docs/weights.md).

    Returns:
        WeightsReport: What matches.

    Raises:
        ValueError: If the file cannot be read, or its backbone is not that of the detector.
    """
    state = read_weights(weights)
    with DefaultScope.overwrite_default_scope(derived.default_scope), quiet():
        ours = MODELS.build(cpu_config(derived).model).state_dict()
    require = ['backbone']
    if any(key.startswith(f'{_SHARED_HEAD}.') for key in ours):
        require.append(_SHARED_HEAD)
    names = fit_names(ours, state)
    ours = {key: value for key, value in ours.items() if not key.startswith('target.')}
    report = match_weights(ours, {names[key]: value for key, value in state.items()}, require)
    if not report.complete:
        raise ValueError(f'{weights} does not contain the backbone of this detector: '
                         f'{_difference(report)} Use weights of the same architecture (docs/weights.md '
                         'says what is recognised), or omit --weights.')
    derived.default_hooks.pretrained.require = require
    return report


def _difference(report: WeightsReport) -> str:
    found, total = report.required
    key = next(iter(report.lacking), 'backbone')
    theirs, ours = report.mismatched.get(key, ((), ()))
    what = f'{key} is {list(theirs)} there and {list(ours)} here' if theirs else f'{key} is not there'
    text = f'{found} of {total} tensors match; {what}.'
    depths = [resnet_depth([*report.matched, *names]) for names in (report.not_loaded, report.unfilled)]
    if all(depths) and depths[0] != depths[1]:
        return f'{text} It has a {depths[0]}, and the detector a {depths[1]}.'
    names = [*report.matched, *report.not_loaded]
    return f'{text} Names in the file begin as in {names[0]}.' if names else text
