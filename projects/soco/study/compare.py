"""A comparison of starts of a user's detector on his own annotations."""
import json
import math
import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any, NamedTuple

import mmcv
import torch
from mmengine.config import Config
from rich.console import Console

from ..annotations.copies import FOLDER, Use, settle
from ..annotations.formats import as_coco
from ..annotations.read import read_categories, read_json
from ..compat.cpu import needs_cuda
from ..datasets.coco_subset import choose_images, with_images
from ..detectors.build import build
from ..detectors.fit import fit_detector, thaw
from ..detectors.read import SCOPE
from ..files import hash_of, whole_file, write_whole
from ..launch.data_files import leaf_datasets
from ..proposals.store import ProposalStore
from ..runs.read import read_work_dir
from ..runs.record import code_version
from ..weights.match import brought_parts, fit_names, match_weights
from ..weights.read import find_newest_checkpoint, read_weights
from . import training
from .jobs import Jobs, Report
from .plan import CompareJob
from .records import Records

RESAMPLES = 1000


class Start(NamedTuple):
    """Weights that a detector starts from.

    Args:
        name (str): Name in tables and pictures.
        kind (str): 'random', 'weights' (any file) or 'soco' (a pretraining of this project).
        path (Path, optional): The weights. Defaults to None, for 'random'.
        until (int, optional): Iterations after which its trainings end, before the end of the
            schedule. Defaults to None: they do not.
    """

    name: str
    kind: str
    path: Path | None = None
    until: int | None = None


@dataclass(frozen=True)
class Annotations:
    """Annotations of train and val, read and checked.

    Args:
        images (Path): Folder of the photos.
        train (Path): COCO json.
        val (Path): COCO json.
        rows (dict): The content of train.
        val_rows (dict): The content of val.
        classes (list[str]): Names of the classes of train, in order.
        masks (bool): Whether every object has a mask.
        sizes (str): Hash of the names and sizes in bytes of the photos of both.
        lines (list[str]): What was mended in them, and notes.
    """

    images: Path
    train: Path
    val: Path
    rows: dict
    val_rows: dict
    classes: list[str]
    masks: bool
    sizes: str
    lines: list[str]

    @property
    def val_photos(self) -> int:
        """Photos of val."""
        return len(self.val_rows['images'])

    @property
    def val_objects(self) -> int:
        """Objects of val that a detector can find."""
        return sum(map(_can_be_found, self.val_rows['annotations']))

    @property
    def shared(self) -> list[str]:
        """Photos that are in train and in val, by name."""
        names = [{row['file_name'] for row in rows['images']} for rows in (self.rows, self.val_rows)]
        return sorted(names[0] & names[1])


def _can_be_found(row: dict) -> bool:
    """Return whether an annotation is an object: no crowd, and of at least a pixel, as in mmdet."""
    return not row.get('iscrowd') and min(row['bbox'][2:]) >= 1


def read_starts(texts: Sequence[str]) -> list[Start]:
    """Read the starts of a command line.

    Args:
        texts (Sequence[str]): Each is 'random', the path of weights, or 'soco:' and the work directory
            of a pretraining; with NAME= before it, it gets that name.

    Returns:
        list[Start]: The starts, with names that differ.

    Raises:
        FileNotFoundError: If there are no weights at a path.
        ValueError: If there are fewer than two starts, or two have the same name.
    """
    starts = [_read_start(text) for text in texts]
    names = [start.name for start in starts]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f'Two starts have the name {twice[0]}. Give them names: --start NAME=…')
    if len(starts) < 2:
        raise ValueError('A comparison needs at least two starts, such as --start random --start '
                         'soco:work_dirs/my_photos.')
    return starts


def _read_start(text: str) -> Start:
    name, equals, rest = text.partition('=')
    if not equals or '/' in name or ':' in name:
        name, rest = '', text
    if rest == 'random':
        return Start(_name_of(name or 'random'), 'random')
    kind, colon, place = rest.partition(':')
    if kind == 'soco' and colon:
        folder = Path(place)
        if not folder.is_dir():
            raise FileNotFoundError(f'There is no work directory of a pretraining at {folder} '
                                    f'(--start {text}).')
        path: Path | None = folder / 'detector_start.pth'
        if not path.is_file():
            path = find_newest_checkpoint(folder)
        if path is None:
            raise FileNotFoundError(f'{folder} contains no detector_start.pth and no checkpoint that '
                                    f'can be opened (--start {text}).')
        return Start(_name_of(name or 'soco'), 'soco', path.resolve())
    if not Path(rest).is_file():
        raise FileNotFoundError(f'There are no weights at {rest}. --start takes random, a file of '
                                'weights, or soco:DIR with the work directory of a pretraining.')
    return Start(_name_of(name or Path(rest).stem), 'weights', Path(rest).resolve())


def _name_of(text: str) -> str:
    """Return a name that can be part of a path."""
    return ''.join(c if c.isalnum() or c in '-_.' else '_' for c in text)


def read_annotations(images: str | Path, train: str | Path, val: str | Path, work_dir: str | Path,
                     report: Callable[[str], Any] = print, masks: bool = False) -> Annotations:
    """Judge the annotations of a comparison, and mend copies of them where they need it.

    Args:
        images (str | Path): Folder of the photos.
        train (str | Path): Annotations to train on, see `as_coco`. Their categories are the classes.
        val (str | Path): Annotations to evaluate on.
        work_dir (str | Path): Folder for mended and converted copies.
        report (Callable[[str], Any]): Called with each line of what was mended. Defaults to `print`.
        masks (bool): Whether the detector needs a mask of each object. Defaults to False.

    Returns:
        Annotations: What the comparison needs of them.

    Raises:
        FileNotFoundError: If a file or a photo does not exist.
        ValueError: If something in the annotations is refused, such as other classes, train or val has
            no object, val has a single photo, or a photo cannot be read.
    """
    folder = Path(images).resolve()
    if not folder.is_dir():
        raise FileNotFoundError(f'There is no folder of photos at {images} (--images).')
    train = as_coco(train, folder, work_dir, report)
    classes = read_categories(train)
    val = as_coco(val, folder, work_dir, report, classes)
    read, rows, lines = {}, {}, []
    for split, path in (('train', train), ('val', val)):
        use = Use(photos=str(folder), classes=tuple(classes), masks=masks, training=split == 'train',
                  compared=True)
        settled = settle(path, use, work_dir, report)
        for line in settled.lines:
            lines.append(f'{path}: {line}')
            report(lines[-1])
        read[split], rows[split] = Path(settled.path), read_json(settled.path)
        if not any(map(_can_be_found, rows[split]['annotations'])):
            raise ValueError(f'{path} (--{split}) has no object, or only crowds and boxes of less than '
                             'a pixel: a detector can neither be trained nor judged on it. Use a file '
                             'with annotated objects.')
    if len(rows['val']['images']) < 2:
        raise ValueError(f'{val} (--val) has a single photo, from which no interval can be computed. '
                         'Use at least two, better fifty.')
    masked = all(row.get('segmentation') for content in rows.values() for row in content['annotations'])
    names = sorted({row['file_name'] for content in rows.values() for row in content['images']})
    sizes = hash_of(json.dumps([(name, (folder / name).stat().st_size) for name in names]).encode())
    seen = Path(work_dir) / FOLDER / f'photos.{sizes}.read'
    if not seen.exists():
        _check_photos(folder, names, report)
        write_whole(seen, b'')
    return Annotations(
        images=folder, train=read['train'], val=read['val'], rows=rows['train'], val_rows=rows['val'],
        classes=classes, masks=masked, sizes=sizes, lines=lines)


def _check_photos(folder: Path, names: Sequence[str], report: Callable[[str], Any]) -> None:
    """Read all photos as a detector does, which otherwise fails at the first bad one, after hours."""
    if len(names) > 2000:
        report(f'Reading all {len(names)} photos, once')

    def problem(name: str) -> str | None:
        try:
            return None if mmcv.imread(folder / name) is not None else name
        except Exception:  # a damaged file may raise anything
            return name

    with ThreadPoolExecutor(4) as pool:
        bad = [name for name in pool.map(problem, names) if name]
    if bad:
        more = f' and {len(bad) - 3} more' if len(bad) > 3 else ''
        raise ValueError(f'{folder}: {len(bad)} of the {len(names)} photos cannot be read by OpenCV, '
                         f'and so by no detector, such as {", ".join(map(repr, bad[:3]))}{more}: they '
                         'are cut off, damaged, or of another kind. Save them as JPEG or PNG, or '
                         'remove their entries from the annotations.')


def photos_seen(start: Start) -> set[str]:
    """Return the paths of the photos of a start's pretraining; none where they cannot be told."""
    if start.kind != 'soco' or start.path is None:
        return set()
    folder = start.path.parent
    try:
        dataset = read_work_dir(folder / 'run' if (folder / 'run').is_dir() else folder).part(
            'train_dataloader.dataset')
        store = ProposalStore.open(dataset['proposals'])
    except (KeyError, OSError, ValueError):
        return set()
    root = os.path.realpath(dataset.get('data_root') or '')
    return {os.path.join(root, store.name(i)) for i in range(len(store))}


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
