"""Writing of converted weights, in the form that each library reads."""
import io
import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch

from .. import __version__
from ..files import PathLike, write_whole
from .convert import Conversion


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
