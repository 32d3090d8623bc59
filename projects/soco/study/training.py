"""Pretraining and fine-tuning of a study's arms with tools/train.py."""
import contextlib
import os
import shutil
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from mmengine.config import Config
from rich.console import Console

from ..files import whole_file
from ..launch.errors import STOPPED, Stopped
from ..runs.follow import run_training
from ..runs.log import read_run
from ..weights.read import find_newest_checkpoint, read_checkpoint
from .data import StudyData
from .detection import judge_predictions, lacks_points
from .plan import Job, Study


def pretraining_command(study: Study, data: StudyData, job: Job, options: dict, folder: Path
                        ) -> list[str]:
    """Return the command that pretrains for a 'trial' or 'pretrain' job.

    Args:
        study (Study): The study.
        data (StudyData): Its data.
        job (Job): The job.
        options (dict): Dotted keys of the config with the values to try, or the chosen values.
        folder (Path): Work directory of the run.

    Returns:
        list[str]: Script and arguments.
    """
    method = study.methods[job.name]
    trial = job.kind == 'trial'
    epochs = study.trial_epochs if trial else study.epochs
    return ['tools/train.py', method.config, '--work-dir', str(folder), '--resume', '--cfg-options',
            *_words({
                'train_dataloader.dataset.data_root': data.root,
                'train_dataloader.dataset.proposals': data.store(method.boxes),
                'randomness.seed': study.seeds[0] if trial else job.number,
                'train_cfg.max_epochs': epochs,
                **options})]


def finetuning_command(study: Study, data: StudyData, job: Job, options: dict, folder: Path,
                       weights: Path | None) -> list[str]:
    """Return the command that fine-tunes for a 'finetune' or 'finetune_trial' job.

    Args:
        study (Study): The study.
        data (StudyData): Its data.
        job (Job): The job.
        options (dict): Dotted keys of the config with the values to try, or the chosen values.
        folder (Path): Work directory of the run.
        weights (Path | None): Pretrained weights of the arm; None for random weights.

    Returns:
        list[str]: Script and arguments.
    """
    trial = job.kind == 'finetune_trial'
    train, judged = judged_splits(data, job)
    parts = ','.join(study.arms[job.name].parts)
    changes = {'randomness.seed': study.seeds[0] if trial else job.number,
               'train_dataloader.dataset.ann_file': train}
    for split in ('val', 'test'):  # there is no test, but the files that a config names must exist
        changes[f'{split}_dataloader.dataset.ann_file'] = judged
        changes[f'{split}_evaluator.ann_file'] = judged
    for split in ('train', 'val', 'test'):
        changes[f'{split}_dataloader.dataset.data_prefix.img'] = f'{data.root}/'
    if weights:
        changes['default_hooks.pretrained.require'] = f'[{parts}]'
    return ['tools/train.py', study.detector, '--work-dir', str(folder), '--resume',
            '--pretrained', str(weights or 'random'), '--cfg-options', *_words({**changes, **options})]


def judged_splits(data: StudyData, job: Job) -> tuple[Path, Path]:
    """Return the labels for training a detector, and those for its evaluation."""
    if job.kind == 'finetune_trial':
        return data.labels('fit'), data.labels('tune')
    return data.labels(str(job.share), job.number), data.labels('val')


def _words(changes: dict) -> list[str]:
    return [f'{key}={value}' for key, value in changes.items()]


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


def keep_last(folder: Path) -> Path:
    """Return the last checkpoint of a run, and remove the earlier ones.

    Args:
        folder (Path): Work directory of the run.

    Returns:
        Path: The checkpoint.

    Raises:
        ValueError: If there is no checkpoint.
    """
    last = find_newest_checkpoint(folder)
    if last is None:
        raise ValueError(f'There is no checkpoint in {folder}. See output.log there.')
    for path in folder.glob('*.pth'):
        if path != last:
            path.unlink()
    return last


def ms_per_image(folder: Path, cfg: Config) -> float:
    """Return the median of a run's logged times per image, in milliseconds.

    Pauses do not affect the median.

    Args:
        folder (Path): Work directory of the run.
        cfg (Config): Config of the run.

    Returns:
        float: Milliseconds per image.
    """
    times = [record['time'] for record in read_run(folder) if 'time' in record]
    return 1000 * float(np.median(times)) / cfg.train_dataloader.batch_size


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
            raise ValueError(f'{checkpoint} contains no {part}, which an arm of the study transfers.')
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
