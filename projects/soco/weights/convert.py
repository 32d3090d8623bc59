"""Weights between formats, strict: every key is moved, or dropped by a named rule, or an error.

All goes through our own names, by the tables of `names`, which are read both ways; so a round
trip is exact.
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
from .names import FPN_SIGNS, LEFT_IN, LEFT_OUT, OTHER_KINDS, SIGNS, TARGETS, name_table


@dataclass(frozen=True)
class Conversion:
    """Weights in another format, and what became of every key.

    Attributes:
        state_dict (dict): The tensors under their new names.
        source (str): Format of the input: 'official', or one of `TARGETS`.
        target (str): Format of `state_dict`, one of `TARGETS`.
        family (str): 'FPN' (SoCo* too) or 'C4'.
        dropped (dict): Name of a rule to the keys of the input that it dropped.
    """

    state_dict: dict[str, Tensor]
    source: str
    target: str
    family: str
    dropped: dict[str, list[str]]


def convert(state_dict: dict[str, Tensor], to: str, source: str | None = None,
            c4: bool = False) -> Conversion:
    """Give weights the names of another format.

    Args:
        state_dict (dict): Weights of a SoCo model, ours or official, or what this function made of
            some; with or without the prefix `module.`.
        to (str): One of `TARGETS`.
        source (str, optional): Format of the input. Defaults to None: its names tell.
        c4 (bool): The input is a plain ResNet, and its last stage is to become the RoI head of C4.
            Defaults to False.

    Raises:
        ValueError: The format is unknown, or keys have no place in it; the message names them.
    """
    if to not in TARGETS:
        raise ValueError(f'Weights can be converted to {", ".join(TARGETS)}, not to {to!r}.')
    keys = {key: key.removeprefix('module.') for key in state_dict}
    source = source or source_format(keys.values())
    if source is None:
        raise ValueError(f'These are not weights of SoCo: {describe(keys.values())}. Expected are '
                         'those of a pretraining of this project or of the official code (encoder.), '
                         'or of a ResNet (conv1., layer1.).')
    if c4 and source != 'torchvision':
        raise ValueError('Only a plain ResNet does not tell by itself whether it is for C4. These '
                         f'weights ({source}) do: leave the option out.')
    family = 'C4' if c4 or not _any(FPN_SIGNS[source], keys.values()) else 'FPN'
    dropped: dict[str, list[str]] = {}
    to_ours = {theirs: ours for ours, theirs in name_table(source, family).items()}
    ours = _rename(keys, to_ours, LEFT_IN.get(source, {}), dropped, f'{source} ({family})')
    new = _rename(ours, name_table(to, family), LEFT_OUT.get(to, {}), dropped, to)
    if not new:
        raise ValueError(f'Nothing of these weights ({source}) has a place in {to}: they hold '
                         f'{", ".join(dropped) or "no tensor"} only.')
    return Conversion({name: state_dict[key] for key, name in new.items()}, source, to, family,
                      dropped)


def from_official(state_dict: dict[str, Tensor]) -> dict[str, Tensor]:
    """Rename the weights of an official SoCo model to ours.

    Args:
        state_dict (dict): Of an official SoCo-FPN, SoCo* or SoCo-C4 model, with or without the
            prefix `module.`.

    Returns:
        dict: The same tensors for `SoCo`, online and target network.

    Raises:
        ValueError: A key is none of the official model's; the message names it.
    """
    return convert(state_dict, 'soco', source='official').state_dict


def _any(pattern: str, keys: Iterable[str]) -> bool:
    return any(re.match(pattern, key) for key in keys)


def source_format(keys: Iterable[str]) -> str | None:
    """Return the format of weights, by their names: 'official', one of `TARGETS`, or None.

    Args:
        keys (Iterable[str]): Names of tensors, without the prefix `module.`.
    """
    keys = list(keys)
    return next((name for name, sign in SIGNS.items() if _any(sign, keys)), None)


def describe(keys: Iterable[str]) -> str:
    """Return what weights look like and what fits them, as a clause for a message.

    Args:
        keys (Iterable[str]): Names of tensors, without the prefix `module.`.
    """
    keys = list(keys)
    tops = sorted({key.split('.')[0] for key in keys})
    if _any(SIGNS['official'], keys) or {'model', 'opt'} <= set(tops):
        return ('it looks like a checkpoint of the official SoCo code, which is to be converted first: '
                'python tools/convert_weights.py FILE OUT.pth --to mmdet')
    for kind, sign in OTHER_KINDS.items():
        if _any(sign, keys):
            return f'it looks like {kind}'
    return f'its names begin with {", ".join(tops[:8]) or "nothing at all"}'


def _rename(keys: dict[str, str], table: dict[str, str], rules: dict[str, str],
            dropped: dict[str, list[str]], what: str) -> dict[str, str]:
    """Rename the values of `keys` by a table; the keys that a rule leaves out go to `dropped`."""
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
            f'{", ".join(unknown[:20])}{more}. As a whole, {describe(keys.values())}. Expected are '
            'backbone, neck and RoI head of a pretraining, with or without its projector, predictor '
            'and target network.')
    if len(set(renamed.values())) < len(renamed):
        raise ValueError('Several keys would get the same name: some have the prefix module. and '
                         'some have not. Give the weights of one model.')
    return renamed


def check_output(path: PathLike, to: str, overwrite: bool = False) -> None:
    """Refuse a place that weights cannot be written to, before any work is done.

    Raises:
        ValueError: A suffix that the format has not.
        FileExistsError: The file is there, and `overwrite` is False.
    """
    suffix, known = Path(path).suffix, ['.pth', '.safetensors'] + ['.pkl'] * (to == 'detectron2')
    if suffix not in known:
        why = ' Only detectron2 reads .pkl.' if suffix == '.pkl' else ''
        raise ValueError(f'{path}: weights for {to} are written as {" or ".join(known)}, not as '
                         f'{suffix or "a file without suffix"}.{why}')
    if Path(path).exists() and not overwrite:
        raise FileExistsError(f'{path} exists: choose another name, or --overwrite it.')


def write_weights(conversion: Conversion, path: PathLike, overwrite: bool = False) -> None:
    """Write converted weights: whole, or not at all.

    Args:
        conversion (Conversion): What `convert` returned.
        path (PathLike): .pth or .safetensors, and .pkl for detectron2.
        overwrite (bool): Replace a file that is there. Defaults to False.

    Raises:
        ValueError: See `check_output`.
        FileExistsError: See `check_output`.
    """
    check_output(path, conversion.target, overwrite)
    write_whole(path, encode_weights(conversion, Path(path).suffix))


def encode_weights(conversion: Conversion, suffix: str,
                   about: dict[str, str] | None = None) -> memoryview:
    """Make the bytes of a file of weights; the same weights give the same bytes.

    Args:
        conversion (Conversion): What `convert` returned.
        suffix (str): '.pth' or '.safetensors', and '.pkl' for detectron2.
        about (dict, optional): More metadata, for .safetensors and mmdet's and our own .pth.
    """
    # clones, for a view would bring the whole of what it is a view of
    weights = {name: value.detach().clone(memory_format=torch.contiguous_format)
               for name, value in conversion.state_dict.items()}
    meta = dict(converted_from=conversion.source, names=conversion.target, family=conversion.family,
                soco_version=__version__, **(about or {}))
    buffer = io.BytesIO()
    if suffix == '.safetensors':
        buffer.write(_with_metadata(safetensors.torch.save(weights), {'format': 'pt', **meta}))
    elif suffix == '.pkl':
        # With `__author__` detectron2 takes the file as its own; with `matching_heuristics` False it
        # takes the names as they are, and does not look for similar endings.
        arrays = {name: value.numpy() for name, value in weights.items()}
        _ArrayPickler(buffer, protocol=4).dump(
            {'model': arrays, '__author__': 'SoCo', 'matching_heuristics': False})
    else:
        torch.save({'torchvision': weights, 'detectron2': dict(model=weights)}.get(
            conversion.target, dict(state_dict=weights, meta=meta)), buffer)
    return buffer.getbuffer()


def _with_metadata(data: bytes, meta: dict[str, str]) -> bytes:
    """Put metadata into the header of .safetensors; the library itself writes them in any order."""
    size = int.from_bytes(data[:8], 'little')
    header = json.dumps({'__metadata__': meta, **json.loads(data[8:8 + size])}).encode()
    header += b' ' * (-len(header) % 8)
    return len(header).to_bytes(8, 'little') + header + data[8 + size:]


class _ArrayPickler(pickle.Pickler):
    """Names only `numpy.ndarray`; NumPy 2 by itself names modules that NumPy 1 has not."""

    def reducer_override(self, value: object) -> Any:
        if isinstance(value, np.ndarray):
            return np.ndarray, (value.shape, value.dtype.str, bytearray(value.tobytes()))
        return NotImplemented
