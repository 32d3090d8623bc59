"""Checkpoints that are plain (`weights_only=True` reads them) and never half-written."""
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
    """mmengine's local backend, but a file appears whole or not at all."""

    def put(self, obj: bytes | memoryview, filepath: PathLike) -> None:
        """Write a file whole, or not at all.

        Raises:
            NotWrittenError: The disk is full or read-only; an existing file is intact.
        """
        write_whole(filepath, obj, 'Free some disk space, then go on with --resume.')


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
            remove_torn(Path(runner.work_dir) / '*.pth')
        model = unwrapped(runner)
        weights = sum(t.numel() * t.element_size() for t in model.state_dict().values())
        moments = 2 * sum(p.numel() * 4 for p in model.parameters() if p.requires_grad)
        needed, free = 2 * (weights + moments), shutil.disk_usage(runner.work_dir).free
        if free < needed:
            raise ValueError(
                f'{runner.work_dir} has {free / 2**20:.0f} MiB of free disk space, but two '
                f'checkpoints of this model take up to {needed / 2**20:.0f} MiB. Free some space, '
                'or give another place by --work-dir.')

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Make everything but the weights plain."""
        for key in checkpoint:
            if key != 'state_dict':  # keeps its metadata, which holds module versions
                checkpoint[key] = to_plain(checkpoint[key])

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Make histories again of what was written as tensors."""
        scalars = checkpoint.get('message_hub', {}).get('log_scalars', {})
        for key, value in scalars.items():
            scalars[key] = from_plain(value)


