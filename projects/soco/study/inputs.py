"""What a comparison is given: starts, and annotations of train and val, read and checked."""
import json
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from ..annotations.copies import FOLDER, Use, settle
from ..annotations.formats import as_coco
from ..annotations.read import read_categories, read_json
from ..files import hash_of, write_whole
from ..proposals.store import ProposalStore
from ..runs.read import read_work_dir
from ..weights.read import find_newest_checkpoint


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
    import mmcv  # late: what is missing is told first

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
