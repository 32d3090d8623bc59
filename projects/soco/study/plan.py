"""The config of a study: what it compares, in which order, and the resulting jobs."""
import hashlib
import inspect
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

from mmengine.config import Config

BOXES = ('selective_search', 'random')  # sources of tools/generate_proposals.py
PARTS = ('backbone', 'neck', 'roi_head.bbox_head')
STAGES = ('objects', 'finetune')
CLASSES = ('name', 'supercategory')


class Job(NamedTuple):
    """A unit of work that results in one record.

    Args:
        kind (str): 'trial' (a short pretraining, to choose options), 'pretrain', 'objects',
            'finetune_trial' or 'finetune'.
        name (str): The method for 'trial' and 'pretrain', else the arm.
        number (int): The seed; for trials, the index of the options.
        share (int): Percentage of the labels, for 'finetune'. Defaults to 100.
    """
    kind: str
    name: str
    number: int
    share: int = 100

    @property
    def key(self) -> str:
        """Key of the record, and path of the folder in the work directory."""
        last = f'{self.kind.endswith("trial") and "options" or "seed"}{self.number}'
        share = f'{self.share}percent/' if self.kind == 'finetune' else ''
        return f'{self.kind}/{self.name}/{share}{last}'


@dataclass(frozen=True)
class Method:
    """A pretraining method.

    Args:
        config (str): Pretraining config. Its schedule must be a warm-up and a cosine, in epochs; the
            study sets the end.
        boxes (str): One of `BOXES`. Defaults to selective search.
        options (Sequence[dict]): Options to try before the first run, each a dict of dotted keys of
            the config. The best is used. Defaults to one without changes.
        weights (bool): Whether pretraining starts from the study's weights (`--weights`) instead of
            random ones. Defaults to False.
    """
    config: str
    boxes: str = BOXES[0]
    options: Sequence[dict] = ({}, )
    weights: bool = False


@dataclass(frozen=True)
class Arm:
    """An initialisation of the detector.

    Args:
        title (str): Name of the arm in tables and pictures.
        method (str, optional): Method whose weights initialise `parts`. Defaults to None: random
            weights.
        parts (Sequence[str]): Pretrained parts, some of `PARTS`. Defaults to none.
        weights (bool): Without a method: whether the parts are those of the study's weights
            (`--weights`). Defaults to False.
    """
    title: str
    method: str | None = None
    parts: Sequence[str] = ()
    weights: bool = False


@dataclass(frozen=True)
class Study:
    """A study, with the fields of its config.

    Args:
        name (str): Name of the study, of its folder in work_dirs/ and in the records.
        seeds (Sequence[int]): Seeds of pretraining, random weights, fine-tuning and shares of labels.
        data (dict): `unlabelled` (folders of photos, and COCO jsons whose labels are not used),
            `images` (folder of the annotated photos), `train` and `val` (COCO jsons), all relative to
            the folder that is passed on the command line; `tune_percent`, the share of train's photos
            on which options are chosen; and `classes`, whether a category is its 'name' (the default)
            or its 'supercategory'. With `val_percent` instead of `val`, this share of train's photos
            is held out as val, and nothing else sees them.
        methods (dict[str, Method]): Pretraining methods.
        arms (dict[str, Arm]): Arms to compare.
        references (Sequence[str]): Arms that all others are compared with.
        epochs (int): Epochs of pretraining.
        trial_epochs (int): Epochs of each pretraining trial.
        object_config (str): Pretraining config whose network embeds objects. Its backbone must be that
            of all methods. Annotated photos are resized to the size of its first view.
        detector (str): Config of a detector with a `KeepPredictionsHook`. AP is reported for each of
            its validations.
        order (Sequence[dict]): Steps in order, dicts of `stage` ('objects' or 'finetune'), `arms`, and
            for 'finetune' `share` (percentage of the labels), and optionally `seeds`, some of the
            study's. Jobs that a step needs run before it.
        detector_options (Sequence[dict]): Options to try for each arm's fine-tuning. Defaults to one
            without changes.
        workers (int): Number of concurrent jobs. Defaults to 1.
        resamples (int): Number of bootstrap draws. Defaults to 1000.
    """
    name: str
    seeds: Sequence[int]
    data: dict
    methods: dict
    arms: dict
    references: Sequence[str]
    epochs: int
    trial_epochs: int
    object_config: str
    detector: str
    order: Sequence[dict]
    detector_options: Sequence[dict] = ({}, )
    workers: int = 1
    resamples: int = 1000

    def jobs(self) -> Iterator[Job]:
        """Yield all jobs once, each after the jobs that it needs."""
        seen: set[Job] = set()
        for step in self.order:
            for seed in step.get('seeds', self.seeds):
                for arm in step['arms']:
                    yield from self._with_needs(Job(step['stage'], arm, seed, step.get('share', 100)),
                                                seen)

    def _with_needs(self, job: Job, seen: set) -> Iterator[Job]:
        if job in seen:
            return
        seen.add(job)
        for need in self.needs(job):
            yield from self._with_needs(need, seen)
        yield job

    def fingerprint(self) -> str:
        """Return a hash of 12 hex digits of all fields and configs that affect results.

        Order, workers, references and titles do not affect results.
        """
        configs = sorted({self.object_config, self.detector,
                          *(method.config for method in self.methods.values())})
        fields = {name: value for name, value in asdict(self).items()
                  if name not in ('order', 'workers', 'references')}
        fields['arms'] = {name: [arm.method, list(arm.parts), arm.weights]
                          for name, arm in self.arms.items()}
        contents = [Config.fromfile(path, import_custom_modules=False).to_dict() for path in configs]
        texts = [json.dumps(content, sort_keys=True) for content in (fields, *contents)]
        # Independent of the checkout's path.
        return hashlib.sha256('\n'.join(texts).replace(os.getcwd(), '').encode()).hexdigest()[:12]

    @property
    def needs_weights(self) -> bool:
        """Whether some part of the study starts from weights that the user has to give."""
        return any(part.weights for part in (*self.methods.values(), *self.arms.values()))

    def needs(self, job: Job) -> list[Job]:
        """Return the jobs that must run before a job."""
        if job.kind == 'trial':
            return []
        if job.kind == 'pretrain':
            return _trials('trial', job.name, self.methods[job.name].options)
        method = self.arms[job.name].method
        # Options of fine-tuning are chosen with the first seed's weights.
        seed = self.seeds[0] if job.kind == 'finetune_trial' else job.number
        pretraining = [Job('pretrain', method, seed)] if method else []
        if job.kind == 'finetune':
            return pretraining + _trials('finetune_trial', job.name, self.detector_options)
        return pretraining


def _trials(kind: str, name: str, options: Sequence[dict]) -> list[Job]:
    return [Job(kind, name, i) for i in range(len(options))] if len(options) > 1 else []


def read_study(path: str | Path) -> Study:
    """Read a study's config.

    Args:
        path (str | Path): A config with a dict `study`, which has the fields of `Study`. Entries of
            `methods` have the fields of `Method`, entries of `arms` those of `Arm`. Paths of configs
            are relative to the current folder.

    Returns:
        Study: The study.

    Raises:
        FileNotFoundError: If the file, or a config that it refers to, does not exist.
        ValueError: If a field is missing, unknown or inconsistent with the others.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f'There is no study at {path}. The studies are in '
                                'configs/benchmarks/transfer_study/.')
    content = Config.fromfile(path)._cfg_dict.to_dict().get('study')
    if not isinstance(content, dict):
        raise ValueError(f'{path} has no dict named study; see those in '
                         'configs/benchmarks/transfer_study/.')
    content['methods'] = {name: make(Method, value, f'{path}: methods.{name}')
                          for name, value in _dict_of(content, 'methods', path).items()}
    content['arms'] = {name: make(Arm, value, f'{path}: arms.{name}')
                       for name, value in _dict_of(content, 'arms', path).items()}
    study = make(Study, content, str(path))
    _check(study, path)
    return study


def _dict_of(content: dict, key: str, path: str | Path) -> dict:
    if not isinstance(content.get(key), dict):
        raise ValueError(f'{path}: {key} must be a dict of dicts.')
    return content[key]


def make(kind: Any, values: dict, where: str) -> Any:
    """Make a dataclass from a dict of a config.

    Args:
        kind (Any): The class.
        values (dict): The fields.
        where (str): Name of the entry, for messages.

    Returns:
        Any: The object.

    Raises:
        ValueError: If a field is missing or unknown.
    """
    known = inspect.signature(kind).parameters
    needed = [name for name, p in known.items() if p.default is p.empty and name not in values]
    unknown = sorted(set(values) - set(known))
    if needed or unknown:
        raise ValueError(f'{where}: ' + '; '.join(
            [f'{name} is missing' for name in needed] + [f'{name} is not known' for name in unknown])
            + f'. The fields are {", ".join(known)}.')
    return kind(**values)


def _check(study: Study, path: str | Path) -> None:
    def refuse(what: str) -> None:
        raise ValueError(f'{path}: {what}')

    if not study.seeds or len(set(study.seeds)) < len(study.seeds):
        refuse(f'seeds must be different numbers, at least one, not {list(study.seeds)}.')
    for name, method in study.methods.items():
        if method.boxes not in BOXES:
            refuse(f'methods.{name}.boxes must be one of {", ".join(BOXES)}, not {method.boxes!r}.')
        if not method.options:
            refuse(f'methods.{name}.options is empty. Remove it, or add at least one dict.')
    for name, arm in study.arms.items():
        wrong = [part for part in arm.parts if part not in PARTS]
        if wrong:
            refuse(f'arms.{name}.parts contains {wrong[0]!r}; the parts are {", ".join(PARTS)}.')
        if bool(arm.method or arm.weights) != bool(arm.parts) or (
                arm.method and (arm.weights or arm.method not in study.methods)):
            refuse(f'arms.{name}: set a method ({", ".join(study.methods)}) and its pretrained parts, '
                   'or weights=True and the parts that they contain, or nothing.')
    if ('val' in study.data) == ('val_percent' in study.data):
        refuse('data must contain either val, a COCO json, or val_percent, a share of train.')
    if study.data.get('classes', 'name') not in CLASSES:
        refuse(f'data.classes must be one of {", ".join(CLASSES)}, not {study.data["classes"]!r}.')
    for i, step in enumerate(study.order):
        if step.get('stage') not in STAGES or not 0 < step.get('share', 100) <= 100:
            refuse(f'order[{i}] must have a stage ({", ".join(STAGES)}), arms, and for finetune a '
                   'share of the labels within (0, 100] percent.')
    for name in [*study.references, *(arm for step in study.order for arm in step['arms'])]:
        if name not in study.arms:
            refuse(f'there is no arm {name!r}; the arms are {", ".join(study.arms)}.')
    for config in [study.object_config, study.detector, *(m.config for m in study.methods.values())]:
        if not Path(config).is_file():
            raise FileNotFoundError(f'{path} refers to {config}, which does not exist. Paths are '
                                    "relative to the project's folder.")
