"""Execution of a study's jobs: pretrainings and detectors, resumed where it was stopped."""
import json
import shutil
import threading
from collections.abc import Iterator
from dataclasses import asdict
from datetime import date
from pathlib import Path

from mmengine.config import Config
from rich.console import Console

from ..detectors.build import quiet
from ..detectors.derive import default_epochs
from ..detectors.fit import needs_masks
from ..detectors.read import read_detector
from ..detectors.work_dir import WorkDir
from ..evaluation.cost import measure_cost
from ..files import hash_of
from ..launch.configs import load_config
from ..proposals.sources import open_source
from ..runs.follow import run_training
from ..runs.read import read_work_dir
from ..runs.record import code_version
from ..weights.read import find_newest_checkpoint
from . import training
from .compare import Comparison, in_short
from .compare_page import write_results
from .compare_run import facts_of, plan_warnings, warnings_of
from .data import annotations_of, generate_store, photos_of
from .inputs import Start, read_annotations
from .jobs import Jobs, Report
from .plan import BOXES, DetectorJob, PretrainJob, Study
from .records import Records


class StudyRun:
    """A run of a study in a work directory.

    Each data set has a folder there, with its comparison and its pretrainings.

    Args:
        study (Study): The study.
        root (str | Path): Folder of the data.
        folder (str | Path): The work directory.
        records (Records): Records of the pretrainings.
        console (Console): Console for the progress.
        weights (str | Path, optional): The study's weights. Defaults to None.
        workers (int): Concurrent jobs. Defaults to 1.

    Raises:
        FileNotFoundError: If a file of a data set does not exist.
        ValueError: If annotations are refused, or do not fit the records, or an entry of the study was
            used with other settings.
    """

    def __init__(self, study: Study, root: str | Path, folder: str | Path, records: Records,
                 console: Console, weights: str | Path | None = None, workers: int = 1) -> None:
        self.study, self.root, self.folder = study, Path(root).resolve(), Path(folder).resolve()
        self.records, self.console, self.workers = records, console, workers
        self.weights = Path(weights).resolve() if weights else None
        self._stop = threading.Event()
        self._one_at_a_time = threading.Lock()  # for computations in this process
        self.comparisons = {name: self._comparison(name) for name in study.sets}
        self.results = {name: self._open(name) for name in study.sets}
        self._check_settings()

    def _check_settings(self) -> None:
        """Refuse another content of a pretraining, start or data set that was used already."""
        now: dict[str, dict] = {}
        for name, method in self.study.pretrainings.items():
            now[f'pretrainings.{name}'] = {
                **asdict(method),
                'config': method.config and hash_of(Config.fromfile(method.config).dump().encode())}
        for name, start in self.study.starts.items():
            now[f'starts.{name}'] = dict(pretraining=start.pretraining, parts=sorted(start.parts))
        for name, data in self.study.sets.items():
            now[f'sets.{name}'] = dict(unlabelled=list(data.unlabelled))
        now = json.loads(json.dumps(now))
        before = self.records.content.get('settings', {})
        for entry, values in now.items():
            if values != before.get(entry, values) and self._is_used(*entry.split('.', 1)):
                raise ValueError(f'{self.folder} has results of {entry} with other settings: '
                                 f'{before[entry]} instead of {values}. Give the entry another name, '
                                 'or use another --work-dir.')
        self.records.set('settings', {**before, **now})

    def _is_used(self, field: str, name: str) -> bool:
        """Return whether an entry of the study's config has a part in what is there."""
        paths = dict(pretrainings=[f'*/pretraining/{name}'], sets=[f'{name}/pretraining'],
                     starts=[f'*/starts/{name}.pth', f'*/finetune/{name}'])[field]
        return any(path for pattern in paths for path in self.folder.glob(pattern))

    def _comparison(self, name: str) -> Comparison:
        data, folder = self.study.sets[name], self.folder / name
        train, val = annotations_of(data, self.root, folder)
        detector, _ = read_detector(self.study.detector)
        annotations = read_annotations(self.root / data.images, train, val, folder,
                                       lambda line: self.console.print(line, soft_wrap=True),
                                       needs_masks(detector))
        shares = sorted({share for step in self.study.steps for share in step.shares})
        seeds = 1 + max(seed for step in self.study.steps for seed in step.seeds)
        return Comparison(detector, annotations,
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
        """Return whether a job has a record, for a detector also of its last validation."""
        if isinstance(job, PretrainJob):
            return job.key in self.records
        results, end = self.results[job.data], self._iterations(job)
        return job.job.key in results and any(
            name.endswith(f'@{end}') for name in results[job.job.key]['values'])

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
            folder = self.comparisons[job.data].folder / job.job.key
            # A start that ended earlier is trained again; one that was stopped has a checkpoint.
            if job.job.key in self.results[job.data] and not any(folder.glob('*.pth')):
                shutil.rmtree(folder, ignore_errors=True)
            self.comparisons[job.data].train(job.job, self.results[job.data], report, self._stop,
                                             self.console)

    def _pretrain(self, job: PretrainJob, report: Report) -> None:
        method, folder = self.study.pretrainings[job.name], self._folder_of(job)
        annotations = self.comparisons[job.data].data
        source, root = photos_of(self.study.sets[job.data], annotations.train, annotations.val,
                                 self.root, self.folder / job.data)
        photos = len(open_source(source, root).names())
        epochs, store = method.epochs or default_epochs(photos), None
        if method.boxes or method.config:
            boxes = method.boxes or BOXES[0]
            store = self.folder / job.data / f'{boxes}.arrow'
            generate_store(source, store, root, boxes, self._stop)
        if method.config:
            run = folder
            changes = [f'train_dataloader.dataset.data_root={root}',
                       f'train_dataloader.dataset.proposals={store}', f'train_cfg.max_epochs={epochs}',
                       *([f'load_from={self.weights}'] if method.weights else []), *method.options]
            command = ['tools/train.py', method.config, '--work-dir', str(run), '--resume',
                       '--cfg-options', *changes]
        else:
            run = WorkDir.at(folder).run
            command = ['tools/pretrain_detector.py', self.study.detector, str(source), '--root',
                       str(root), '--work-dir', str(folder), '--resume', *method.options,
                       *(['--epochs', str(epochs)] if method.epochs else []),
                       *(['--weights', str(self.weights)] if method.weights else []),
                       *(['--proposals', str(store)] if store else [])]
        folder.parent.mkdir(parents=True, exist_ok=True)
        run_training(command, folder.with_suffix('.log'), job.key, report, self._stop,
                     training.thread_environment(self.workers), [self.records.lock])
        config = load_config(method.config or str(WorkDir.at(folder).config), {})
        batch, about = config.train_dataloader.batch_size, read_work_dir(run)
        with self._one_at_a_time, quiet():
            gflop = measure_cost(config).gflop
        ranks = [row['obj_rank'] for row in about.records if 'obj_rank' in row]
        self.records.add(job.key, dict(
            date=date.today().isoformat(), commit=code_version(), photos=photos, epochs=epochs,
            images_seen=epochs * (photos // batch) * batch, minutes=about.seconds / 60,
            gflop_per_image=gflop, ranks=ranks and [ranks[0], ranks[-1]],
            options=list(method.options)))

    def _folder_of(self, job: PretrainJob) -> Path:
        return self.folder / job.data / 'pretraining' / job.name

    def _write_start(self, job: DetectorJob) -> None:
        """Write the parts of a pretraining that a start consists of."""
        origin, start = self.study.starts[job.job.start], self._start(job.data, job.job.start)
        if origin.pretraining is None or start.path is None or start.path.exists():
            return
        pretraining = self.study.needs(job)[0]
        folder = self._folder_of(pretraining)
        source: Path | None = WorkDir.at(folder).start
        if self.study.pretrainings[pretraining.name].config:
            source = find_newest_checkpoint(folder)
        if source is None or not source.is_file():
            raise ValueError(f'{folder} has no weights any more. Remove the record of '
                             f'{pretraining.key} from {self.records.path}; the same command then '
                             'pretrains again.')
        start.path.parent.mkdir(parents=True, exist_ok=True)
        training.write_weights(training.state_of(source, origin.parts), start.path)

    def write_pages(self) -> Iterator[Path]:
        """Write the page of each data set that has a result, and yield it."""
        for name, records in self.results.items():
            if records.content['records']:
                comparison = self.comparisons[name]
                page, _ = write_results(records, comparison.folder,
                                        facts_of(comparison, self.study.detector),
                                        [*warnings_of(comparison.data), *plan_warnings(comparison)],
                                        {})
                yield page
