"""Which tensors of two networks belong to the same module: what feeds what, before name and shape."""
import re
from collections.abc import Mapping

from torch import Tensor

from .names import PYRAMID_LEVEL, SHARED_LAYER, SHARED_LAYERS

COUNTER = '.num_batches_tracked'  # old files lack it; BN does not use it

Shapes = Mapping[str, tuple[int, ...]]  # of tensors by name


def shapes_of(state: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    """Return the shapes of a state dict, whose keys lose a leading 'module.'."""
    return {key.removeprefix('module.'): tuple(getattr(value, 'shape', ()))
            for key, value in state.items()}


def fed_by_another_module(theirs: Shapes, ours: Shapes) -> dict[str, str]:
    """Find the layers of two networks that have the same name but not the same place.

    A `shared_fcs.0` behind four convs is not the one of a head without convs, although both have the
    same shape: a layer of a box head is the same only if all layers before it are. An output conv of a
    pyramid is the same only if the lateral conv of its level is, or if neither has one.

    Args:
        theirs (Mapping[str, tuple]): Shapes of the weights, with the model's names.
        ours (Mapping[str, tuple]): Shapes of the model.

    Returns:
        dict[str, str]: For each tensor of the model behind the first difference, what differs.
    """
    return {**_other_head_layers(theirs, ours), **_other_levels(theirs, ours)}


def _other_head_layers(theirs: Shapes, ours: Shapes) -> dict[str, str]:
    found: dict[str, str] = {}
    chains = _chains(theirs), _chains(ours)
    for head in chains[0].keys() & chains[1].keys():
        (their_layers, our_layers) = (list(chain[head].items()) for chain in chains)
        if their_layers == our_layers:
            continue
        same = next((i for i, (a, b) in enumerate(zip(their_layers, our_layers)) if a != b),
                    min(len(their_layers), len(our_layers)))
        their_name, our_name = (layers[same][0] if same < len(layers) else 'nothing'
                                for layers in (their_layers, our_layers))
        why = f'layer {same + 1} of the box head ({head.rstrip(".")}) is '
        why += (f'{our_name} in the model and {their_name} in the weights' if our_name != their_name
                else f'{our_name} with other tensors in the weights')
        before = {name for name, _ in our_layers[:same]}
        found.update({key: why for key in ours if key.startswith(head) and not (
            (layer := re.fullmatch(SHARED_LAYER, key)) and f'{layer[2]}.{layer[3]}' in before)})
    return found


def _chains(shapes: Shapes) -> dict[str, dict[str, Shapes]]:
    """Return the shapes of each box head's shared layers, in the order of the data."""
    chains: dict[str, dict[tuple[str, int], dict]] = {}
    for name, shape in shapes.items():
        if (layer := re.fullmatch(SHARED_LAYER, name)) and not name.endswith(COUNTER):
            chains.setdefault(layer[1], {}).setdefault((layer[2], int(layer[3])), {})[layer[4]] = shape
    return {head: {f'{kind}.{i}': tensors for (kind, i), tensors in sorted(
        layers.items(), key=lambda item: (SHARED_LAYERS.index(item[0][0]), item[0][1]))}
        for head, layers in chains.items()}


def _other_levels(theirs: Shapes, ours: Shapes) -> dict[str, str]:
    levels = [_lateral_convs(shapes) for shapes in (theirs, ours)]
    found = {}
    for name in ours:
        conv = re.fullmatch(PYRAMID_LEVEL, name)
        if not conv or conv[2] != 'fpn' or not all(conv[1] in laterals for laterals in levels):
            continue
        their_input, our_input = (laterals[conv[1]].get(int(conv[3])) for laterals in levels)
        if their_input != our_input:
            found[name] = (f'{conv[1]}fpn_convs.{conv[3]} is behind a lateral conv of shape '
                           f'{_text(our_input)} in the model and {_text(their_input)} in the weights')
    return found


def _text(shape: tuple[int, ...] | None) -> str:
    return str(list(shape)) if shape else '(none: an additional level)'


def _lateral_convs(shapes: Shapes) -> dict[str, dict[int, tuple[int, ...]]]:
    """Return the shapes of each pyramid's lateral convs by level."""
    found: dict[str, dict[int, tuple[int, ...]]] = {}
    for name, shape in shapes.items():
        conv = re.fullmatch(PYRAMID_LEVEL, name)
        if conv and conv[2] == 'lateral' and conv[4] == 'conv.weight':
            found.setdefault(conv[1], {})[int(conv[3])] = shape
    return found
