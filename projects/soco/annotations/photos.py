"""The photos that annotations name: whether they are there, under which name, and their sizes."""
import os
import re
import unicodedata
import warnings
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO
from urllib.parse import parse_qs, unquote, urlsplit

from .findings import MENDED, NOTE, REFUSED, Judgement
from .values import shown

LEFT_OUT = 'folders before it left out'
FORMS = ('separators', 'Unicode normal form', 'letter case')
_ORIENTATION = 0x0112
_HASHED = re.compile(r'[0-9a-f]{8}-')  # Label Studio puts this before the name of an uploaded file
_THREADS = 8


class PhotoTree:
    """The names of the files below a folder; each folder is listed once, when it is asked for.

    Args:
        root (str | Path): The folder.
        names (Iterable[str], optional): The files, if they are not on the disk, such as those of an
            archive. Defaults to None.
        opener (Callable[[str], BinaryIO], optional): Opens one of `names`. Defaults to None.
        absolute (bool): Whether absolute paths may be used as they are. Defaults to False.
    """

    def __init__(self, root: str | Path, names: Iterable[str] | None = None,
                 opener: Callable[[str], BinaryIO] | None = None, absolute: bool = False) -> None:
        self.root = os.path.abspath(root)
        self.absolute = absolute
        self._opener = opener
        self.listed: dict[str, set[str]] = {}
        self._folded: dict[str, dict[str, list[str]]] = {}
        self._on_disk = names is None
        for name in names or ():
            while name:
                folder, _, base = name.rpartition('/')
                known = self.listed.setdefault(folder, set())
                if base in known:
                    break
                known.add(base)
                name = folder

    def _list(self, folder: str) -> set[str]:
        if folder not in self.listed:
            try:
                found = set(os.listdir(os.path.join(self.root, folder))) if self._on_disk else set()
            except OSError:
                found = set()
            self.listed[folder] = found
        return self.listed[folder]

    def __contains__(self, name: str) -> bool:
        folder, _, base = name.rpartition('/')
        return base in self._list(folder)

    def open(self, name: str) -> BinaryIO:
        """Open one of the files."""
        return self._opener(name) if self._opener else open(os.path.join(self.root, name), 'rb')

    def similar(self, name: str, key: Callable[[str], str]) -> str | None:
        """Return the one file whose path is the same under a key, such as `str.casefold`."""
        path = ''
        for part in name.split('/'):
            names = self._list(path)
            if part not in names:
                index = self._folded.setdefault(f'{key.__name__} {path}', {})
                if not index:
                    for other in names:
                        index.setdefault(key(other), []).append(other)
                found = index.get(key(part), [])
                if len(found) != 1:
                    return None
                part = found[0]
            path = f'{path}/{part}' if path else part
        return path

    def find(self, name: str) -> tuple[str | None, str]:
        """Find the file that a name means.

        Args:
            name (str): The name in a file of annotations.

        Returns:
            tuple[str | None, str]: The path from the root, None if no file or several fit; and in what
            the name differs, '' if in nothing.
        """
        if _is_plain(name) and name in self or (
                self.absolute and os.path.isabs(name) and os.path.isfile(name)):
            return name, ''
        for way, candidate in _readings(name, self.root):
            if candidate in self:
                return candidate, way
            for similar, key in (('Unicode normal form', _composed), ('letter case', _folded)):
                found = self.similar(candidate, key)
                if found:
                    return found, ' and '.join(filter(None, (way, similar)))
        return None, ''

    def same(self, name: str) -> str | None:
        """Return the file whose path differs at most in separators, normal form and letter case."""
        found, way = self.find(name)
        return found if set(way.split(' and ')) <= {'', *FORMS} else None

    def instead(self, name: str) -> str:
        """Return a sentence that says where a missing file might be, or ''."""
        if not _is_plain(name):
            return ''
        stem, _, suffix = name.rpartition('.')
        folder, _, base = stem.rpartition('/')
        near = sorted(other for other in self._list(folder) if base
                      and other.rpartition('.')[0] == base)
        if near:
            return f'There is {near[0]!r}, with another suffix than .{suffix}.'
        below = sorted(part for part in self._list('') if f'{part}/{name}' in self)
        above = os.path.dirname(self.root)
        for place in (above, os.path.dirname(above), *(f'{self.root}/{part}' for part in below)):
            if os.path.isfile(os.path.join(place, name)):
                return f'{name!r} is in {place}.'
        return ''


def _is_plain(name: str) -> bool:
    return not name.startswith('/') and not {'', '.', '..'} & set(name.split('/'))


def _composed(name: str) -> str:
    return unicodedata.normalize('NFC', name)


def _folded(name: str) -> str:
    return unicodedata.normalize('NFC', unicodedata.normalize('NFC', name).casefold())


def _readings(name: str, root: str) -> Iterable[tuple[str, str]]:
    """Yield what a name may mean, the most literal first; none of them leads out of the folder."""
    slashed = name.replace('\\', '/')
    way = 'separators' if slashed != name else ''
    if re.match(r'\w+://', slashed) or '?' in slashed:
        parts = urlsplit(slashed)
        slashed, way = unquote(parse_qs(parts.query).get('d', [parts.path])[0]), 'address'
    if slashed.startswith(f'{root}/'):
        slashed, way = slashed[len(root) + 1:], way or LEFT_OUT
    path = os.path.normpath(slashed).replace('//', '/')
    if path == '..' or path.startswith('../'):
        return
    relative = not (slashed.startswith('/') or re.match(r'[A-Za-z]:/', slashed))
    if relative and path != '.':
        yield way or ('' if path == name else 'separators'), path
        if '%' in path:
            yield 'address', unquote(path)
    tails = path.lstrip('/').split('/')
    for start in range(0 if not relative else 1, len(tails)):
        yield LEFT_OUT, '/'.join(tails[start:])
    if _HASHED.match(tails[-1]):
        yield 'prefix of an upload left out', tails[-1][9:]
        yield 'prefix of an upload left out', unquote(tails[-1][9:])


def settle_names(judged: Judgement, tree: PhotoTree) -> None:
    """Check that all photos are there; write names that differ in form as the files have them.

    Args:
        judged (Judgement): A COCO file; its `file_name`s are changed in place.
        tree (PhotoTree): The photos.
    """
    images = judged.content['images']
    missing: list[str] = []
    ways: dict[str, list[tuple[dict, str, str]]] = {}
    taken = {row['file_name'] for row in images if _is_plain(row['file_name'])
             and row['file_name'] in tree}
    for row in images if len(taken) < len(images) else ():
        name = row['file_name']
        if name in taken:
            continue
        found, way = tree.find(name)
        if found is None:
            missing.append(name)
        else:
            ways.setdefault(way, []).append((row, name, found))
    ways.pop('', None)  # absolute paths, where they are allowed
    for way, rows in ways.items():
        twice = []
        for _, name, found in rows:
            if found in taken:
                twice.append(f'{name!r} and another entry are {found!r}')
            taken.add(found)
        judged.add(REFUSED, 'names that mean a photo which is listed already', twice,
                   'Give each photo one entry.')
        judged.add(MENDED, f'file names written as those of the files ({way})',
                   [f'{name!r} is {found!r}' for _, name, found in rows])
        for row, _, found in rows:
            row['file_name'] = found
    hint = next(filter(None, map(tree.instead, missing[:20])), '')
    out = [name for name in missing if '..' in name.replace('\\', '/').split('/')]
    judged.add(REFUSED, f'photos, of {len(images)}, that are not in {tree.root}',
               [shown(name) for name in missing],
               (hint + (' A name with ".." may lead out of the folder.' if out else '')
                + ' Give the folder that the file_names are relative to, or remove the entries of '
                'photos that are gone.').strip())


def settle_sizes(judged: Judgement, tree: PhotoTree,
                 report: Callable[[int, int], None] = lambda done, total: None,
                 broken_level: str = REFUSED) -> None:
    """Compare the sizes of images with those of the photos, and fill in what is missing.

    Only the beginning of each photo is read. Boxes refer to the upright photo, as viewers and OpenCV
    show it; a size of the photo before its EXIF turn is corrected, if the boxes allow it.

    Args:
        judged (Judgement): A COCO file whose photos are there; its sizes are changed in place.
        tree (PhotoTree): The photos.
        report (Callable[[int, int], None]): Called with the number of photos done and the total.
            Defaults to a function that does nothing.
        broken_level (str): Level of the finding that a photo cannot be read. Defaults to 'refused'.
    """
    images = judged.content['images']
    filled, turned, off, other, broken, deep = [], [], [], [], [], []
    with warnings.catch_warnings(), ThreadPoolExecutor(_THREADS) as pool:
        warnings.simplefilter('ignore')  # of Pillow, about headers
        sizes = pool.map(lambda row: photo_size(tree, row['file_name']), images)
        for done, (row, (size, stored, problem, mode)) in enumerate(zip(images, sizes), 1):
            report(done, len(images))
            given = (row.get('width'), row.get('height'))
            text = f'{row["file_name"]!r} (id {row["id"]!r})'
            if mode.startswith(('I', 'F')):
                deep.append(text)
            if problem:
                broken.append(f'{text}: {problem}')
            elif given == size:
                continue
            elif None in given:
                filled.append(f'{text} is {size[0]}x{size[1]}')
                row['width'], row['height'] = size
            elif given == stored:
                turned.append((row, size))
            elif max(abs(given[0] - size[0]), abs(given[1] - size[1])) <= 1:
                off.append(f'{text} is {size[0]}x{size[1]}, not {given[0]}x{given[1]}')
                row['width'], row['height'] = size
            else:
                other.append(f'{text} is {size[0]}x{size[1]} pixels, not {given[0]}x{given[1]}')
    judged.add(broken_level, 'photos that cannot be read', broken,
               'Replace them, or remove their entries and annotations.')
    judged.add(NOTE, 'photos of more than 8 bits, of which pretraining and detectors may see another '
               'brightness (docs/data.md)', deep)
    judged.add(REFUSED, 'photos of another size than the annotations are for', other,
               'Use the photos that were annotated, or export the annotations again.')
    judged.add(MENDED, 'images without width and height, taken from the photos', filled)
    judged.add(MENDED, 'sizes that are a pixel off, taken from the photos', off)
    _settle_turned(judged, turned)


def _settle_turned(judged: Judgement, turned: list[tuple[dict, tuple[int, int]]]) -> None:
    """Correct sizes from before the EXIF turn, unless the boxes are from before the turn, too."""
    boxes: dict = {row['id']: [] for row, _ in turned}
    for row in judged.content['annotations'] if turned else ():
        if row['image_id'] in boxes:
            boxes[row['image_id']].append(row['bbox'])
    before, mended, sure = [], [], False
    for row, (width, height) in turned:
        corners = [(x + w, y + h) for x, y, w, h in boxes[row['id']]]
        fits = all(right <= width + 2 and low <= height + 2 for right, low in corners)
        sure |= any(right > height + 2 or low > width + 2 for right, low in corners)
        text = f'{row["file_name"]!r} (id {row["id"]!r}) is {width}x{height} when upright'
        (mended if fits else before).append(text)
        if fits:
            row['width'], row['height'] = width, height
    judged.add(REFUSED, 'photos whose boxes do not fit the photo as its EXIF entry turns it', before,
               'The boxes are of the photo before the turn: remove the EXIF orientation from the '
               'photos, or export the annotations for upright photos.')
    judged.add(MENDED, 'sizes from before the turn by EXIF, taken from the upright photos'
               + ('' if sure else ' (the boxes fit both: look at some of them)'), mended)


def photo_size(tree: PhotoTree, name: str) -> tuple[tuple, tuple, str, str]:
    """Return the size of the upright photo, that of the stored one, what is wrong, and the mode."""
    from PIL import Image  # here, so that tools answer quickly
    try:
        with tree.open(name) as file, Image.open(file) as image:
            stored, mode = image.size, image.mode
            # for a TIFF, Pillow reports the size of the turned image
            turned = image.format != 'TIFF' and image.getexif().get(_ORIENTATION) in range(5, 9)
    except OSError as error:
        return (), (), error.strerror or 'not an image that can be read', ''
    except Image.DecompressionBombError:
        return (), (), 'it has more pixels than Pillow opens (358 million); make it smaller', ''
    except Exception as error:  # a header of nonsense raises anything
        return (), (), f'its header cannot be read ({type(error).__name__})', ''
    return (stored[::-1] if turned else stored), stored, '', mode
