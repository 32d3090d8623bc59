"""The config of a study: what it compares on which data, in which order, and the resulting jobs."""
import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from mmengine.config import Config

BOXES = ('selective_search', 'random')  # sources of tools/generate_proposals.py
PARTS = ('backbone', 'neck', 'roi_head.bbox_head')
CLASSES = ('name', 'supercategory')


@dataclass(frozen=True)
class DataSet:
    """Photos with annotations; paths are relative to the folder of the study's data.

    Args:
        images (str): Folder of the photos.
        train (str): Annotations to train on. Pretraining sees their photos, without the labels.
        val (str): Annotations to evaluate on. Pretraining never sees their photos.
        classes (str): Whether a category is its 'name' or its 'supercategory'. Defaults to 'name'.
        unlabelled (Sequence[str]): Folders of more photos for pretraining. Defaults to none.
    """

    images: str
    train: str
    val: str
    classes: str = 'name'
    unlabelled: Sequence[str] = ()


@dataclass(frozen=True)
class Pretraining:
    """A pretraining of the detector on the photos of a data set.

    Args:
        weights (bool): Whether it starts from the study's weights (`--weights`) instead of random ones.
            Defaults to False.
        boxes (str, optional): Source of the boxes, one of `BOXES`. Defaults to None: the search of
            tools/pretrain_detector.py, or with `config` the paper's.
        config (str, optional): A pretraining config for tools/train.py, such as BYOL's. Defaults to
            None: tools/pretrain_detector.py derives it from the detector.
        options (Sequence[str]): More options of tools/pretrain_detector.py, or with `config` changes of
            it (`KEY=VALUE`). Defaults to none.
        epochs (int, optional): Length. Defaults to None: that of tools/pretrain_detector.py.
    """

    weights: bool = False
    boxes: str | None = None
    config: str | None = None
    options: Sequence[str] = ()
    epochs: int | None = None


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


class CompareJob(NamedTuple):
    """One detector to train.

    Args:
        start (str): Name of the start.
        share (int): Percentage of the labels.
        seed (int): Seed of fine-tuning, of random weights and of the choice of labels.
    """

    start: str
    share: int
    seed: int

    @property
    def key(self) -> str:
        """Key of the record, and path of the folder in the work directory."""
        return f'finetune/{self.start}/{self.share}percent/seed{self.seed}'


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
class Study:
    """A study of starts on one or several data sets, with the fields of its config.

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


def read_study(path: str | Path) -> Study:
    """Read a study's config.

    Args:
        path (str | Path): A config with a dict `study` with the fields of `Study`; the entries of
            sets, pretrainings, starts and steps are dicts with the fields of their classes. Paths of
            configs are relative to the current folder.

    Returns:
        Study: The study.

    Raises:
        FileNotFoundError: If the file, or a config that it refers to, does not exist.
        ValueError: If a field is missing, unknown, or inconsistent with the others.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f'There is no study at {path}. See configs/benchmarks/transfer_study/.')
    content = Config.fromfile(path)._cfg_dict.to_dict().get('study')
    if not isinstance(content, dict):
        raise ValueError(f'{path} has no dict named study; see '
                         'configs/benchmarks/transfer_study/.')
    for field, kind in (('sets', DataSet), ('pretrainings', Pretraining), ('starts', Origin)):
        content[field] = {name: _make(kind, values, f'{path}: {field}.{name}')
                          for name, values in content.get(field, {}).items()}
    content['steps'] = [_make(Step, values, f'{path}: steps[{i}]')
                        for i, values in enumerate(content.get('steps', []))]
    content['pairs'] = [tuple(pair) for pair in content.get('pairs', [])]
    study = _make(Study, content, str(path))
    _check(study, path)
    return study


def _make(kind: Any, values: dict, where: str) -> Any:
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

    def known(name: str, among: Mapping, where: str) -> None:
        if name not in among:
            refuse(f'{where} names {name!r}, which is none of {", ".join(among)}.')

    for name, pretraining in study.pretrainings.items():
        if pretraining.boxes not in (None, *BOXES):
            refuse(f'pretrainings.{name}.boxes must be one of {", ".join(BOXES)}, not '
                   f'{pretraining.boxes!r}.')
        if pretraining.epochs is not None and pretraining.epochs < 1:
            refuse(f'pretrainings.{name}.epochs must be at least 1, not {pretraining.epochs}.')
    for name, data in study.sets.items():
        if data.classes not in CLASSES:
            refuse(f'sets.{name}.classes must be one of {", ".join(CLASSES)}, not {data.classes!r}.')
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
