"""Trainings of a study, as processes that can be stopped and resumed."""
import contextlib
import os
import shutil
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from rich.console import Console

from ..files import whole_file
from ..launch.errors import STOPPED, Stopped
from ..runs.follow import run_training
from ..weights.read import read_checkpoint
from .detection import judge_predictions, lacks_points


def thread_environment(workers: int) -> dict[str, str]:
    """Return the environment in which so many trainings share the cores; empty with a GPU."""
    if torch.cuda.is_available():
        return {}
    return {'OMP_NUM_THREADS': str(max(1, (os.cpu_count() or 1) // workers))}


def train(command: list[str], folder: Path, what: str, report: Callable[[int, str], None],
          stop: threading.Event, environment: dict, held: Sequence[int]) -> float:
    """Start or resume a training.

    The arguments are those of `run_training`, with the work directory instead of the log.

    Returns:
        float: Seconds that the training took, summed over its sessions.

    Raises:
        Stopped: If it was stopped. It can be resumed.
        ValueError: If it failed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    clock, before = folder / 'seconds.txt', 0.
    with contextlib.suppress(FileNotFoundError, ValueError):
        before = float(clock.read_text())
    started = time.monotonic()
    try:
        run_training(command, folder / 'output.log', what, report, stop, environment, held)
    finally:
        seconds = before + time.monotonic() - started
        clock.write_text(f'{seconds:.1f}')
    return seconds


def train_detector(run: Callable[[], float], folder: Path, what: str, labels: Path,
                   points: Sequence[int], kinds: Sequence[str], resamples: int,
                   stop: threading.Event, console: Console
                   ) -> tuple[float, dict[str, float], dict[str, np.ndarray]]:
    """Train a detector and judge the predictions of its validations.

    Args:
        run (Callable): Starts or resumes the training, and returns its seconds.
        folder (Path): Work directory of the training. Its checkpoints are removed at the end.
        what (str): Name of the run, for messages.
        labels (Path): COCO json of the validation photos.
        points (Sequence[int]): Iterations after which the detector is validated.
        kinds (Sequence[str]): Kinds of predictions, some of `detection.KINDS`.
        resamples (int): See `judge_predictions`.
        stop (threading.Event): Set when the jobs are asked to stop.
        console (Console): Console for messages.

    Returns:
        tuple: Seconds, and the two results of `judge_predictions`.

    Raises:
        Stopped: If it was stopped. It can be resumed.
        ValueError: If it failed, or wrote no predictions.
    """
    for again in (False, True):
        folder.mkdir(parents=True, exist_ok=True)
        seconds = run()
        if not lacks_points(folder, points, kinds):
            break
        if again:
            raise ValueError(f'{what} has no predictions ({", ".join(kinds)}) for some of its '
                             f'validations at {", ".join(map(str, points))} iterations. The detector '
                             'needs the KeepPredictionsHook and a CocoMetric.')
        console.print(f'{what} was killed during a validation and is run again.')
        shutil.rmtree(folder)
    if stop.is_set():  # judging takes a while; the next run does it from the files
        raise Stopped(STOPPED)
    values, samples = judge_predictions(labels, folder, resamples)
    for path in folder.glob('*.pth'):  # not needed any more
        path.unlink()
    return seconds, values, samples


def state_of(checkpoint: Path, parts: Sequence[str]) -> dict[str, torch.Tensor]:
    """Return the tensors of some parts of a pretrained network.

    Args:
        checkpoint (Path): The checkpoint.
        parts (Sequence[str]): Names of the parts, some of `plan.PARTS`.

    Returns:
        dict[str, torch.Tensor]: Name to tensor.

    Raises:
        ValueError: If the checkpoint lacks a part.
    """
    state = read_checkpoint(checkpoint)['state_dict']
    chosen = {}
    for part in parts:
        found = {key: value for key, value in state.items() if key.startswith(f'{part}.')}
        if not found:
            raise ValueError(f'{checkpoint} contains no {part}, which a start of the study needs.')
        chosen.update(found)
    return chosen


def write_weights(parts: dict[str, torch.Tensor], out: Path) -> Path:
    """Write the weights that a detector starts from.

    Args:
        parts (dict[str, torch.Tensor]): Name to tensor.
        out (Path): The file.

    Returns:
        Path: The file.
    """
    with whole_file(out, 'wb') as file:
        torch.save(dict(state_dict=parts), file)
    return out
