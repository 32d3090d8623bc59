"""Checkpoints that are plain (`weights_only=True` reads them) and never half-written."""
import os
import pickle
import re
import shutil
import tempfile
from collections import deque
from pathlib import Path
from typing import Any, Dict, Optional, Sequence, Union

import numpy as np
import torch
from mmengine.dist import is_main_process
from mmengine.fileio import LocalBackend, register_backend
from mmengine.hooks import CheckpointHook
from mmengine.logging import HistoryBuffer, MMLogger
from mmengine.model import is_model_wrapper
from mmengine.registry import HOOKS
from mmengine.runner import Runner

PathLike = Union[str, os.PathLike]


def write_atomically(data: Union[bytes, memoryview], path: PathLike) -> None:
    """Write beside, flush to the disk, then rename; on failure nothing is left behind.

    Raises:
        OSError: The disk is full or read-only; what was there before is untouched.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, beside = tempfile.mkstemp(dir=path.parent, prefix=f'.{path.name}.')
    try:
        with os.fdopen(handle, 'wb') as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(beside, 0o644)
        os.replace(beside, path)
    finally:
        Path(beside).unlink(missing_ok=True)


def check_work_dir(path: PathLike) -> None:
    """Make a work directory, and refuse one that cannot be written to before anything is built.

    Raises:
        OSError: No file can be made there; the message says why and what to do.
    """
    try:
        Path(path).mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=str(path)).close()
    except OSError as error:
        raise OSError(error.errno, f'The work directory {path} cannot be written to '
                      f'({error.strerror}). Give another place by --work-dir.') from error


class AtomicBackend(LocalBackend):
    """mmengine's local backend, but a file appears whole or not at all."""

    def put(self, obj: Union[bytes, memoryview], filepath: PathLike) -> None:
        """Write a file as `write_atomically` does.

        Raises:
            OSError: The disk is full or read-only; what was there before is untouched.
        """
        try:
            write_atomically(obj, filepath)
        except OSError as error:
            raise OSError(error.errno, f'{filepath} could not be written ({error.strerror}); earlier '
                          'checkpoints are intact. Free some disk space, then go on with '
                          '--resume.') from error


register_backend('atomic', AtomicBackend, force=True)


def to_plain(value: Any) -> Any:
    """Turn what mmengine puts into a checkpoint into tensors and plain Python values.

    Raises:
        TypeError: A value has no plain form; the message names its type.
    """
    if isinstance(value, np.generic):  # first: np.float64 is a float too
        return value.item()
    if value is None or isinstance(value, (bool, int, float, str, bytes, torch.Tensor)):
        return value
    if isinstance(value, HistoryBuffer):
        log, count = value.data
        return dict(history_log=to_plain(log), history_count=to_plain(count),
                    max_length=value.max_length)
    if isinstance(value, np.ndarray):
        return torch.from_numpy(np.ascontiguousarray(value))
    if isinstance(value, dict):
        return {to_plain(k): to_plain(v) for k, v in value.items()}
    if isinstance(value, (list, deque, set)):
        return [to_plain(v) for v in value]
    if isinstance(value, tuple):
        return tuple(to_plain(v) for v in value)
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f'A checkpoint holds tensors and plain Python values only, not {type(value)}.')


def from_plain(value: Any) -> Any:
    """Undo `to_plain` for the histories of the message hub."""
    if isinstance(value, dict) and 'history_log' in value:
        # a run on a GPU resumes with every tensor on the GPU
        log, count = (value[key].cpu().numpy() for key in ('history_log', 'history_count'))
        return HistoryBuffer(log, count, max_length=value['max_length'])
    return value


@HOOKS.register_module()
class PlainCheckpointHook(CheckpointHook):
    """mmengine's `CheckpointHook`, with plain and atomic checkpoints.

    Args:
        **kwargs: See `mmengine.hooks.CheckpointHook`.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{'backend_args': dict(backend='atomic'), **kwargs})

    def before_train(self, runner: Runner) -> None:
        """Clear away torn files, and refuse to start where two checkpoints do not fit.

        A new checkpoint is written beside the old one.

        Raises:
            ValueError: How much is needed, how much is free, what to do.
        """
        super().before_train(runner)
        if is_main_process():  # what a kill in the middle of a write has left
            for beside in Path(runner.work_dir).glob('.*.pth.*'):
                beside.unlink(missing_ok=True)
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        weights = sum(t.numel() * t.element_size() for t in model.state_dict().values())
        moments = 2 * sum(p.numel() * 4 for p in model.parameters() if p.requires_grad)
        needed, free = 2 * (weights + moments), shutil.disk_usage(runner.work_dir).free
        if free < needed:
            raise ValueError(
                f'{runner.work_dir} has {free / 2**20:.0f} MiB of free disk space, but two '
                f'checkpoints of this model take up to {needed / 2**20:.0f} MiB. Free some space, '
                'or give another place by --work-dir.')

    def before_save_checkpoint(self, runner: Runner, checkpoint: Dict) -> None:
        """Make everything but the weights plain."""
        for key in checkpoint:
            if key != 'state_dict':  # keeps its metadata, which holds module versions
                checkpoint[key] = to_plain(checkpoint[key])

    def after_load_checkpoint(self, runner: Runner, checkpoint: Dict) -> None:
        """Make histories again of what was written as tensors."""
        scalars = checkpoint.get('message_hub', {}).get('log_scalars', {})
        for key, value in scalars.items():
            scalars[key] = from_plain(value)


def _first_line(error: Exception) -> str:
    found = re.search(r'Unsupported (global: GLOBAL|operand) \S+', str(error))
    return found[0] if found else (str(error).splitlines() or [type(error).__name__])[0]


def load_plain(path: PathLike, map_location: str = 'cpu', allow: Sequence[type] = ()) -> Dict:
    """Read a file of tensors and plain values without running anything that it may contain.

    Args:
        path (PathLike): A file written by `torch.save`.
        map_location (str): Device of the tensors. Defaults to 'cpu'.
        allow (Sequence[type]): Harmless classes that it may hold besides. Defaults to none.

    Returns:
        dict: Its content, which is not empty.

    Raises:
        FileNotFoundError: No such file.
        ValueError: It is no checkpoint, is cut off, or holds more than tensors and plain values.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f'There is no checkpoint at {path}. Check the path; the checkpoints '
                                'of a run lie in its work directory as epoch_*.pth or iter_*.pth.')
    try:
        with torch.serialization.safe_globals(list(allow)):
            content = torch.load(path, map_location=map_location, weights_only=True)
    except pickle.UnpicklingError as error:
        official = (' An official SoCo checkpoint is to be converted first: python '
                    f'tools/convert_weights.py {path} OUT.pth --to mmdet'
                    if 'argparse.Namespace' in str(error) else '')
        raise ValueError(f'{path} holds more than tensors and plain Python values, which could run '
                         'code when loaded, or is no checkpoint at all; it was not loaded '
                         f'({_first_line(error)}).{official}') from error
    except OSError:
        raise
    except Exception as error:  # bytes that are no checkpoint make the unpickler fail in any way
        raise ValueError(f'{path} is not a checkpoint or is cut off ({_first_line(error)}). Use '
                         'another one of the run, or copy the file again.') from error
    if not isinstance(content, dict) or not content:
        raise ValueError(f'{path} holds a {type(content).__name__}, not a checkpoint with weights.')
    return content


def read_checkpoint(path: PathLike, map_location: str = 'cpu') -> Dict:
    """Read a checkpoint of this project or of mmdet; see `load_plain`.

    Args:
        path (PathLike): A file written by `torch.save`.
        map_location (str): Device of the tensors. Defaults to 'cpu'.

    Returns:
        dict: Its content; a bare state dict comes back as `dict(state_dict=...)`.

    Raises:
        FileNotFoundError: No such file.
        ValueError: See `load_plain`, or it holds no weights.
    """
    content = load_plain(path, map_location)
    if 'state_dict' not in content:
        if not all(isinstance(v, torch.Tensor) for v in content.values()):
            raise ValueError(f'{path} has no `state_dict`; it holds {sorted(map(str, content))[:8]}. '
                             'If it is of the official SoCo code or for detectron2, convert it '
                             f'first: python tools/convert_weights.py {path} OUT.pth --to mmdet')
        content = dict(state_dict=content)
    return content


def find_newest_checkpoint(work_dir: PathLike) -> Optional[Path]:
    """Return the checkpoint of a run that is furthest along and can be opened, or None.

    Torn and foreign files are named in the log and passed over.

    Args:
        work_dir (PathLike): Work directory of a run.
    """
    found = []
    for path in Path(work_dir).glob('*.pth'):
        if not re.fullmatch(r'(epoch|iter)_\d+\.pth', path.name):
            continue
        try:
            found.append((int(read_checkpoint(path)['meta']['iter']), path))
        except (ValueError, KeyError, TypeError) as error:
            MMLogger.get_current_instance().warning(f'Passed over: {path} ({error})')
    return max(found)[1] if found else None
