"""Functions that read weights and checkpoints without running code that a file contains."""
import argparse
import pickle
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from mmengine.logging import MMLogger
from safetensors import SafetensorError
from torch import Tensor

from ..files import PathLike, run_checkpoints
from .pkl import load_arrays


def _first_line(error: Exception) -> str:
    found = re.search(r'Unsupported (global: GLOBAL|operand) \S+', str(error))
    return found[0] if found else (str(error).splitlines() or [type(error).__name__])[0]


def load_plain(path: PathLike, map_location: str = 'cpu', allow: Sequence[Any] = ()) -> dict:
    """Read a file of tensors and plain values without running code that it contains.

    Args:
        path (PathLike): A file written by `torch.save`.
        map_location (str): Device of the tensors. Defaults to 'cpu'.
        allow (Sequence): Harmless classes that it may also contain; a pair (class, name) puts the class
            in the place of what has this name in the file. Defaults to none.

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
        raise ValueError(f'{path} contains more than tensors and plain Python values, which could run '
                         'code when loaded, or is not a checkpoint; it was not loaded '
                         f'({_first_line(error)}).') from error
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
                             'Use a checkpoint that tools/train.py wrote. For weights of another '
                             f'library: python tools/convert_weights.py {path} OUT.pth --to mmdet')
        content = dict(state_dict=content)
    return content


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
    return int(meta.get('epoch', 0)), int(meta['iter'])


def load_content(path: PathLike, map_location: str = 'cpu') -> dict:
    """Read a file without running code in it, whatever library wrote it.

    Args:
        path (PathLike): A file written by `torch.save`, a .safetensors file, or a .pkl of detectron2.
        map_location (str): Device of the tensors. Defaults to 'cpu'.

    Returns:
        dict: The content of the file, where `state_dict` has the tensors by name: those under
        `state_dict` (this project, OpenMMLab, MoCo, timm) or `model` (official SoCo, detectron2); or
        else all of the file, where the tensors of a dict such as `teacher` (DINO) have its name before
        their own.

    Raises:
        FileNotFoundError: If the file does not exist.
        ValueError: If the file is not a checkpoint, contains more than tensors and plain values, or
            contains no weights.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix == '.safetensors' and path.is_file():
        try:
            return dict(state_dict=safetensors.torch.load_file(path, device=str(map_location)))
        except SafetensorError as error:
            raise ValueError(f'{path} is not a safetensors file or is cut off ({error}).') from error
    content = (load_arrays(path) if suffix in ('.pkl', '.pickle') and path.is_file() else
               load_plain(path, map_location, _HARMLESS))
    weights = next((content[key] for key in ('state_dict', 'model')
                    if isinstance(content.get(key), dict)), None)
    if weights is None:
        weights = dict(_tensors(content)) or content
    other = [str(key) for key, value in weights.items()
             if not (isinstance(key, str) and isinstance(value, Tensor))]
    if other or not weights:
        raise ValueError(f'{path} contains no weights: expected tensors under `state_dict`, `model` '
                         f'or at the top, found {", ".join(other[:8]) or "nothing"}.')
    plain = content if 'state_dict' in content else {}
    return {**plain, 'state_dict': dict(weights)}


def read_weights(path: PathLike) -> dict[str, Tensor]:
    """Return the tensors of a file by name; see `load_content`."""
    return load_content(path)['state_dict']


def _tensors(content: dict, prefix: str = '', depth: int = 6) -> Iterator[tuple[str, Tensor]]:
    """Yield the tensors of nested dicts with their path; the state of an optimizer is left out."""
    for key, value in content.items():
        if isinstance(value, Tensor):
            yield f'{prefix}{key}', value
        elif isinstance(value, dict) and depth and not str(key).startswith('optim'):
            yield from _tensors(value, f'{prefix}{key}.', depth - 1)


class _Inert:
    """What stands for an object of a file that no weight needs; nothing of the file is run or kept."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        pass


# Beside its weights, a checkpoint of MMEngine contains its log, and others contain their options.
_HARMLESS = [argparse.Namespace, *((_Inert, name) for name in (
    'mmengine.logging.history_buffer.HistoryBuffer', 'builtins.getattr', 'numpy.ndarray', 'numpy.dtype',
    'numpy.core.multiarray._reconstruct', 'numpy._core.multiarray._reconstruct',
    'numpy.core.multiarray.scalar', 'numpy._core.multiarray.scalar', '_codecs.encode'))]
