"""A comparison of starts of a user's detector on his own annotations."""
import json
import math
import threading
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from rich.console import Console

from ..compat.cpu import needs_cuda
from ..datasets.coco_subset import choose_images, with_images
from ..detectors.build import build
from ..detectors.fit import fit_detector, thaw
from ..detectors.read import SCOPE
from ..files import hash_of, whole_file
from ..launch.data_files import leaf_datasets
from ..runs.record import code_version
from ..weights.match import brought_parts, fit_names, match_weights
from ..weights.read import read_weights
from . import training
from .inputs import Annotations, Start
from .jobs import Jobs, Report
from .plan import CompareJob
from .records import Records

RESAMPLES = 1000


class Comparison:
    """The same detector, schedule and data from each start, for shares of the labels and seeds.

    Args:
        detector (Config): Config of the detector.
        data (Annotations): The annotations.
        starts (Sequence[Start]): The starts.
        shares (Sequence[int]): Percentages of the labels, each in [1, 100].
        seeds (int): Number of seeds, at least 1.
        folder (str | Path): The work directory.
        iters (int, optional): Iterations of the schedule. Defaults to None: those of the config.
        workers (int): Concurrent trainings. Defaults to 1.

    Raises:
        ValueError: If the shares or seeds are out of range, or the detector does not fit the data.
    """

    def __init__(self, detector: Config, data: Annotations, starts: Sequence[Start],
                 shares: Sequence[int], seeds: int, folder: str | Path, iters: int | None = None,
                 workers: int = 1) -> None:
        if not shares or not all(0 < share <= 100 for share in shares):
            raise ValueError(f'--shares must be percentages within 1 and 100, not {list(shares)}.')
        if seeds < 1 or workers < 1 or (iters is not None and iters < 4):
            raise ValueError('--seeds and --workers must be at least 1, and --iters at least 4.')
        self.data, self.starts = data, {start.name: start for start in starts}
        self.shares, self.seeds = sorted(set(shares)), seeds
        self.folder, self.workers = Path(folder).resolve(), workers
        photos = len(self.labelled(100))
        self.fitted, self.notes = fit_detector(
            detector, data.images, data.train, data.val, data.classes, data.masks, photos, iters)
        if any(start.kind == 'random' for start in starts):
            self.notes += thaw(Config(self.fitted._cfg_dict.to_dict()))
        self.cpu = [] if torch.cuda.is_available() else needs_cuda(self.fitted)
        if self.cpu:
            self.notes.append(f'there is no CUDA GPU: BN instead of SyncBN, full precision '
                              f'({"; ".join(self.cpu)})')
        same = [pair for pair in zip(self.shares, self.shares[1:])
                if len(set(map(len, map(self.labelled, pair)))) == 1]
        if same:
            raise ValueError(f'{same[0][0]} % and {same[0][1]} % of the labels are the same '
                             f'{len(self.labelled(same[0][0]))} photos, of {photos} with objects. Give '
                             'one of them in --shares.')
        for start in starts:
            if start.until is not None and start.until < self.points[0]:
                raise ValueError(f'The detectors of the start {start.name} would stop after '
                                 f'{start.until} iterations, before they are evaluated for the first '
                                 f'time (after {self.points[0]}).')

    @property
    def points(self) -> list[int]:
        """Iterations after which the detector is validated."""
        loop = self.fitted.train_cfg
        points = list(range(loop.val_interval, loop.max_iters + 1, loop.val_interval))
        return points if points[-1] == loop.max_iters else [*points, loop.max_iters]

    def labelled(self, share: int, seed: int = 0) -> set[int | str]:
        """Return the ids of the photos with labels; a larger share of a seed contains a smaller one."""
        photos = {row['image_id'] for row in self.data.rows['annotations']}
        return photos if share == 100 else choose_images(sorted(photos, key=str), share, seed)

    def check_starts(self) -> None:
        """Build the detector, and compare the weights of all starts with it as trainings load them.

        Raises:
            ValueError: If the detector cannot be built, or a file cannot be read or does not fit it.
        """
        ours = build({**self.fitted.model, '_scope_': SCOPE}, 'model').state_dict()
        for start in self.starts.values():
            if start.path is None:
                continue
            state = read_weights(start.path)
            fitted = {name: state[key] for key, name in fit_names(ours, state).items()}
            report = match_weights(ours, fitted, brought_parts(ours, fitted))
            if not report.complete:
                raise ValueError(f'The start {start.name}, {start.path}, does not fit the detector: '
                                 f'{report.explain()}')

    def points_of(self, start: str) -> list[int]:
        """Return the iterations after which a detector from a start is validated."""
        until = self.starts[start].until
        return [point for point in self.points if until is None or point <= until]

    def jobs(self) -> list[CompareJob]:
        """Return all jobs: a first seed of everything before the second one."""
        return [CompareJob(name, share, seed) for seed in range(self.seeds) for share in self.shares
                for name in self.starts]

    def about(self) -> dict[str, Any]:
        """Return what a later call may extend: shares, number of seeds, and starts."""
        return dict(shares=self.shares, seeds=self.seeds, iterations=self.fitted.train_cfg.max_iters,
                    val_photos=self.data.val_photos,
                    starts=[dict(name=start.name, kind=start.kind) for start in self.starts.values()])

    def fingerprint(self) -> dict[str, Any]:
        """Return what all records must agree in: detector, annotations and photos."""
        text = self.fitted.dump().replace(str(self.data.images), '')  # the folder may be moved
        return dict(detector=hash_of(text.encode()), train=hash_of(self.data.train.read_bytes()),
                    val=hash_of(self.data.val.read_bytes()), photos=self.data.sizes)

    def run(self, records: Records, console: Console, deadline: float = math.inf) -> bool:
        """Run the jobs that are left.

        Args:
            records (Records): Records of finished jobs; new ones are added.
            console (Console): Console for the progress.
            deadline (float): See `Jobs.run`. Defaults to infinity.

        Returns:
            bool: Whether all jobs are done. Otherwise, the next run continues.

        Raises:
            ValueError: If a job failed, or a start has results from other weights.
        """
        for name in self.starts:
            self._check_weights(name, records)
        stop = threading.Event()
        return Jobs(
            jobs=self.jobs(), is_done=lambda job: job.key in records, needs=lambda job: [],
            do=lambda job, report: self.train(job, records, report, stop, console),
            iterations=lambda job: self.points_of(job.start)[-1],
            in_short=lambda job: in_short(records[job.key]['values']), workers=self.workers,
            console=console, stop=stop).run(deadline)

    def train(self, job: CompareJob, records: Records, report: Report, stop: threading.Event,
              console: Console) -> None:
        """Train and judge one detector, and add its record.

        Args:
            job (CompareJob): The job.
            records (Records): Records of finished jobs.
            report (Report): Called along the training.
            stop (threading.Event): Set when the training is asked to stop.
            console (Console): Console for messages.

        Raises:
            Stopped: If it was stopped. It can be resumed.
            ValueError: If it failed, or its start has results from other weights.
        """
        weights = self._check_weights(job.start, records)
        records.set('weights', {**records.content.get('weights', {}), job.start: weights})
        folder, command = self.folder / job.key, self.command(job)
        seconds, values, samples = training.train_detector(
            lambda: training.train(command, folder, job.key, report, stop,
                                   training.thread_environment(self.workers), [records.lock]),
            folder, job.key, self.data.val, self.points_of(job.start), self.kinds, RESAMPLES, stop,
            console)
        about = dict(date=date.today().isoformat(), commit=code_version(), weights=weights)
        records.add(job.key, dict(**about, seconds=seconds, values=values), samples)

    def _check_weights(self, name: str, records: Records) -> str | None:
        """Return the hash of a start's weights: that of its results, and of detectors that began."""
        path = self.starts[name].path
        weights = hash_of(path.read_bytes()) if path else None
        others = {record['weights'] for key, record in records.content['records'].items()
                  if key.split('/')[1] == name}
        if (self.folder / 'finetune' / name).is_dir():  # a stopped detector would go on
            others |= {records.content.get('weights', {}).get(name, weights)}
        if others - {weights}:
            raise ValueError(f'{self.folder} has detectors of the start {name} from other weights than '
                             f'{path}. Give the new weights another name (--start NAME=…), or use '
                             'another --work-dir.')
        return weights

    @property
    def kinds(self) -> list[str]:
        """Kinds of predictions, 'bbox' and 'segm'."""
        return list(self.fitted.val_evaluator.metric)

    def command(self, job: CompareJob) -> list[str]:
        """Write the config of a job, and return the command that trains it."""
        start = self.starts[job.start]
        cfg = Config(self.fitted._cfg_dict.to_dict())
        if start.kind == 'random':
            thaw(cfg)
        cfg.randomness = dict(seed=job.seed)
        if start.until is not None:
            cfg.train_cfg.stop_after = start.until
        leaf = next(leaf_datasets(cfg.train_dataloader.dataset))
        leaf['ann_file'] = str(self._labels(job.share, job.seed))
        path = self.folder / 'configs' / f'{job.start}_{job.share}percent_seed{job.seed}.py'
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(path) as file:
            file.write(cfg.pretty_text)
        return ['tools/train.py', str(path), '--work-dir', str(self.folder / job.key), '--resume',
                '--pretrained', str(start.path or 'random'), *(['--cpu'] if self.cpu else [])]

    def _labels(self, share: int, seed: int) -> Path:
        """Write a share of the labels."""
        if share == 100:
            return self.data.train
        path = self.folder / 'labels' / f'{share}percent_seed{seed}.json'
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(path) as file:
            json.dump(with_images(self.data.rows, self.labelled(share, seed)), file)
        return path


def in_short(values: dict[str, float]) -> str:
    """Return the AP50 of a record as text."""
    return ', '.join(f'{name} {value:.1%}' for name, value in values.items()
                     if name.startswith('box_AP50'))
