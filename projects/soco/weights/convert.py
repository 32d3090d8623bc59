"""Strict conversion of weights: every key is renamed, dropped by a named rule, or an error.

Every conversion goes through this project's names, with the tables of `names`, which are used in both
directions; a round trip is therefore exact.
"""
import io
import json
import pickle
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from torch import Tensor

from .. import __version__
from ..files import PathLike, write_whole
from .names import (
    FPN_SIGNS,
    LEFT_IN,
    LEFT_OUT,
    OTHER_BACKBONE,
    OTHER_KINDS,
    SAME_NAMES,
    SIGNS,
    TARGETS,
    name_table,
)


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
    source = source or source_format(keys.values())
    if source is None:
        raise ValueError(f'These are not weights of SoCo: {describe(keys.values())}. Use '
                         'those of a pretraining run of this project or of the official code '
                         '(encoder.), or of a ResNet (conv1., layer1.).')
    if c4 and source != 'torchvision':
        raise ValueError('The option for C4 is only for a plain ResNet, whose keys do not show whether '
                         f'it is for C4. The keys of these weights ({source}) do: omit the option.')
    family = 'C4' if c4 or not _any(FPN_SIGNS[source], keys.values()) else 'FPN'
    dropped: dict[str, list[str]] = {}
    to_ours = {theirs: ours for ours, theirs in name_table(source, family).items()}
    from_ours = name_table(to, family)
    if {source, to} <= SAME_NAMES:  # the tables contain ResNet; any other backbone keeps its names
        others = {name: name for name in keys.values() if re.match(OTHER_BACKBONE, name)}
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


def _any(pattern: str, keys: Iterable[str]) -> bool:
    return any(re.match(pattern, key) for key in keys)


def source_format(keys: Iterable[str]) -> str | None:
    """Detect the format of weights from their names.

    Args:
        keys (Iterable[str]): Names of tensors, without the prefix `module.`.

    Returns:
        str, optional: 'official', one of `TARGETS`, or None if no format matches.
    """
    keys = list(keys)
    return next((name for name, sign in SIGNS.items() if _any(sign, keys)), None)


def describe(keys: Iterable[str]) -> str:
    """Describe what weights look like and where they fit, as a clause for an error message.

    Args:
        keys (Iterable[str]): Names of tensors, without the prefix `module.`.

    Returns:
        str: A clause without a capital letter and a full stop.
    """
    keys = list(keys)
    tops = sorted({key.split('.')[0] for key in keys})
    if _any(SIGNS['official'], keys) or {'model', 'opt'} <= set(tops):
        return ('it looks like a checkpoint of the official SoCo code, which must be converted first: '
                'python tools/convert_weights.py FILE OUT.pth --to mmdet')
    for kind, sign in OTHER_KINDS.items():
        if _any(sign, keys):
            return f'it looks like {kind}'
    return f'its keys begin with {", ".join(tops[:8]) or "nothing at all"}'


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


def check_output(path: PathLike, to: str, overwrite: bool = False) -> None:
    """Check that weights can be written to a path, before any work is done.

    Args:
        path (PathLike): The output file.
        to (str): Format of the weights, one of `TARGETS`.
        overwrite (bool): Whether an existing file may be replaced. Defaults to False.

    Raises:
        ValueError: If the format does not support the suffix.
        FileExistsError: If the file exists and `overwrite` is False.
    """
    suffix, known = Path(path).suffix, ['.pth', '.safetensors'] + ['.pkl'] * (to == 'detectron2')
    if suffix not in known:
        why = ' Only detectron2 reads .pkl.' if suffix == '.pkl' else ''
        raise ValueError(f'{path}: weights for {to} are written as {" or ".join(known)}, not as '
                         f'{suffix or "a file without suffix"}.{why}')
    if Path(path).exists() and not overwrite:
        raise FileExistsError(f'{path} exists: choose another name, or add --overwrite.')


def write_weights(conversion: Conversion, path: PathLike, overwrite: bool = False) -> None:
    """Write converted weights, whole or not at all.

    Args:
        conversion (Conversion): Output of `convert`.
        path (PathLike): The output file: .pth or .safetensors, and .pkl for detectron2.
        overwrite (bool): Whether to replace an existing file. Defaults to False.

    Raises:
        ValueError: See `check_output`.
        FileExistsError: See `check_output`.
    """
    check_output(path, conversion.target, overwrite)
    write_whole(path, encode_weights(conversion, Path(path).suffix))


def encode_weights(conversion: Conversion, suffix: str,
                   about: dict[str, str] | None = None) -> memoryview:
    """Return the bytes of a weight file; the same weights give the same bytes.

    Args:
        conversion (Conversion): Output of `convert`.
        suffix (str): '.pth' or '.safetensors', and '.pkl' for detectron2.
        about (dict, optional): Further metadata, for .safetensors and for the .pth of mmdet and of
            this project. Defaults to None.

    Returns:
        memoryview: Content of the file.
    """
    # clones, because a view would be written with its whole storage
    weights = {name: value.detach().clone(memory_format=torch.contiguous_format)
               for name, value in conversion.state_dict.items()}
    meta = dict(converted_from=conversion.source, names=conversion.target, family=conversion.family,
                soco_version=__version__, **(about or {}))
    buffer = io.BytesIO()
    if suffix == '.safetensors':
        buffer.write(_with_metadata(safetensors.torch.save(weights), {'format': 'pt', **meta}))
    elif suffix == '.pkl':
        # With `__author__`, detectron2 treats the file as its own format. With `matching_heuristics`
        # False, it uses the names as they are and does not match by similar endings.
        arrays = {name: value.numpy() for name, value in weights.items()}
        _ArrayPickler(buffer, protocol=4).dump(
            {'model': arrays, '__author__': 'SoCo', 'matching_heuristics': False})
    else:
        torch.save({'torchvision': weights, 'detectron2': dict(model=weights)}.get(
            conversion.target, dict(state_dict=weights, meta=meta)), buffer)
    return buffer.getbuffer()


def _with_metadata(data: bytes, meta: dict[str, str]) -> bytes:
    """Add metadata to the header of .safetensors; the library writes them in arbitrary order."""
    size = int.from_bytes(data[:8], 'little')
    header = json.dumps({'__metadata__': meta, **json.loads(data[8:8 + size])}).encode()
    header += b' ' * (-len(header) % 8)
    return len(header).to_bytes(8, 'little') + header + data[8 + size:]


class _ArrayPickler(pickle.Pickler):
    """Pickler that refers only to `numpy.ndarray`; NumPy 2 refers to modules that NumPy 1 lacks."""

    def reducer_override(self, value: object) -> Any:
        if isinstance(value, np.ndarray):
            return np.ndarray, (value.shape, value.dtype.str, bytearray(value.tobytes()))
        return NotImplemented
