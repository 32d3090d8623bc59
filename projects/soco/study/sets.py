"""A study of starts on several data sets: its config, and its jobs."""
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import NamedTuple

from mmengine.config import Config
from rich.console import Console

from ..annotations.read import read_json
from ..detectors.derive import default_epochs
from ..detectors.read import read_detector
from ..detectors.work_dir import WorkDir
from ..evaluation.cost import measure_cost
from ..launch.configs import load_config
from ..runs.follow import run_training
from ..runs.read import read_work_dir
from ..runs.record import code_version
from ..weights.read import find_newest_checkpoint
from . import training
from .compare import CompareJob, Comparison, Start, in_short, read_annotations
from .compare_page import write_results
from .compare_run import facts_of, warnings_of
from .jobs import Jobs, Report
from .plan import PARTS, make
from .records import Records


@dataclass(frozen=True)
class DataSet:
    """Photos with annotations; paths are relative to the folder of the study's data.

    Args:
        images (str): Folder of the photos.
        train (str): Annotations to train on. Pretraining sees their photos, without the labels.
        val (str): Annotations to evaluate on. Pretraining never sees their photos.
    """

    images: str
    train: str
    val: str


@dataclass(frozen=True)
class Pretraining:
    """A pretraining of the detector on the photos of a data set.

    Args:
        weights (bool): Whether it starts from the study's weights (`--weights`) instead of random ones.
            Defaults to False.
        boxes (str, optional): 'random' for random boxes. Defaults to None: the proposals of
            tools/pretrain_detector.py.
        options (Sequence[str]): More options of tools/pretrain_detector.py. Defaults to none: its
            recipe.
        config (str, optional): A pretraining config to train with instead, by tools/train.py, such as
            BYOL's. Its length in epochs is that of tools/pretrain_detector.py. Defaults to None.
    """

    weights: bool = False
    boxes: str | None = None
    options: Sequence[str] = ()
    config: str | None = None


@dataclass(frozen=True)
class Origin:
    """Where the detectors of a start come from.

    Args:
        title (str): Name of the start in tables and pictures.
        weights (bool): Whether it is the study's weights (`--weights`). Defaults to False.
        pretraining (str, optional): Name of the pretraining. Defaults to None. Without it and
            without `weights`, the start is random.
        parts (Sequence[str]): Parts that the start takes from the pretraining, some of `PARTS`.
            Defaults to all.
        until (int, optional): See `Start`. Defaults to None: the whole schedule.
    """

    title: str
    weights: bool = False
    pretraining: str | None = None
    parts: Sequence[str] = PARTS
    until: int | None = None


@dataclass(frozen=True)
class Step:
    """Detectors to train: all combinations.

    Args:
        starts (Sequence[str]): Names of the starts.
        shares (Sequence[int]): Percentages of the labels.
        seeds (Sequence[int]): Seeds of fine-tuning.
        sets (Sequence[str], optional): Names of the data sets. Defaults to None: all.
    """

    starts: Sequence[str]
    shares: Sequence[int]
    seeds: Sequence[int]
    sets: Sequence[str] | None = None


class PretrainJob(NamedTuple):
    """One pretraining."""

    data: str
    name: str

    @property
    def key(self) -> str:
        """Key of the record."""
        return f'pretrain/{self.data}/{self.name}'


class DetectorJob(NamedTuple):
    """One detector to train."""

    data: str
    job: CompareJob

    @property
    def key(self) -> str:
        """Name of the job in messages."""
        return f'{self.data}/{self.job.key}'


@dataclass(frozen=True)
class SetsStudy:
    """A study of starts on several data sets, with the fields of its config.

    Args:
        name (str): Name of the study and of its folder in work_dirs/.
        detector (str): Config of the detector.
        iters (int): Iterations of the detector's schedule.
        sets (Mapping[str, DataSet]): Data sets by name.
        pretrainings (Mapping[str, Pretraining]): Pretrainings by name.
        starts (Mapping[str, Origin]): Starts by name.
        pairs (Sequence[tuple[str, str]]): Starts to compare over all data sets: ours, theirs.
        steps (Sequence[Step]): Detectors in the order in which they are wanted. A pretraining is made
            when the first detector needs it.
    """

    name: str
    detector: str
    iters: int
    sets: Mapping[str, DataSet]
    pretrainings: Mapping[str, Pretraining]
    starts: Mapping[str, Origin]
    pairs: Sequence[tuple[str, str]]
    steps: Sequence[Step]

    def jobs(self) -> list[PretrainJob | DetectorJob]:
        """Return all jobs once, in order; each after the pretraining that it needs."""
        found: dict[PretrainJob | DetectorJob, None] = {}
        for step in self.steps:
            for seed in step.seeds:
                for share in step.shares:
                    for data in step.sets or self.sets:
                        for start in step.starts:
                            job = DetectorJob(data, CompareJob(start, share, seed))
                            found.update(dict.fromkeys([*self.needs(job), job]))
        return list(found)

    def needs(self, job: PretrainJob | DetectorJob) -> list[PretrainJob]:
        """Return the pretraining that a job needs, if any."""
        if isinstance(job, PretrainJob) or self.starts[job.job.start].pretraining is None:
            return []
        return [PretrainJob(job.data, str(self.starts[job.job.start].pretraining))]

    @property
    def needs_weights(self) -> bool:
        """Whether some start or pretraining is from weights that the user has to give."""
        return (any(pretraining.weights for pretraining in self.pretrainings.values())
                or any(start.weights for start in self.starts.values()))


def read_sets_study(path: str | Path) -> SetsStudy:
    """Read a study's config.

    Args:
        path (str | Path): A config with a dict `study` with the fields of `SetsStudy`; the entries of
            sets, pretrainings, starts and steps are dicts with the fields of their classes. Paths of
            configs are relative to the current folder.

    Returns:
        SetsStudy: The study.

    Raises:
        FileNotFoundError: If the file, or a config that it refers to, does not exist.
        ValueError: If a field is missing, unknown, or inconsistent with the others.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f'There is no study at {path}. See configs/benchmarks/transfer_study/.')
    content = Config.fromfile(path)._cfg_dict.to_dict().get('study')
    if not isinstance(content, dict):
        raise ValueError(f'{path} has no dict named study; see '
                         'configs/benchmarks/transfer_study/own_photos.py.')
    for field, kind in (('sets', DataSet), ('pretrainings', Pretraining), ('starts', Origin)):
        content[field] = {name: make(kind, values, f'{path}: {field}.{name}')
                          for name, values in content.get(field, {}).items()}
    content['steps'] = [make(Step, values, f'{path}: steps[{i}]')
                        for i, values in enumerate(content.get('steps', []))]
    content['pairs'] = [tuple(pair) for pair in content.get('pairs', [])]
    study = make(SetsStudy, content, str(path))
    _check(study, path)
    return study


def _check(study: SetsStudy, path: str | Path) -> None:
    def refuse(what: str) -> None:
        raise ValueError(f'{path}: {what}')

    def known(name: str, among: Mapping, where: str) -> None:
        if name not in among:
            refuse(f'{where} names {name!r}, which is none of {", ".join(among)}.')

    for name, pretraining in study.pretrainings.items():
        if pretraining.boxes not in (None, 'random'):
            refuse(f"pretrainings.{name}.boxes must be 'random' or None, not {pretraining.boxes!r}.")
        if pretraining.config and pretraining.options:
            refuse(f'pretrainings.{name}: options belong to tools/pretrain_detector.py, not to config.')
    for name, start in study.starts.items():
        if start.pretraining is not None:
            known(start.pretraining, study.pretrainings, f'starts.{name}')
        if start.weights and start.pretraining is not None:
            refuse(f'starts.{name} is either from weights or from a pretraining.')
        if not start.parts or not set(start.parts) <= set(PARTS):
            refuse(f'starts.{name}.parts must be some of {", ".join(PARTS)}, not {list(start.parts)}.')
        if start.until is not None and not 0 < start.until <= study.iters:
            refuse(f'starts.{name}.until must be within 1 and {study.iters}, not {start.until}.')
    for i, pair in enumerate(study.pairs):
        for name in pair:
            known(name, study.starts, f'pairs[{i}]')
    for i, step in enumerate(study.steps):
        for name in step.starts:
            known(name, study.starts, f'steps[{i}]')
        for name in step.sets or ():
            known(name, study.sets, f'steps[{i}]')
        if not all(0 < share <= 100 for share in step.shares):
            refuse(f'steps[{i}].shares must be percentages within 1 and 100, not {list(step.shares)}.')
    for config in [study.detector, *(p.config for p in study.pretrainings.values() if p.config)]:
        if not Path(config).is_file():
            raise FileNotFoundError(f'{path} refers to {config}, which does not exist. Paths are '
                                    "relative to the project's folder.")


class SetsRun:
    """A run of a study in a work directory.

    Each data set has a folder there, with its comparison and its pretrainings.

    Args:
        study (SetsStudy): The study.
        root (str | Path): Folder of the data.
        folder (str | Path): The work directory.
        records (Records): Records of the pretrainings.
        console (Console): Console for the progress.
        weights (str | Path, optional): The study's weights. Defaults to None.
        workers (int): Concurrent jobs. Defaults to 1.

    Raises:
        FileNotFoundError: If a file of a data set does not exist.
        ValueError: If annotations are refused, or do not fit the records.
    """

    def __init__(self, study: SetsStudy, root: str | Path, folder: str | Path, records: Records,
                 console: Console, weights: str | Path | None = None, workers: int = 1) -> None:
        self.study, self.root, self.folder = study, Path(root).resolve(), Path(folder).resolve()
        self.records, self.console, self.workers = records, console, workers
        self.weights = Path(weights).resolve() if weights else None
        self._stop = threading.Event()
        self._one_at_a_time = threading.Lock()  # for computations in this process
        self.comparisons = {name: self._comparison(name) for name in study.sets}
        self.results = {name: self._open(name) for name in study.sets}

    def _comparison(self, name: str) -> Comparison:
        data, folder = self.study.sets[name], self.folder / name
        annotations = read_annotations(
            self.root / data.images, self.root / data.train, self.root / data.val, folder,
            lambda line: self.console.print(line, soft_wrap=True))
        shares = sorted({share for step in self.study.steps for share in step.shares})
        seeds = 1 + max(seed for step in self.study.steps for seed in step.seeds)
        return Comparison(read_detector(self.study.detector)[0], annotations,
                          [self._start(name, start) for start in self.study.starts], shares, seeds,
                          folder, self.study.iters, self.workers)

    def _start(self, data: str, name: str) -> Start:
        origin = self.study.starts[name]
        if origin.weights:
            return Start(name, 'weights', self.weights, origin.until)
        if origin.pretraining is None:
            return Start(name, 'random', None, origin.until)
        return Start(name, 'soco', self.folder / data / 'starts' / f'{name}.pth', origin.until)

    def _open(self, name: str) -> Records:
        comparison = self.comparisons[name]
        records = Records(comparison.folder / 'results.json',
                          dict(study='compare_starts', **comparison.fingerprint()))
        for key, value in comparison.about().items():
            records.set(key, value)
        return records

    def is_done(self, job: PretrainJob | DetectorJob) -> bool:
        """Return whether a job has a record."""
        if isinstance(job, PretrainJob):
            return job.key in self.records
        return job.job.key in self.results[job.data]

    def run(self, deadline: float) -> bool:
        """Run the jobs that are left; see `Jobs.run`."""
        return Jobs(jobs=self.study.jobs(), is_done=self.is_done, needs=self.study.needs, do=self._do,
                    iterations=self._iterations, in_short=self._in_short, workers=self.workers,
                    console=self.console, stop=self._stop).run(deadline)

    def _iterations(self, job: PretrainJob | DetectorJob) -> int | None:
        if isinstance(job, DetectorJob):
            return self.comparisons[job.data].points_of(job.job.start)[-1]
        return None

    def _in_short(self, job: PretrainJob | DetectorJob) -> str:
        if isinstance(job, DetectorJob):
            return in_short(self.results[job.data][job.job.key]['values'])
        return f'{self.records[job.key]["epochs"]} epochs'

    def _do(self, job: PretrainJob | DetectorJob, report: Report) -> None:
        if isinstance(job, PretrainJob):
            self._pretrain(job, report)
        else:
            self._write_start(job)
            self.comparisons[job.data].train(job.job, self.results[job.data], report, self._stop,
                                             self.console)

    def _pretrain(self, job: PretrainJob, report: Report) -> None:
        method, data = self.study.pretrainings[job.name], self.comparisons[job.data].data
        folder = self.folder / job.data / 'pretraining' / job.name
        folder.parent.mkdir(parents=True, exist_ok=True)
        store = self._random_boxes(job.data) if method.boxes else None
        photos = len(read_json(data.train)['images'])
        epochs = default_epochs(photos)
        work = WorkDir.at(folder)
        if method.config:
            run = folder
            command = ['tools/train.py', method.config, '--work-dir', str(run), '--resume',
                       '--cfg-options', f'train_dataloader.dataset.data_root={data.images}',
                       f'train_dataloader.dataset.proposals={store}', f'train_cfg.max_epochs={epochs}',
                       *([f'load_from={self.weights}'] if method.weights else [])]
        else:
            run = work.run
            command = ['tools/pretrain_detector.py', self.study.detector, str(data.train), '--root',
                       str(data.images), '--work-dir', str(folder), '--resume', *method.options,
                       *(['--weights', str(self.weights)] if method.weights else []),
                       *(['--proposals', str(store)] if store else [])]
        run_training(command, folder.with_suffix('.log'), job.key, report, self._stop,
                     training.thread_environment(self.workers), [self.records.lock])
        config = load_config(method.config, {}) if method.config else load_config(str(work.config), {})
        about = read_work_dir(run)
        with self._one_at_a_time:
            gflop = measure_cost(config).gflop
        ranks = [row['obj_rank'] for row in about.records if 'obj_rank' in row]
        self.records.add(job.key, dict(
            date=date.today().isoformat(), commit=code_version(), photos=photos, epochs=epochs,
            images_seen=epochs * (photos // config.train_dataloader.batch_size)
            * config.train_dataloader.batch_size,
            minutes=about.seconds / 60, gflop_per_image=gflop, ranks=ranks and [ranks[0], ranks[-1]],
            options=list(method.options)))

    def _random_boxes(self, data: str) -> Path:
        """Generate random boxes for the photos of a set; a finished store stays as it is."""
        store, annotations = self.folder / data / 'random.arrow', self.comparisons[data].data
        command = ['tools/generate_proposals.py', str(annotations.train), str(store), '--root',
                   str(annotations.images), '--source', 'random']
        if not store.exists() and subprocess.run([sys.executable, *command]).returncode:
            raise ValueError(f'python {" ".join(command)} failed; see its output above.')
        return store

    def _write_start(self, job: DetectorJob) -> None:
        """Write the parts of a pretraining that a start consists of."""
        origin, start = self.study.starts[job.job.start], self._start(job.data, job.job.start)
        if origin.pretraining is None or start.path is None or start.path.exists():
            return
        folder = self.folder / job.data / 'pretraining' / origin.pretraining
        source = WorkDir.at(folder).start
        if self.study.pretrainings[origin.pretraining].config:
            newest = find_newest_checkpoint(folder)
            if newest is None:
                raise ValueError(f'{folder} contains no checkpoint. Delete it, and the record of '
                                 f'{self.study.needs(job)[0].key} in {self.records.path}.')
            source = newest
        start.path.parent.mkdir(parents=True, exist_ok=True)
        training.write_weights(training.state_of(source, origin.parts), start.path)

    def write_pages(self) -> Iterator[Path]:
        """Write the page of each data set that has a result, and yield it."""
        for name, records in self.results.items():
            if records.content['records']:
                comparison = self.comparisons[name]
                page, _ = write_results(records, comparison.folder,
                                        facts_of(comparison, self.study.detector),
                                        warnings_of(comparison.data), {})
                yield page
