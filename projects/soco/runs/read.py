"""Reading of a run's work directory, without executing its config or checkpoint."""
import csv
import itertools
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from ..files import run_checkpoints
from ..weights.read import find_newest_checkpoint, read_checkpoint
from .config_changes import changes_between, read_dumped
from .log import read_run
from .record import RECORD, read_record

HEADS = ('roi_head', 'rpn_head', 'bbox_head', 'mask_head', 'panoptic_head')  # of mmdet's detectors


class Picture(NamedTuple):
    """A picture that a hook drew.

    Args:
        step (int): Iteration.
        path (Path): The file.
    """
    step: int
    path: Path


@dataclass
class Run:
    """The content of a run's work directory.

    Attributes:
        work_dir (Path): The folder.
        records (list[dict]): Logged values of all sessions, by iteration; see `log.read_run`.
        sessions (list[dict]): See `read_record`. Empty for a run without a record.
        starts (int): Number of starts, including resumed ones.
        config (dict | None): See `read_dumped`. None if no config can be read.
        config_text (str): Text of the config.
        config_path (Path | None): Config file for commands that resume or score the run.
        checkpoint (Path | None): The checkpoint that was trained longest.
        done (dict[str, int]): Iterations trained so far, `iter`, and epochs, `epoch`, if known.
        pictures (dict[str, list[Picture]]): Kind ('views', 'neighbours') to pictures, latest first.
        bad_images (list[dict]): Rows of `bad_images.csv`: image, reason, replaced_by.
        troubles (list[str]): Messages on what could not be read.
    """
    work_dir: Path
    records: list[dict] = field(default_factory=list)
    sessions: list[dict] = field(default_factory=list)
    starts: int = 0
    config: dict[str, Any] | None = None
    config_text: str = ''
    config_path: Path | None = None
    checkpoint: Path | None = None
    done: dict[str, int] = field(default_factory=dict)
    pictures: dict[str, list[Picture]] = field(default_factory=dict)
    bad_images: list[dict[str, str]] = field(default_factory=list)
    troubles: list[str] = field(default_factory=list)

    def part(self, key: str) -> dict[str, Any]:
        """Return the dict at a dotted key of the config, or an empty dict if there is none."""
        node: Any = self.config
        for name in key.split('.'):
            node = node.get(name) if isinstance(node, dict) else None
        return node if isinstance(node, dict) else {}

    @property
    def kind(self) -> str:
        """Type of the model; 'SoCo' if it is not known."""
        return self.part('model').get('type', 'SoCo')

    @property
    def is_detector(self) -> bool:
        """Whether the run trains a detector."""
        return self.kind != 'SoCo' and any(self.part(f'model.{head}') for head in HEADS)

    @property
    def processes(self) -> int:
        """Number of processes of the last session; 1 if not recorded."""
        return self.sessions[-1]['processes'] if self.sessions else 1

    @property
    def wanted(self) -> dict[str, int]:
        """Configured length of the run, `epoch` or `iter`; empty if not known."""
        loop, names = self.part('train_cfg'), {'max_epochs': 'epoch', 'max_iters': 'iter'}
        return {names[key]: loop[key] for key in names if isinstance(loop.get(key), int)}

    @property
    def finished(self) -> bool:
        """Whether the run finished, from its record or else from its latest checkpoint."""
        if self.sessions:
            return self.sessions[-1].get('how') == 'finished'
        return bool(self.wanted) and all(self.done.get(key, 0) >= n for key, n in self.wanted.items())

    @property
    def seconds(self) -> float:
        """Time spent in iterations, from the logged mean time per iteration."""
        # An iteration of an earlier start may have been a part or a multiple of one of the last start.
        times = [(_step(r), r['time'] / r.get('scale', 1.0)) for r in self.records
                 if _is_number(r.get('time'))]
        before = [0, *(step for step, _ in times)]
        return sum((step - last) * time for last, (step, time) in zip(before, times))


def read_work_dir(work_dir: str | Path) -> Run:
    """Read the work directory of a run.

    Args:
        work_dir (str | Path): The work directory.

    Returns:
        Run: Its content. Damaged files are left out and listed in `troubles`.

    Raises:
        FileNotFoundError: If the folder does not exist.
        ValueError: If it contains no run.
    """
    work_dir = Path(work_dir)
    if not work_dir.is_dir():
        raise FileNotFoundError(f'There is no work directory at {work_dir}. Pass the folder that '
                                'tools/train.py wrote to, such as work_dirs/soco_r50_fpn_400e.')
    run = Run(work_dir)
    folders = sorted(path for path in work_dir.glob('*/vis_data') if path.is_dir())
    checkpoints = run_checkpoints(work_dir)
    if not folders and not checkpoints and not (work_dir / RECORD).is_file():
        raise ValueError(f'{work_dir} contains no run: no TIMESTAMP/vis_data, no epoch_*.pth or '
                         f'iter_*.pth and no {RECORD}. Pass the work directory of a run, such as '
                         'work_dirs/soco_r50_fpn_400e, not its parent folder or a subfolder.')
    _read_record(run)
    _read_scalars(run, folders)
    _read_config(run, folders)
    _read_checkpoint(run, checkpoints)
    _read_bad_images(run)
    for kind in ('views', 'neighbours'):
        run.pictures[kind] = sorted(_pictures(folders, kind), reverse=True)
    return run


def _read_record(run: Run) -> None:
    path = run.work_dir / RECORD
    try:
        run.sessions = read_record(path)
    except FileNotFoundError:
        run.troubles.append(f'There is no {RECORD}: commit, versions and hardware were not recorded '
                            '(tools/train.py writes it).')
    except ValueError as error:
        run.troubles.append(str(error))


def _read_scalars(run: Run, folders: Sequence[Path]) -> None:
    run.starts = len(run.sessions) or len(folders)
    try:
        run.records = read_run(run.work_dir)
    except FileNotFoundError:
        return
    except ValueError as error:
        run.troubles.append(f'{error} Until then, the report has no curves.')
        return
    for path in (folder / 'scalars.json' for folder in folders):
        content = path.read_bytes() if path.is_file() else b''
        if content and not content.endswith(b'\n'):
            run.troubles.append(f'{path} ends in the middle of a line, because the run was killed. '
                                'That line is left out.')
    trained = [r for r in run.records if 'loss' in r]
    if trained:
        run.done['iter'] = _step(trained[-1])
    if trained and _is_number(trained[-1].get('epoch')):
        run.done['epoch'] = int(trained[-1]['epoch']) - 1  # the logged epoch may be unfinished


def _read_config(run: Run, folders: Sequence[Path]) -> None:
    copies = sorted(run.work_dir.glob('*.py'), key=lambda path: path.stat().st_mtime)
    dumped = [folder / 'config.py' for folder in folders if (folder / 'config.py').is_file()]
    for path in (dumped[-1:] or copies[-1:]):
        try:
            run.config_text = path.read_text(encoding='utf-8', errors='replace')
            run.config = read_dumped(run.config_text)
            run.config_path = copies[-1] if copies else path
        except ValueError as error:
            run.troubles.append(f'{path}: {error}.')


def _read_checkpoint(run: Run, checkpoints: Sequence[Path]) -> None:
    run.checkpoint = find_newest_checkpoint(run.work_dir)
    if run.checkpoint is None:
        if checkpoints:
            run.troubles.append(f'None of the {len(checkpoints)} checkpoints can be opened. They are '
                                'incomplete, or are not checkpoints.')
        return
    newer = [p.name for p in checkpoints if p.stat().st_mtime > run.checkpoint.stat().st_mtime]
    if newer:
        run.troubles.append(f'{run.checkpoint.name} was trained longest, but '
                            f'{", ".join(sorted(newer))} was written later: it cannot be opened, or '
                            'belongs to another run.')
    meta = read_checkpoint(run.checkpoint)['meta']
    if run.done.get('iter', 0) <= meta['iter']:
        run.done = {'iter': int(meta['iter']), 'epoch': int(meta.get('epoch', 0))}
    try:
        inside = read_dumped(str(meta.get('cfg') or ''))
    except ValueError:
        inside = {}
    if run.config is None:
        run.config, run.config_text = inside or None, str(meta.get('cfg') or '')
        run.troubles.append(
            f'There is no config beside {run.checkpoint.name}. ' + (
                'The config inside the checkpoint is shown.' if inside else 'The checkpoint contains '
                'none either, so the commands of the next steps are incomplete.'))
    elif inside:
        changes = changes_between(inside.get('model'), run.config.get('model'))
        if changes:
            keys = ', '.join(f'model.{change.key}' for change in changes[:5])
            run.troubles.append(
                f'{run.checkpoint.name} was made by another config than the one in this folder: they '
                f'differ in {keys}{" and more" if len(changes) > 5 else ""}. Two runs share this '
                'folder, or a file was copied here. Use a separate work directory for each run.')


def _read_bad_images(run: Run) -> None:
    from ..datasets.dataset import BadPhoto  # only here: their import takes seconds
    from ..engine.bad_image_hook import TABLE
    path = run.work_dir / TABLE
    if path.is_file():
        with open(path, encoding='utf-8', errors='replace', newline='') as file:
            lines = (line.replace('\0', '�') for line in file)
            run.bad_images = [{key: str(row.get(key) or '') for key in BadPhoto._fields}
                              for row in csv.DictReader(lines)]


def _pictures(folders: Sequence[Path], kind: str) -> Iterator[Picture]:
    for path in itertools.chain.from_iterable(f.glob(f'vis_image/{kind}*.png') for f in folders):
        numbers = re.findall(r'\d+', path.stem)
        yield Picture(int(numbers[-1]) if numbers else 0, path)


def _step(record: dict) -> int:
    step = record.get('step', record.get('iter', 0))
    return int(step) if _is_number(step) else 0


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and math.isfinite(value)
