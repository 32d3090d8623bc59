"""The way back: weights of a pretraining run with the names of the detector, and the proof."""
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from mmengine.config import Config
from torch import Tensor, nn

from .. import __version__
from ..files import whole_file
from ..weights.convert import for_detector
from ..weights.names import BOX_HEAD, SHARED_LAYER
from ..weights.read import read_checkpoint
from ..weights.same_module import fed_by_another_module, shapes_of
from .build import build_detector
from .parts import Parts

_LEARNT = 'no: it learns from annotated objects'


@dataclass
class HandOver:
    """What reached the detector; see `hand_over`.

    Attributes:
        path (Path): The file with the weights.
        arrived (list[str]): Tensors of the detector that are equal to the file's, bit by bit.
        reasons (dict[str, str]): For every other tensor of the detector, why it is not in the file.
        whole (bool): Whether the whole detector was built; otherwise only its parts that the file is
            for.
    """

    path: Path
    arrived: list[str]
    reasons: dict[str, str] = field(default_factory=dict)
    whole: bool = True


def hand_over(detector: Config, parts: Parts, checkpoint: str | Path, out: str | Path) -> HandOver:
    """Write the weights of a run for the detector, and prove that all of them arrive.

    The detector is built and loads the file as MMEngine does with `load_from`. Then every tensor is
    compared bit by bit.

    Args:
        detector (Config): The output of `read_detector`.
        parts (Parts): What of the detector was pretrained.
        checkpoint (str | Path): Checkpoint of the run.
        out (str | Path): The file to write.

    Returns:
        HandOver: What arrived.

    Raises:
        ValueError: If a tensor of a pretrained part is missing or does not fit the detector.
    """
    weights = for_detector(read_checkpoint(checkpoint)['state_dict'], parts.prefixes).state_dict
    model, whole = build_detector(detector)
    check_fit(weights, model.state_dict(), parts, str(checkpoint))
    arrived = write_and_compare(weights, model, out, f'SoCo {__version__}', checkpoint)
    return HandOver(Path(out), arrived, {name: reason(name, parts) for name in model.state_dict()
                                         if name not in weights}, whole)


def write_and_compare(weights: Mapping[str, Tensor], model: nn.Module, out: str | Path, by: str,
                      checkpoint: str | Path) -> list[str]:
    """Write weights for a detector, load the file into it, and compare it with them bit by bit.

    Args:
        weights (Mapping[str, Tensor]): Weights with the names of the detector.
        model (nn.Module): The detector.
        out (str | Path): The file to write.
        by (str): What pretrained them, for the file.
        checkpoint (str | Path): Checkpoint that they are from, for the file.

    Returns:
        list[str]: See `load_and_compare`.
    """
    meta = dict(pretrained_by=by, checkpoint=str(checkpoint))
    # Not in channels_last, which tools such as safetensors refuse.
    state = {name: value.contiguous() for name, value in weights.items()}
    with whole_file(out, 'wb') as file:
        torch.save(dict(state_dict=state, meta=meta), file)
    return load_and_compare(model, read_checkpoint(out)['state_dict'], weights)


def load_and_compare(model: nn.Module, loaded: Mapping[str, Tensor],
                     weights: Mapping[str, Tensor]) -> list[str]:
    """Load weights into a detector and compare its tensors with them bit by bit.

    Args:
        model (nn.Module): The detector.
        loaded (Mapping[str, Tensor]): What a file contained.
        weights (Mapping[str, Tensor]): What was written to it.

    Returns:
        list[str]: Names of the tensors that are equal: all of them.
    """
    assert not model.load_state_dict(loaded, strict=False).unexpected_keys
    arrived = [name for name, value in model.state_dict().items()
               if name in weights and _same_bits(value, weights[name])]
    assert len(arrived) == len(weights), 'a tensor was changed on its way to the detector'
    return arrived


def _same_bits(a: Tensor, b: Tensor) -> bool:
    """Compare two tensors bit by bit, so that NaN equals NaN."""
    return a.dtype == b.dtype and a.shape == b.shape and torch.equal(
        *(value.detach().cpu().reshape(-1).contiguous().view(torch.uint8) for value in (a, b)))


def check_fit(weights: Mapping[str, Tensor], state: Mapping[str, Tensor], parts: Parts,
              source: str) -> None:
    """Check that weights are exactly those of the detector's shared parts.

    Args:
        weights (Mapping[str, Tensor]): See `for_detector`.
        state (Mapping[str, Tensor]): State dict of the detector.
        parts (Parts): What of the detector is pretrained.
        source (str): Where the weights are from, for the message.

    Raises:
        ValueError: If a tensor is missing, left over, of another shape, or of another module.
    """
    wrong = {name: why for name, why in fed_by_another_module(
        shapes_of(weights), shapes_of(state)).items() if is_shared(name, parts)}
    for name in [name for name in state if is_shared(name, parts) and name not in weights]:
        wrong.setdefault(name, 'it is not in the weights')
    for name, value in weights.items():
        if name not in state:
            wrong[name] = 'it is not in the detector'
        elif value.shape != state[name].shape:
            wrong.setdefault(name, f'it is {list(value.shape)} in the weights and '
                                   f'{list(state[name].shape)} in the detector')
    if wrong:
        name, why = next(iter(wrong.items()))
        raise ValueError(
            f'{source} does not fit the detector: {len(wrong)} tensors differ, such as {name}: {why}. '
            'The network of the run is not the one of this detector. Use the detector that the run '
            'was started for, or pretrain this one in another work directory.')


def is_shared(name: str, parts: Parts) -> bool:
    """Return whether a tensor of the detector is in a part that `SoCo` has too.

    Args:
        name (str): Name in the detector.
        parts (Parts): What of the detector is pretrained.
    """
    prefixes = tuple(theirs for several in parts.prefixes.values() for theirs in several)
    return name.startswith(prefixes) and not _branch(name)


def _branch(name: str) -> bool:
    """Return whether a tensor is in a box head but not in its shared layers."""
    return bool(re.match(BOX_HEAD, name)) and not re.fullmatch(SHARED_LAYER, name)


def reason(name: str, parts: Parts) -> str:
    """Return why a tensor of the detector is not pretrained.

    Args:
        name (str): Name in the detector.
        parts (Parts): What of the detector is pretrained.

    Returns:
        str: The reason, beginning with 'no: '.
    """
    for prefix, why in parts.reasons.items():
        if name.startswith(prefix):
            return f'no: {why}'
    if _branch(name):
        classes = re.match(rf'{BOX_HEAD}fc_(cls|reg)', name)
        return ('no: classifier and regressor learn the classes' if classes else
                'no: SoCo runs only the layers that all outputs of the box head share')
    if name.startswith('roi_head.bbox_roi_extractor.'):
        return 'no: SoCo pools with RoIAlign, which has no parameters'
    return _LEARNT
