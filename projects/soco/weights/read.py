"""Functions that read weights and checkpoints without running code that a file contains."""
import argparse
import pickle
import re
from collections.abc import Sequence
from pathlib import Path

import safetensors.torch
import torch
from mmengine.logging import MMLogger
from safetensors import SafetensorError
from torch import Tensor

from ..files import PathLike


def _first_line(error: Exception) -> str:
    found = re.search(r'Unsupported (global: GLOBAL|operand) \S+', str(error))
    return found[0] if found else (str(error).splitlines() or [type(error).__name__])[0]


def load_plain(path: PathLike, map_location: str = 'cpu', allow: Sequence[type] = ()) -> dict:
    """Read a file of tensors and plain values without running code that it contains.

    Args:
        path (PathLike): A file written by `torch.save`.
        map_location (str): Device of the tensors. Defaults to 'cpu'.
        allow (Sequence[type]): Harmless classes that it may also contain. Defaults to none.

    Returns:
        dict: Content of the file, which is not empty.

    Raises:
        FileNotFoundError: If the file does not exist.
        ValueError: If the file is not a checkpoint, is cut off, or contains more than tensors and
            plain values.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f'There is no checkpoint at {path}. Check the path; the checkpoints '
                                'of a run are in its work directory as epoch_*.pth or iter_*.pth.')
    try:
        with torch.serialization.safe_globals(list(allow)):
            content = torch.load(path, map_location=map_location, weights_only=True)
    except pickle.UnpicklingError as error:
        official = (' Convert an official SoCo checkpoint first: python '
                    f'tools/convert_weights.py {path} OUT.pth --to mmdet'
                    if 'argparse.Namespace' in str(error) else '')
        raise ValueError(f'{path} contains more than tensors and plain Python values, which could run '
                         'code when loaded, or is not a checkpoint; it was not loaded '
                         f'({_first_line(error)}).{official}') from error
    except OSError:
        raise
    except Exception as error:  # on other bytes the unpickler may raise any error
        raise ValueError(f'{path} is not a checkpoint or is cut off ({_first_line(error)}). Use '
                         'another checkpoint of the run, or copy the file again.') from error
    if not isinstance(content, dict) or not content:
        raise ValueError(f'{path} contains a {type(content).__name__}, not a checkpoint with weights.')
    return content


def read_checkpoint(path: PathLike, map_location: str = 'cpu') -> dict:
    """Read a checkpoint of this project or of mmdet; see `load_plain`.

    Args:
        path (PathLike): A file written by `torch.save`.
        map_location (str): Device of the tensors. Defaults to 'cpu'.

    Returns:
        dict: Content of the file; a bare state dict is returned as `dict(state_dict=...)`.

    Raises:
        FileNotFoundError: If the file does not exist.
        ValueError: See `load_plain`; also if the file contains no weights.
    """
    content = load_plain(path, map_location)
    if 'state_dict' not in content:
        if not all(isinstance(v, torch.Tensor) for v in content.values()):
            raise ValueError(f'{path} has no `state_dict`; it has {sorted(map(str, content))[:8]}. '
                             'If it is from the official SoCo code or for detectron2, convert it '
                             f'first: python tools/convert_weights.py {path} OUT.pth --to mmdet')
        content = dict(state_dict=content)
    return content


def run_checkpoints(work_dir: PathLike) -> list[Path]:
    """Return the files of a work directory that are named as a run names its checkpoints."""
    return [path for path in Path(work_dir).glob('*.pth')
            if re.fullmatch(r'(epoch|iter)_\d+\.pth', path.name)]


def find_newest_checkpoint(work_dir: PathLike) -> Path | None:
    """Return the checkpoint of a run that was trained longest and can be opened, or None.

    Epochs count first, and then photos of the epoch: iterations are of another size if the run was
    resumed with another batch.

    Damaged and other files are skipped with a warning in the log.

    Args:
        work_dir (PathLike): Work directory of a run.

    Returns:
        Path, optional: The checkpoint, or None if there is none.
    """
    found = []
    for path in run_checkpoints(work_dir):
        try:
            found.append((*_progress(read_checkpoint(path)['meta']), path))
        except (ValueError, KeyError, TypeError) as error:
            MMLogger.get_current_instance().warning(f'Skipped {path} ({error})')
    return max(found)[-1] if found else None


def _progress(meta: dict) -> tuple[int, int]:
    """Return epochs, and photos of the epoch or else iterations, from the `meta` of a checkpoint."""
    position = meta.get('position') or {}
    if position:
        return int(position['epoch']), int(position['photos'])
    return int(meta['epoch']), int(meta['iter'])


def read_weights(path: PathLike) -> dict[str, Tensor]:
    """Read the weights of a checkpoint or a .safetensors file without running code in it.

    Args:
        path (PathLike): A file written by `torch.save`, or a .safetensors file.

    Returns:
        dict[str, Tensor]: Tensors by name: the content of `state_dict` (this project, mmdet) or
        `model` (official SoCo, detectron2), or else of the whole file.

    Raises:
        FileNotFoundError: If the file does not exist.
        ValueError: If the file is a pickle, is not a checkpoint, or contains no weights.
    """
    path = Path(path)
    if path.suffix.lower() in ('.pkl', '.pickle'):
        raise ValueError(f'{path} is a pickle, which can run any code when it is opened, and was not '
                         'read. Use the .pth file that it was made from (the official release has '
                         'both), or a .safetensors file.')
    if path.suffix == '.safetensors':
        try:
            return safetensors.torch.load_file(path)
        except SafetensorError as error:
            raise ValueError(f'{path} is not a safetensors file or is cut off ({error}).') from error
    content = load_plain(path, allow=[argparse.Namespace])  # the official options, under `opt`
    weights = next((content[key] for key in ('state_dict', 'model')
                    if isinstance(content.get(key), dict)), content)
    other = [str(key) for key, value in weights.items()
             if not (isinstance(key, str) and isinstance(value, Tensor))]
    if other or not weights:
        raise ValueError(f'{path} contains no weights: expected tensors under `state_dict`, `model` '
                         f'or at the top, found {", ".join(other[:8]) or "nothing"}.')
    return dict(weights)
