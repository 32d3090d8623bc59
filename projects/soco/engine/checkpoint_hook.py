"""A hook that writes checkpoints atomically, in a form that `weights_only=True` can read."""
import shutil
from collections import deque
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.dist import is_main_process
from mmengine.fileio import LocalBackend, register_backend
from mmengine.hooks import CheckpointHook
from mmengine.logging import HistoryBuffer
from mmengine.registry import HOOKS
from mmengine.runner import Runner

from ..files import PathLike, remove_torn, write_whole
from .runner_utils import unwrapped


class AtomicBackend(LocalBackend):
    """mmengine's local backend with atomic writes."""

    def put(self, obj: bytes | memoryview, filepath: PathLike) -> None:
        """Write a file atomically.

        Raises:
            NotWrittenError: If the disk is full or read-only; an existing file stays intact.
        """
        write_whole(filepath, obj, 'All earlier checkpoints are intact. Free some disk space, then '
                    'resume with --resume.')


register_backend('atomic', AtomicBackend, force=True)


def to_plain(value: Any) -> Any:
    """Convert the content of an mmengine checkpoint to tensors and plain Python values.

    Raises:
        TypeError: If a value has no plain form; the message names its type.
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
    raise TypeError(f'A checkpoint contains only tensors and plain Python values, not {type(value)}.')


def from_plain(value: Any) -> Any:
    """Convert the plain form of a message hub's history back; return other values unchanged."""
    if isinstance(value, dict) and 'history_log' in value:
        # a run that resumes on a GPU loads every tensor onto it
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
        """Remove incomplete files, and check that there is disk space for two checkpoints.

        A new checkpoint is written next to the old one.

        Raises:
            ValueError: If there is too little disk space.
        """
        super().before_train(runner)
        if is_main_process():  # left by a process that was killed during a write
            remove_torn(Path(runner.work_dir) / '*.pth')
        model = unwrapped(runner)
        weights = sum(t.numel() * t.element_size() for t in model.state_dict().values())
        moments = 2 * sum(p.numel() * 4 for p in model.parameters() if p.requires_grad)
        needed, free = 2 * (weights + moments), shutil.disk_usage(runner.work_dir).free
        if free < needed:
            raise ValueError(
                f'{runner.work_dir} has {free / 2**20:.0f} MiB of free disk space, but two '
                f'checkpoints of this model take up to {needed / 2**20:.0f} MiB. Free some space, '
                'or choose another folder with --work-dir.')

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Convert everything but the weights to plain values."""
        for key in checkpoint:
            if key != 'state_dict':  # keeps its metadata, which contains module versions
                checkpoint[key] = to_plain(checkpoint[key])

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Rebuild the histories that were written as tensors."""
        scalars = checkpoint.get('message_hub', {}).get('log_scalars', {})
        for key, value in scalars.items():
            scalars[key] = from_plain(value)
