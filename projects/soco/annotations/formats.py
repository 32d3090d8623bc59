"""VOC's XML files and YOLO's text files, read as the content of a COCO json.

The parsing is our own, because readers of libraries (supervision, MMDetection) neither check classes
and numbers of each line nor say which file is wrong.
"""
import hashlib
import json
import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, NoReturn
from xml.etree import ElementTree

import yaml

from ..files import write_whole
from .copies import FOLDER
from .findings import NOTE, REFUSED, Judgement
from .photos import PhotoTree, photo_size
from .read import read_lines
from .values import as_number, shown
from .voc import CORNERS

PHOTOS = ('.jpg', '.jpeg', '.png', '.bmp', '.webp', '.tif', '.tiff')
NO_LABELS = ('classes.txt', 'labels.txt', 'train.txt', 'val.txt', 'test.txt')  # lists in a YOLO folder
_SIBLINGS = {'labels': 'images', 'Annotations': 'JPEGImages'}  # where a label file's photo is
_LEVELS = 3  # folders above the label files in which the names of YOLO's classes are looked for
_GIVE = ('Give a COCO json, a folder of VOC XML files, a list of their names '
         '(ImageSets/Main/train.txt), or a folder of YOLO text files (labels/train).')


class Labels(NamedTuple):
    """Annotation files of one split.

    Attributes:
        kind (str): 'VOC XML' or 'YOLO text'.
        files (list[Path]): A file for each photo.
    """

    kind: str
    files: list[Path]


def is_coco(path: str | Path) -> bool:
    """Return whether a path is meant to be a COCO json: whatever is neither a folder nor a list."""
    return not (os.path.isdir(path) or str(path).lower().endswith(('.txt', '.xml', '.yaml', '.yml')))


def as_coco(path: str | Path, images: str | Path, work_dir: str | Path,
            report: Callable[[str], Any] = print, classes: Sequence[str] | None = None) -> Path:
    """Return a COCO json of annotations, written into the work directory if they have another format.

    Args:
        path (str | Path): COCO json; folder of VOC XML files, or a list of their names beside
            `Annotations/`; or folder of YOLO text files.
        images (str | Path): Folder of the photos.
        work_dir (str | Path): The json is written to `annotations/` there, once for the same content.
        report (Callable[[str], Any]): Called with a line on what was written. Defaults to `print`.
        classes (Sequence[str], optional): See `read_as_coco`.

    Returns:
        Path: `path` itself, or the json.

    Raises:
        FileNotFoundError: See `read_as_coco`.
        ValueError: See `read_as_coco`.
        NotWrittenError: If the work directory cannot be written to.
    """
    if is_coco(path):
        return Path(path)
    return write_coco(read_as_coco(path, images, classes).accept(), path, work_dir, report)


def write_coco(judged: Judgement, path: str | Path, work_dir: str | Path,
               report: Callable[[str], Any] = print) -> Path:
    """Write annotations that were read into the work directory, once for the same content.

    Args:
        judged (Judgement): Output of `read_as_coco`, accepted.
        path (str | Path): What was read.
        work_dir (str | Path): The json is written to `annotations/` there.
        report (Callable[[str], Any]): Called with a line on what was written. Defaults to `print`.

    Returns:
        Path: The json.

    Raises:
        NotWrittenError: If the work directory cannot be written to.
    """
    content = json.dumps(judged.content).encode()
    out = (Path(work_dir).absolute() / FOLDER
           / f'{Path(path).resolve().stem}.{hashlib.sha256(content).hexdigest()[:12]}.json')
    if not out.is_file():
        out.parent.mkdir(parents=True, exist_ok=True)
        write_whole(out, content)
    report(f'{path}: {judged.findings[0].kind}, {len(judged.content["images"])} photos with '
           f'{len(judged.content["annotations"])} objects, written as a COCO json to {out}')
    for line in judged.findings[1:]:
        report(f'{path}: {line.line(1)}')
    return out


def read_as_coco(path: str | Path, images: str | Path | None,
                 classes: Sequence[str] | None = None) -> Judgement:
    """Read VOC XML or YOLO text files as the content of a COCO json.

    Args:
        path (str | Path): See `as_coco`.
        images (str | Path, optional): Folder of the photos.
        classes (Sequence[str], optional): Names of the classes that come first, whether they have
            objects or not: those of train, for val. Defaults to None: VOC's are sorted by name.

    Returns:
        Judgement: The content, and what was found; the first finding is the format. Call `accept` to
        stop where something is refused.

    Raises:
        FileNotFoundError: If there is no such folder or list, or no folder of photos.
        ValueError: If it contains no annotation files, or YOLO's classes have no names.
    """
    if images is None or not Path(images).is_dir():
        raise FileNotFoundError(f'{path}: annotations in this format need the folder of the photos '
                                f'(--images or --root), and {images or "none"} is '
                                f'{"no folder" if images else "given"}.')
    labels = find_labels(Path(path))
    judged = Judgement(str(path), dict(images=[], annotations=[], categories=[]))
    judged.add(NOTE, labels.kind, [], count=len(labels.files))
    finder = _Finder(Path(images).resolve())
    found = [finder.photo_of(file) for file in labels.files]
    missing = [str(file) for file, name in zip(labels.files, found) if name is None]
    judged.add(REFUSED, f'files, of {len(labels.files)}, without exactly one photo of their name '
               f'in {images}', missing, 'Give the folder of the photos of this split, or remove the '
               'files of photos that are gone.')
    twice = [shown(name) for name, count in Counter(found).items() if name and count > 1]
    judged.add(REFUSED, 'photos with several files', twice, 'Give the folder of one split.')
    if judged.of(REFUSED):
        return judged
    read = _read_voc if labels.kind == 'VOC XML' else _read_yolo
    read(judged, labels.files, found, finder, list(classes or ()))
    return judged


def find_labels(path: Path) -> Labels:
    """Find the annotation files that a path means.

    Args:
        path (Path): See `as_coco`.

    Raises:
        FileNotFoundError: If there is no such file or folder.
        ValueError: If there are no annotation files.
    """
    if not path.exists():
        raise FileNotFoundError(f'There are no annotations at {path}. {_GIVE}')
    if path.is_dir():
        xml = sorted(path.rglob('*.xml'))
        if xml:
            return Labels('VOC XML', xml)
        text = [file for file in sorted(path.rglob('*.txt')) if file.name not in NO_LABELS]
        if not text:
            raise ValueError(f'{path} contains no annotation file (.xml or .txt). {_GIVE}')
        return Labels('YOLO text', text)
    if path.suffix.lower() != '.txt':
        raise ValueError(f'{path} is no file of annotations. {_GIVE}')
    folder = next((parent / 'Annotations' for parent in path.resolve().parents[:_LEVELS]
                   if (parent / 'Annotations').is_dir()), None)
    if folder is None:
        raise ValueError(f'{path} is a list, but there is no folder Annotations/ of XML files beside '
                         f'or above it. {_GIVE}')
    names = read_lines(path)
    lacking = [name for name in names if not (folder / f'{name}.xml').is_file()]
    if lacking or not names:
        raise ValueError(f'{path} lists {len(names)} names, of which {len(lacking)} have no XML file '
                         f'in {folder}{f", such as {lacking[0]}.xml" if lacking else ""}. A list has '
                         'one name without suffix on each line.')
    return Labels('VOC XML', [folder / f'{name}.xml' for name in names])


class _Finder:
    """The photos below a folder, by the names of their annotation files."""

    def __init__(self, root: Path) -> None:
        self.root, self.tree = root, PhotoTree(root)
        self.by_stem: dict[str, list[str]] = {}
        for folder, _, files in os.walk(root):
            for file in sorted(files):
                if file.lower().endswith(PHOTOS):
                    name = (Path(folder) / file).relative_to(root).as_posix()
                    self.by_stem.setdefault(Path(file).stem, []).append(name)

    def photo_of(self, file: Path) -> str | None:
        """Return the photo of an annotation file: the one at the usual place, or the only one."""
        names = self.by_stem.get(file.stem, [])
        usual = [name for name in names if (self.root / name).parent in _usual_folders(file)]
        chosen = usual or names
        return chosen[0] if len(chosen) == 1 else None

    def beside(self, files: Sequence[Path], known: Sequence[str | None]) -> list[str]:
        """Return the other photos of the folders that mirror those of YOLO's text files."""
        folders = {folder for file in files for folder in _usual_folders(file)[:-1]}
        return sorted({name for names in self.by_stem.values() for name in names
                       if (self.root / name).parent in folders} - set(known))


def _usual_folders(file: Path) -> list[Path]:
    """Return the folders where the photo of an annotation file usually is, its own at the end."""
    parts = file.resolve().parent.parts
    found = []
    for i in reversed(range(len(parts))):
        if parts[i] in _SIBLINGS:
            found.append(Path(*parts[:i], _SIBLINGS[parts[i]], *parts[i + 1:]))
    return [*found, file.resolve().parent]


def _read_voc(judged: Judgement, files: Sequence[Path], photos: Sequence[str], finder: _Finder,
              classes: list[str]) -> None:
    """Fill in a COCO file from XML; corners count from 1, as in VOC and in MMDetection's reader."""
    broken, faults, nameless, hard = [], [], [], []
    rows: list[tuple[int, str, list[float], int]] = []
    for number, (file, photo) in enumerate(zip(files, photos), 1):
        image: dict = dict(id=number, file_name=photo)
        judged.content['images'].append(image)
        try:
            root = ElementTree.parse(file).getroot()
        except (ElementTree.ParseError, ValueError, LookupError, OSError) as error:
            broken.append(f'{file} ({error})')
            continue
        size = [as_number(root.findtext(f'size/{key}')) or 0 for key in ('width', 'height')]
        if min(size) >= 1:
            image.update(width=int(size[0]), height=int(size[1]))
        for i, thing in enumerate(root.findall('object'), 1):
            title = (thing.findtext('name') or '').strip()
            where = f'{file}, object {i} ({title!r})'
            box = [as_number(thing.findtext(f'bndbox/{key}')) for key in CORNERS]
            if not title:
                nameless.append(where)
            elif None in box or box[2] <= box[0] or box[3] <= box[1]:
                faults.append(where + ': ' + ', '.join(
                    f'{key} {thing.findtext(f"bndbox/{key}")}' for key in CORNERS))
            else:
                difficult = (thing.findtext('difficult') or '').strip() == '1'
                hard += [where] * difficult
                corner = [max(value - 1, 0) for value in box]
                rows.append((number, title, [corner[0], corner[1], corner[2] - corner[0],
                                             corner[3] - corner[1]], int(difficult)))
    judged.add(REFUSED, 'XML files that cannot be read', broken, 'Export them again.')
    judged.add(REFUSED, 'objects without a name', nameless, 'Add the <name>, or remove the object.')
    judged.add(REFUSED, 'objects whose box is not four numbers, the first corner before the second',
               faults, 'Correct the <bndbox>, or remove the object.')
    judged.add(NOTE, 'objects marked as difficult, which neither train nor count (iscrowd)', hard)
    names = list(dict.fromkeys([*classes, *sorted({title for _, title, _, _ in rows})]))
    _fill(judged, names, [(image, names.index(title), box, crowd, [])
                          for image, title, box, crowd in rows])


def _read_yolo(judged: Judgement, files: Sequence[Path], photos: Sequence[str], finder: _Finder,
               classes: list[str]) -> None:
    """Fill in a COCO file from lines of class, centre and size, or class and polygon, all in shares."""
    source, names = read_names(files[0].parent)
    empty = finder.beside(files, photos)
    judged.add(NOTE, 'photos without a text file, taken as photos without objects',
               map(shown, empty))
    unreadable, faults = [], []
    rows: list[tuple[int, int, list[float], int, list]] = []
    pairs = [*zip(files, photos), *((None, name) for name in empty)]
    for number, (file, photo) in enumerate(pairs, 1):
        size, _, problem, _ = photo_size(finder.tree, photo)
        if problem:
            unreadable.append(f'{photo!r}: {problem}')
            continue
        width, height = size
        judged.content['images'].append(
            dict(id=number, file_name=photo, width=width, height=height))
        for line, words in _lines(file):
            what = _fault(words, len(names))
            if what:
                faults.append(f'{file}, line {line}: {what}')
                continue
            values = [float(word) for word in words[1:]]
            xs, ys = [x * width for x in values[::2]], [y * height for y in values[1::2]]
            if len(values) == 4:
                box, shape = [xs[0] - xs[1] / 2, ys[0] - ys[1] / 2, xs[1], ys[1]], []
            else:
                box = [min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys)]
                shape = [[value for point in zip(xs, ys) for value in point]]
            rows.append((number, int(float(words[0])), box, 0, shape))
    judged.add(REFUSED, 'photos that cannot be read', unreadable,
               'Replace them, or remove their files.')
    judged.add(REFUSED, 'lines that are not a class and shares of the photo', faults,
               'A line is: class, then x and y of the centre, width and height, each within 0 and 1; '
               f'or class, then a polygon of at least three points. {source} has {len(names)} '
               'classes, counted from 0.')
    _fill(judged, names, rows)


def _fill(judged: Judgement, names: Sequence[str],
          rows: Sequence[tuple[int, int, list[float], int, list]]) -> None:
    judged.content['categories'] = [dict(id=i, name=name) for i, name in enumerate(names, 1)]
    judged.content['annotations'] = [
        dict(id=i, image_id=image, category_id=label + 1, bbox=[round(value, 3) for value in box],
             area=round(box[2] * box[3], 3), iscrowd=crowd, segmentation=shape)
        for i, (image, label, box, crowd, shape) in enumerate(rows, 1)]


def _lines(file: Path | None) -> Iterator[tuple[int, list[str]]]:
    """Yield number and words of each line that is not empty."""
    if file is not None:
        text = file.read_bytes().decode('utf-8-sig', 'replace')
        yield from ((i, line.split()) for i, line in enumerate(text.splitlines(), 1) if line.strip())


def _fault(words: list[str], classes: int) -> str:
    """Return what is wrong with a line, or ''."""
    numbers = [as_number(word) for word in words]
    if None in numbers:
        return f'{shown(" ".join(words))} has something that is not a number'
    label, shares = numbers[0], numbers[1:]
    if label != int(label) or not 0 <= label < classes:
        return f'class {words[0]} is not one of the {classes}, 0 to {classes - 1}'
    if len(shares) != 4 and (len(shares) < 6 or len(shares) % 2):
        return f'it has {len(words)} numbers'
    outside = [word for word, share in zip(words[1:], shares) if not 0 <= share <= 1]
    if outside:
        return f'{outside[0]} is not within 0 and 1'
    if len(shares) == 4 and not (shares[2] and shares[3]):
        return 'the box has no width or no height'
    return ''


def read_names(folder: Path) -> tuple[Path, list[str]]:
    """Find the names of the classes of YOLO's text files.

    Args:
        folder (Path): Folder of text files. It and three folders above are searched for `data.yaml`,
            `classes.txt`, `obj.names`, or another .yaml file with `names`.

    Returns:
        tuple[Path, list[str]]: The file, and the names in the order of their numbers.

    Raises:
        ValueError: If there is no such file, or it has no names.
    """
    folders = [folder.resolve(), *folder.resolve().parents[:_LEVELS]]
    for place in folders:
        for path in (place / 'data.yaml', place / 'classes.txt', place / 'obj.names',
                     *sorted([*place.glob('*.yaml'), *place.glob('*.yml')])):
            if path.is_file() and path.suffix in ('.txt', '.names') and (names := read_lines(path)):
                return path, names
            if path.is_file() and path.suffix in ('.yaml', '.yml'):
                names = _names_of(path)
                if names:
                    return path, names
                if path.name == 'data.yaml':
                    _refuse_names(path)
    raise ValueError(f'{folder} has YOLO text files, but the names of their classes are not known: '
                     f'there is no data.yaml with names and no classes.txt there or in {_LEVELS} '
                     'folders above. Write classes.txt, with the name of class 0 on the first line.')


def _refuse_names(path: Path) -> NoReturn:
    raise ValueError(f'{path} has no names of classes. Add a list, such as names: [cat, dog], in the '
                     'order of the numbers in the text files.')


def _names_of(path: Path) -> list[str]:
    """Return the names in a .yaml file, [] if it has none."""
    try:
        content = yaml.safe_load(path.read_bytes())
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ValueError(f'{path} is not a file in YAML: {" ".join(str(error).split())}.') from error
    names = content.get('names') if isinstance(content, dict) else None
    if isinstance(names, dict):
        if sorted(names, key=str) != sorted(range(len(names)), key=str):
            raise ValueError(f'{path}: the numbers in names must be 0 to {len(names) - 1}, each once, '
                             f'not {shown(list(names))}.')
        names = [names[i] for i in range(len(names))]
    return [str(name) for name in names] if isinstance(names, list) else []
