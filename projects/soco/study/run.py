"""Execution of a study's jobs: concurrent, and resumed where the study was stopped."""
import math
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from rich.console import Console

from ..datasets.dataset import SoCoDataset
from ..evaluation.annotated import LabelledPhotos, first_view, read_labelled
from ..evaluation.cost import measure_cost
from ..evaluation.loading import build_model, build_start
from ..evaluation.objects import held_out_dataset
from ..evaluation.rank import rank_of_model
from ..launch.configs import load_config
from ..models.soco import SoCo
from ..proposals.sources import open_source
from ..runs.follow import DivergedError
from ..runs.record import code_version
from . import training
from .data import StudyData
from .jobs import Jobs, Report
from .objects import build_arm, judge
from .plan import BOXES, Job, Study
from .records import Records

CHOSEN_BY = {'trial': 'knn_backbone', 'finetune_trial': 'box_AP50'}


class StudyRun:
    """A run of a study in a work directory.

    Args:
        study (Study): The study.
        data (StudyData): Its prepared data.
        records (Records): Records of finished jobs; new ones are added.
        folder (str | Path): The work directory.
        console (Console): Console for the progress.
        weights (str | Path, optional): Weights that methods and arms with `weights=True` start from,
            with this project's names. Defaults to None.
    """

    def __init__(self, study: Study, data: StudyData, records: Records, folder: str | Path,
                 console: Console, weights: str | Path | None = None) -> None:
        self.study, self.data, self.records = study, data, records
        self.folder, self.console = Path(folder).resolve(), console
        self.weights = Path(weights).resolve() if weights else None
        self._jobs = Jobs(
            jobs=list(study.jobs()), is_done=lambda job: job.key in records, needs=study.needs,
            do=self._run_job, iterations=self._iterations, in_short=self._in_short,
            workers=study.workers, console=console)
        self._stop = self._jobs.stop
        self._labelled: dict[str, LabelledPhotos] = {}
        self._views: SoCoDataset | None = None
        self._commit = code_version()
        self._one_at_a_time = threading.Lock()  # for computations in this process
        self._do: dict[str, Callable[[Job, Callable], None]] = {
            'trial': self._trial, 'pretrain': self._pretrain, 'objects': self._objects,
            'finetune_trial': self._finetune_trial, 'finetune': self._finetune}

    def run(self, deadline: float = math.inf) -> bool:
        """Run the jobs that are left; see `Jobs.run`."""
        return self._jobs.run(deadline)

    def _run_job(self, job: Job, report: Callable) -> None:
        self._do[job.kind](job, report)

    def _iterations(self, job: Job) -> int | None:
        if job.kind in ('trial', 'pretrain'):
            cfg = load_config(self.study.methods[job.name].config, {}, register=False)
            epochs = self.study.trial_epochs if job.kind == 'trial' else self.study.epochs
            photos = len(self.data.list_of('unlabelled').read_text().split('\n')) - 1
            return epochs * (photos // cfg.train_dataloader.batch_size)
        if job.kind == 'objects':
            return None
        return load_config(self.study.detector, {}, register=False).train_cfg.max_iters

    def _in_short(self, job: Job) -> str:
        values = self.records[job.key].get('values', {})
        return ', '.join(f'{name} {value:.1%}' for name, value in values.items()
                         if name.startswith(('knn', 'map', 'box_AP50')))

    def _trial(self, job: Job, report: Callable) -> None:
        options = self.study.methods[job.name].options[job.number]
        folder = self.folder / job.key
        with self._may_diverge(job, options):
            seconds, checkpoint, command = self._train_method(job, options, folder, report)
            with self._one_at_a_time:
                model = self._network(self.study.seeds[0],
                                      training.state_of(checkpoint, ['backbone']))
                values, _ = judge(model, self._photos('tune'), 0, resamples=0)
            self._add(job, dict(options=options, command=command, seconds=seconds, values=values))
        shutil.rmtree(folder, ignore_errors=True)

    @contextmanager
    def _may_diverge(self, job: Job, options: dict) -> Iterator[None]:
        """Record a diverged trial instead of failing the study."""
        try:
            yield
        except DivergedError as error:
            self._add(job, dict(options=options, seconds=0., values={}, lost=str(error)[-500:]))

    def _pretrain(self, job: Job, report: Callable) -> None:
        options = self._chosen('trial', job.name, self.study.methods[job.name].options)
        seconds, checkpoint, command = self._train_method(job, options, self.folder / job.key, report)
        cfg = load_config(self.study.methods[job.name].config, {})
        with self._one_at_a_time:
            gflop = measure_cost(cfg).gflop
            ranks = self._ranks(job, cfg, checkpoint)
        self._add(job, dict(options=options, command=command, seconds=seconds, gflop_per_image=gflop,
                            ms_per_image=training.ms_per_image(self.folder / job.key, cfg),
                            checkpoint=str(checkpoint.relative_to(self.folder)), ranks=ranks))

    def _ranks(self, job: Job, cfg: Config, checkpoint: Path) -> dict[str, dict]:
        """Measure the rank of a method's features on its photos, before and after pretraining."""
        if cfg.model.type != 'SoCo':
            return {}
        method = self.study.methods[job.name]
        dataset = held_out_dataset(cfg, self.data.root, self.data.store(method.boxes))
        models = dict(before=build_start(cfg, self.weights if method.weights else None, job.number),
                      after=build_model(cfg, checkpoint))
        return {when: {name: rank._asdict() for name, rank in rank_of_model(model, dataset).items()}
                for when, model in models.items()}

    def _train_method(self, job: Job, options: dict, folder: Path, report: Callable
                      ) -> tuple[float, Path, str]:
        if self.study.methods[job.name].weights:
            options = {**options, 'load_from': self.weights}
        command = training.pretraining_command(self.study, self.data, job, options, folder)
        seconds = self._train(command, folder, job, report)
        return seconds, training.keep_last(folder), self._as_text(command)

    def _objects(self, job: Job, report: Callable) -> None:
        with self._one_at_a_time:
            started = time.monotonic()
            model = self._network(job.number, self._parts(job))
            if self._views is None:
                self._views = held_out_dataset(self._object_config(), self.data.root,
                                               self.data.store(BOXES[0], 'val'))
            values, samples = judge(model, self._photos('val'), job.number, self.study.resamples,
                                    self._views)
        self._add(job, dict(seconds=time.monotonic() - started, values=values), samples)

    def _finetune_trial(self, job: Job, report: Callable) -> None:
        options = self.study.detector_options[job.number]
        with self._may_diverge(job, options):
            self._fine_tune(job, options, 0, report)

    def _finetune(self, job: Job, report: Callable) -> None:
        options = self._chosen('finetune_trial', job.name, self.study.detector_options)
        self._fine_tune(job, options, self.study.resamples, report)

    def _fine_tune(self, job: Job, options: dict, resamples: int, report: Report) -> None:
        folder, parts = self.folder / job.key, self._parts(job)
        weights = folder / 'start.pth' if parts else None
        command = training.finetuning_command(self.study, self.data, job, options, folder, weights)

        def train() -> float:
            if weights:
                training.write_weights(parts, weights)
            return self._train(command, folder, job, report)

        cfg = load_config(self.study.detector, {}, register=False)
        kinds = cfg.val_evaluator.metric
        interval = cfg.train_cfg.val_interval
        _, labels = training.judged_splits(self.data, job)
        seconds, values, samples = training.train_detector(
            train, folder, job.key, labels, range(interval, cfg.train_cfg.max_iters + 1, interval),
            [kinds] if isinstance(kinds, str) else list(kinds), resamples, self._stop, self.console)
        self._add(job, dict(options=options, command=self._as_text(command), seconds=seconds,
                            values=values), samples if resamples else None)

    def _train(self, command: list[str], folder: Path, job: Job, report: Callable) -> float:
        return training.train(command, folder, job.key, report, self._stop,
                              training.thread_environment(self.study.workers), [self.records.lock])

    def _as_text(self, command: list[str]) -> str:
        """Return a command as text for the record, without paths of this machine."""
        return ('python ' + ' '.join(command)).replace(str(self.folder), 'WORK_DIR').replace(
            str(self.data.root), 'DATA').replace(str(self.weights), 'WEIGHTS')

    def _parts(self, job: Job) -> dict[str, torch.Tensor]:
        """Return the pretrained tensors that an arm transfers to the detector."""
        arm = self.study.arms[job.name]
        if arm.weights:
            return training.state_of(self.weights, arm.parts)
        if arm.method is None:
            return {}
        seed = self.study.seeds[0] if job.kind == 'finetune_trial' else job.number
        record = self.records[Job('pretrain', arm.method, seed).key]
        return training.state_of(self.folder / record['checkpoint'], arm.parts)

    def _chosen(self, kind: str, name: str, options: Any) -> dict:
        """Return the options of the best trial."""
        if len(options) == 1:
            return dict(options[0])
        trials = [self.records[Job(kind, name, i).key] for i in range(len(options))]
        best = max(trials, key=lambda trial: score_of_trial(kind, trial['values']))
        if not best['values']:
            raise ValueError(f'All trials of {name} diverged, such as: {best["lost"]} Change the '
                             "study's options and use another --work-dir.")
        return best['options']

    def _object_config(self) -> Any:
        return load_config(self.study.object_config, {})

    def _network(self, seed: int, parts: dict[str, torch.Tensor]) -> SoCo:
        model = build_arm(self._object_config(), seed, parts)
        return model.to('cuda' if torch.cuda.is_available() else 'cpu')

    def _photos(self, split: str) -> LabelledPhotos:
        if split not in self._labelled:
            view = first_view(self._object_config())
            self._labelled[split] = read_labelled(
                self.data.labels(split), open_source(self.data.root), view['size'],
                finest_level=view.get('finest_level', 0))
        return self._labelled[split]

    def _add(self, job: Job, record: dict, samples: dict | None = None) -> None:
        about = dict(date=date.today().isoformat(), commit=self._commit)
        self.records.add(job.key, {**about, **record}, samples)


def score_of_trial(kind: str, values: dict[str, float]) -> float:
    """Return the score that trials are compared by.

    Args:
        kind (str): 'trial' or 'finetune_trial'.
        values (dict[str, float]): Values of the trial's record; empty if it diverged.

    Returns:
        float: 5-NN of the backbone's features, or for a detector, box AP50 of the last validation;
        -inf for a diverged trial.
    """
    name = CHOSEN_BY[kind]
    if not values:
        return -math.inf
    if kind == 'trial':
        return values[name]
    points = [key for key in values if key.startswith(f'{name}@')]
    return values[max(points, key=lambda key: int(key.partition('@')[2]))]
