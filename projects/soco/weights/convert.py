"""Strict conversion of weights: every key is renamed, dropped by a named rule, or an error.

Every conversion goes through this project's names, with the tables of `names`, which are used in both
directions; a round trip is therefore exact.
"""
import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from torch import Tensor

from .names import (
    DETECTORS,
    FPN_SIGNS,
    LEFT_IN,
    LEFT_OUT,
    OTHER_KINDS,
    RESNET,
    SAME_NAMES,
    SECOND_NETWORK,
    SIGNS,
    TARGETS,
    name_table,
)

_PYRAMID_OR_HEAD = r'(neck\.(lateral|fpn)_convs|roi_head)\.'  # more than a backbone


@dataclass(frozen=True)
class Conversion:
    """Weights in another format, and what happened to every key.

    Attributes:
        state_dict (dict): The tensors under their new names.
        source (str): Format of the input: 'official', or one of `TARGETS`.
        target (str): Format of `state_dict`, one of `TARGETS`.
        family (str): 'FPN' (also SoCo*) or 'C4'.
        dropped (dict): For each rule, by its name, the keys of the input that it dropped.
    """

    state_dict: dict[str, Tensor]
    source: str
    target: str
    family: str
    dropped: dict[str, list[str]]


def convert(state_dict: dict[str, Tensor], to: str, source: str | None = None,
            c4: bool = False) -> Conversion:
    """Rename weights to another format.

    Args:
        state_dict (dict): Weights of a SoCo model, ours or official, or an output of this function;
            with or without the prefix `module.`.
        to (str): One of `TARGETS`.
        source (str, optional): Format of the input. Defaults to None: detected from the names.
        c4 (bool): Whether the input is a plain ResNet whose last stage becomes the RoI head of C4.
            Defaults to False.

    Returns:
        Conversion: The renamed weights, and what happened to every key.

    Raises:
        ValueError: If the format is unknown, or it has no name for some keys; the message lists them.
    """
    if to not in TARGETS:
        raise ValueError(f'Weights can be converted to {", ".join(TARGETS)}, not to {to!r}.')
    keys = {key: key.removeprefix('module.') for key in state_dict}
    dropped: dict[str, list[str]] = {}
    source = source or source_format(keys.values())
    resnet = set(name_table('torchvision', 'FPN').values())
    if source is None and (prefix := find_network(keys.values(), resnet)) is not None:
        source = 'torchvision'  # a plain ResNet inside the network of another method
        dropped[f'not under {prefix}'] = [k for k, name in keys.items() if not name.startswith(prefix)]
        keys = {key: name.removeprefix(prefix) for key, name in keys.items() if name.startswith(prefix)}
    if source == 'detectron2' and not _any(r'backbone\.', keys.values()):  # such as R-50.pkl
        keys = {key: f'backbone.bottom_up.{name}' for key, name in keys.items()}
    if source is None:
        raise ValueError(f'These are not weights of SoCo: {describe(keys.values())}. Use '
                         'those of a pretraining run of this project or of the official code '
                         '(encoder.), or of a ResNet (conv1., layer1.), also inside the network of '
                         'another method (encoder_q., teacher.backbone., …).')
    if c4 and source != 'torchvision':
        raise ValueError('The option for C4 is only for a plain ResNet, whose keys do not show whether '
                         f'it is for C4. The keys of these weights ({source}) do: omit the option.')
    family = _family(source, keys.values(), c4)
    to_ours = {theirs: ours for ours, theirs in name_table(source, family).items()}
    from_ours = name_table(to, family)
    if {source, to} <= SAME_NAMES and not set(RESNET) <= set(keys.values()):
        others = {name: name for name in keys.values() if re.match(r'(target\.)?backbone\.', name)}
        to_ours = {**to_ours, **others}
        from_ours = {**from_ours, **{name: name for name in others
                                     if to == 'soco' or name.startswith('backbone.')}}
    ours = _rename(keys, to_ours, LEFT_IN.get(source, {}), dropped, f'{source} ({family})')
    new = _rename(ours, from_ours, LEFT_OUT.get(to, {}), dropped, to)
    if not new:
        raise ValueError(f'Nothing in these weights ({source}) can be converted to {to}: they contain '
                         f'{", ".join(dropped) or "no tensor"} only.')
    return Conversion({name: state_dict[key] for key, name in new.items()}, source, to, family,
                      dropped)


def names_in_detector(name: str, prefixes: Mapping[str, Iterable[str]]) -> list[str]:
    """Return the names that a tensor of `SoCo` has in the detector that it was derived from.

    Args:
        name (str): Name in the state dict of `SoCo`.
        prefixes (Mapping[str, Iterable[str]]): For each prefix of keys in `SoCo`, those in the
            detector.

    Returns:
        list[str]: None for a tensor of pretraining alone; one for each stage of a cascade.
    """
    return [theirs + name.removeprefix(ours) for ours, several in prefixes.items()
            if name.startswith(ours) for theirs in several]


def for_detector(state_dict: Mapping[str, Tensor], prefixes: Mapping[str, Iterable[str]]) -> Conversion:
    """Rename the weights of a `SoCo` model to those of the detector that it was derived from.

    Args:
        state_dict (Mapping[str, Tensor]): Weights of a SoCo model.
        prefixes (Mapping[str, Iterable[str]]): See `names_in_detector`.

    Returns:
        Conversion: The weights with the names of the detector and nothing else.
    """
    new: dict[str, Tensor] = {}
    dropped: dict[str, list[str]] = {}
    for key, value in state_dict.items():
        names = names_in_detector(key, prefixes)
        new.update(dict.fromkeys(names, value))
        if not names:
            rule = next((rule for rule, begin in LEFT_OUT['mmdet'].items() if re.match(begin, key)),
                        'RoI head of pretraining alone')
            dropped.setdefault(rule, []).append(key)
    return Conversion(new, 'soco', 'mmdet', _family('soco', new), dropped)


def from_official(state_dict: dict[str, Tensor]) -> dict[str, Tensor]:
    """Rename the weights of an official SoCo model to ours.

    Args:
        state_dict (dict): Weights of an official SoCo-FPN, SoCo* or SoCo-C4 model, with or without
            the prefix `module.`.

    Returns:
        dict: The same tensors for `SoCo`, online and target network.

    Raises:
        ValueError: If a key is not one of the official model; the message contains it.
    """
    return convert(state_dict, 'soco', source='official').state_dict


def rename_to_ours(keys: Iterable[str], inside: Mapping[str, str], names: Collection[str]
                   ) -> dict[str, str]:
    """Return this project's name of each tensor of a file, whatever library or method wrote it.

    Nothing is an error: a tensor that the model has no place for keeps its name, with `other.` before
    it if the model uses this name for something else.

    Args:
        keys (Iterable[str]): Names in the file.
        inside (Mapping[str, str]): For each name inside the model's backbone, such as
            'layer1.0.conv1.weight', the name in the model.
        names (Collection[str]): All names in the model.

    Returns:
        dict[str, str]: For each name of the file, ours.
    """
    short = {key: key.removeprefix('module.') for key in keys}
    if set(short.values()) <= set(names):  # of this very model
        return short
    source = source_format(short.values())
    if source in ('official', 'detectron2'):
        return _rename_by_table(short, source, inside)
    prefix = find_network(short.values(), inside)
    if prefix is None:
        return short
    root = re.sub(r'backbone\.(timm_model\.)?$', '', prefix)
    around = [name.removeprefix(root) for name in short.values() if name.startswith(root)]
    alone = not _any(_PYRAMID_OR_HEAD, around)
    # The projector and the predictor of another method have no meaning here, whatever their names.
    foreign = 'no key' if source_format(around) == 'soco' else r'(projector|head\.predictor|target)\.'
    renamed = {}
    for key, name in short.items():
        new = f'other.{name}' if name in names else name
        if name.startswith(prefix):
            inner = name.removeprefix(prefix)
            ours = inside.get(inner, f'backbone.{inner}')
            new = ours if alone or ours.startswith('backbone.') else f'backbone.{inner}'
        elif root != prefix and name.startswith(root):
            rest = name.removeprefix(root)
            new = rest if not re.match(foreign, rest) else new
        renamed[key] = new
    return renamed


def _rename_by_table(short: Mapping[str, str], source: str, inside: Mapping[str, str]
                     ) -> dict[str, str]:
    """Return our names of official or detectron2's weights; other names stay as they are."""
    family = _family(source, short.values())
    table = {theirs: ours for ours, theirs in name_table(source, family).items()}
    if not _any(r'backbone\.', short.values()) and source == 'detectron2':  # such as R-50.pkl
        table = {theirs.removeprefix('backbone.bottom_up.'): ours for theirs, ours in table.items()}
    renamed = {key: table.get(name, name) for key, name in short.items()}
    if not _any(_PYRAMID_OR_HEAD, renamed.values()):  # a backbone alone fits TIMMBackbone and C4, too
        renamed = {key: inside.get(name.removeprefix('backbone.'), name)
                   for key, name in renamed.items()}
    return renamed


def find_network(keys: Iterable[str], inside: Collection[str]) -> str | None:
    """Return what comes before a network's own names in the names of a file, or None.

    Of several networks of the same kind, the first is the one that is trained (MoCo's query encoder) or
    the one that its authors use (DINO's teacher); see `SECOND_NETWORK`.

    Args:
        keys (Iterable[str]): Names in the file, without the prefix `module.`.
        inside (Collection[str]): Names of the network itself, such as 'layer1.0.conv1.weight'.

    Returns:
        str, optional: Such as 'encoder_q.'; '' for a bare network; None if there is no such network.
    """
    keys = list(keys)
    counts: Counter[str] = Counter()
    for key in keys:
        parts = key.split('.')
        for i in range(len(parts)):
            if '.'.join(parts[i:]) in inside:
                counts[''.join(f'{part}.' for part in parts[:i])] += 1
    if not counts:
        return None
    most = max(counts.values())
    prefix = min((prefix for prefix, count in counts.items() if count == most),
                 key=lambda prefix: (bool(re.match(SECOND_NETWORK, prefix)),
                                     not re.search(r'(^|\.)backbone\.', prefix), len(prefix)))
    there = sum(key.startswith(prefix) for key in keys)
    enough = most >= min(20, len(inside)) and 2 * most >= min(len(inside), there)
    return prefix if enough else None


def _any(pattern: str, keys: Iterable[str]) -> bool:
    return any(re.match(pattern, key) for key in keys)


def _family(source: str, keys: Iterable[str], c4: bool = False) -> str:
    return 'C4' if c4 or not _any(FPN_SIGNS[source], keys) else 'FPN'


def source_format(keys: Iterable[str]) -> str | None:
    """Detect the format of weights from their names.

    Args:
        keys (Iterable[str]): Names of tensors, without the prefix `module.`.

    Returns:
        str, optional: 'official', one of `TARGETS`, or None if no format matches.
    """
    keys = list(keys)
    return next((name for name, signs in SIGNS.items()
                 if all(_any(sign, keys) for sign in signs)), None)


def describe(keys: Iterable[str]) -> str:
    """Describe what weights look like and where they fit, as a clause for an error message.

    Args:
        keys (Iterable[str]): Names of tensors, without the prefix `module.`.

    Returns:
        str: A clause without a capital letter and a full stop.
    """
    keys = list(keys)
    tops = sorted({key.split('.')[0] for key in keys})
    if source_format(keys) == 'official':
        return 'it looks like a checkpoint of the official SoCo code'
    for kind, sign in OTHER_KINDS.items():
        if _any(sign, keys):
            backbone = resnet_depth(keys)
            detector = DETECTORS.get((kind, backbone))
            return (f'it looks like {kind}' + f' with a {backbone}' * bool(detector)
                    + f', which fits detectors such as {detector}' * bool(detector))
    return f'its keys begin with {", ".join(tops[:8]) or "nothing at all"}'


def resnet_depth(keys: Iterable[str]) -> str | None:
    """Return the name of a ResNet with these tensors, such as 'ResNet-50'; None if it is no ResNet.

    Args:
        keys (Iterable[str]): This project's names of weights.
    """
    blocks: dict[str, set[str]] = {}
    deep = False
    for key in keys:
        found = re.match(r'(?:backbone|roi_head\.shared_head)\.layer(\d)\.(\d+)\.conv(\d)\.', key)
        if found:
            blocks.setdefault(found[1], set()).add(found[2])
            deep |= found[3] == '3'
    counts = tuple(len(blocks[stage]) for stage in sorted(blocks))
    depths = {(2, 2, 2, 2): 18, (3, 4, 6, 3): 50 if deep else 34, (3, 4, 23, 3): 101,
              (3, 8, 36, 3): 152}
    if not counts:
        return None
    return f'ResNet-{depths[counts]}' if counts in depths else f'ResNet with {counts} blocks'


def _rename(keys: dict[str, str], table: dict[str, str], rules: dict[str, str],
            dropped: dict[str, list[str]], what: str) -> dict[str, str]:
    """Rename the values of `keys` by a table; add the keys that a rule drops to `dropped`."""
    renamed: dict[str, str] = {}
    unknown = []
    for key, name in keys.items():
        rule = next((rule for rule, begin in rules.items() if re.match(begin, name)), None)
        if name in table:
            renamed[key] = table[name]
        elif rule:
            dropped.setdefault(rule, []).append(key)
        else:
            unknown.append(key)
    if unknown:
        more = f' and {len(unknown) - 20} more' if len(unknown) > 20 else ''
        raise ValueError(
            f'{len(unknown)} of {len(keys)} keys are not those of SoCo weights, {what}: '
            f'{", ".join(unknown[:20])}{more}. As a whole, {describe(keys.values())}. Use the '
            'backbone, neck and RoI head of a pretraining run, with or without its projector, '
            'predictor and target network.')
    if len(set(renamed.values())) < len(renamed):
        raise ValueError('Several keys would get the same name: some have the prefix module. and '
                         'some do not. Use the weights of a single model.')
    return renamed
