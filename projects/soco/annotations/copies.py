"""The judgement of a file for a run, kept by the file's hash, and the mended copy that a run reads."""
import contextlib
import fcntl
import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..files import naming_file, write_whole
from .classes import match_classes
from .findings import REFUSED
from .judge import judge_coco
from .photos import PhotoTree
from .read import no_collection, parse_json

VERSION = 2  # another number judges all files again
FOLDER = 'annotations'  # in the work directory


@dataclass(frozen=True)
class Use:
    """What a run does with a file of annotations.

    Args:
        photos (str | None): Folder of the photos, '' if the names stand alone; None if the photos are
            not looked at.
        classes (tuple[str, ...] | None): Names of the classes in order, None if they do not matter.
        subset (bool): See `match_classes`. Defaults to False.
        masks (bool): Whether each object needs a mask. Defaults to False.
        training (bool): Whether it is for training. Defaults to True.
        compared (bool): Whether `classes` are those of the file to train on, so that one for evaluation
            may lack some. Defaults to False.
    """

    photos: str | None
    classes: tuple[str, ...] | None
    subset: bool = False
    masks: bool = False
    training: bool = True
    compared: bool = False


@dataclass(frozen=True)
class Settled:
    """A file of annotations that a run can use.

    Args:
        source (str): The file that was given.
        path (str): The file to read: the mended copy, or `source` if nothing was mended.
        lines (list[str]): What was mended, and notes.
    """

    source: str
    path: str
    lines: list[str]


def settle(source: str | Path, use: Use, work_dir: str | Path,
           report: Callable[[str], Any] = lambda text: None) -> Settled:
    """Judge a COCO json for a run, and write a mended copy into the work directory if it needs one.

    The judgement is kept there, by the hash of the file and what it is used for. It is made again when
    the file changes, or when a file is added to or removed from a folder of the photos. Processes that
    ask at the same time wait for the first.

    Args:
        source (str | Path): The json.
        use (Use): What it is used for.
        work_dir (str | Path): Work directory of the run.
        report (Callable[[str], Any]): Called with a line when something takes long. Defaults to a
            function that does nothing.

    Returns:
        Settled: The file to read, and what was found.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If something is refused; the message has file, entry and what to do.
        NotWrittenError: If the work directory cannot be written to.
    """
    if not os.path.isfile(source):
        raise FileNotFoundError(f'there is no file {source}.')
    data = Path(source).read_bytes()
    key = hashlib.sha256(data)
    key.update(json.dumps([VERSION, os.path.abspath(source), asdict(use)]).encode())
    folder = Path(work_dir).absolute() / FOLDER
    record = folder / f'{Path(source).stem}.{key.hexdigest()[:12]}.record.json'
    known = _read_record(record)
    if known is None:
        lock = folder / '.lock'
        with naming_file(lock):
            folder.mkdir(parents=True, exist_ok=True)
            lock.touch()
        with _only_one(lock):
            known = _read_record(record)
            if known is None:
                known = _judge(data, source, use, folder, report)
                write_whole(record, json.dumps(known).encode())
    return Settled(known['source'], known['path'], known['lines'])


def find_settled(work_dir: str | Path, path: str | Path) -> Settled | None:
    """Return what `settle` found for a file that a run reads, or None if it was not called for it."""
    for record in sorted((Path(work_dir) / FOLDER).glob('*.record.json')):
        known = _read_record(record)
        if known is not None and known['path'] == os.path.abspath(path):
            return Settled(known['source'], known['path'], known['lines'])
    return None


def _judge(data: bytes, source: str | Path, use: Use, folder: Path,
           report: Callable[[str], Any]) -> dict:
    if len(data) > 20_000_000:
        report(f'Judging {source} ({len(data) / 1e6:.0f} MB), once …')
    tree = None if use.photos is None else PhotoTree(use.photos or '.', absolute=not use.photos)
    with no_collection():
        content = parse_json(data, source)
        judged = judge_coco(content, source, use.masks, tree, sizes=True, report=_progress(report))
        if use.training and not judged.of(REFUSED):
            judged.add(REFUSED, 'empty tables', [
                f'{table} is empty' for table in ('images', 'annotations') if not content[table]],
                'There is nothing to train on.')
        if use.classes is not None and not judged.of(REFUSED):
            match_classes(judged, use.classes, use.subset, use.training, use.compared)
        judged.accept()
        path = os.path.abspath(source)
        if judged.mended:
            text = json.dumps(content).encode()
            # by its content: what is mended to the same for training and for evaluation is one file
            path = str(folder / f'{Path(source).stem}.{hashlib.sha256(text).hexdigest()[:12]}.json')
            write_whole(path, text)
    listed = [os.path.join(tree.root, name) for name in tree.listed] if tree else []
    return dict(source=os.path.abspath(source), path=path, lines=judged.lines(),
                folders={name: _changed(name) for name in listed}, findings=judged.plain())


def _progress(report: Callable[[str], Any]) -> Callable[[int, int], None]:
    """Tell the number of photos that were looked at every five seconds."""
    last = time.monotonic()

    def tell(done: int, total: int) -> None:
        nonlocal last
        if time.monotonic() - last > 5:
            last = time.monotonic()
            report(f'Comparing sizes with the photos, once: {done} of {total}')

    return tell


def _read_record(path: Path) -> dict | None:
    """Return a record that still holds, or None."""
    try:
        known = json.loads(path.read_bytes())
        holds = os.path.isfile(known['path']) and all(
            _changed(folder) == when for folder, when in known['folders'].items())
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return known if holds else None


def _changed(folder: str) -> int:
    try:
        return os.stat(folder).st_mtime_ns
    except OSError:
        return 0


@contextlib.contextmanager
def _only_one(lock: Path) -> Iterator[None]:
    """Let one process at a time into the block, on file systems with locks."""
    with open(lock, 'ab') as file:
        with contextlib.suppress(OSError):
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
