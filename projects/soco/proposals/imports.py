"""Generator of boxes that another program has written, as COCO json or official SoCo json.

All numbers are kept as they are in the file. Anything that is not a box is rejected before a store is
written. A box that is not inside its image is found when the image's header is read; the image is
skipped.
"""
import copy
import hashlib
import os
from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from ..annotations.read import read_json
from .generators import BoxGenerator, Found
from .images import ImageError, image_size
from .source_base import ImageSource, name_problem
from .store import BOX_DTYPES
from .store_check import where_instead
from .store_operations import box_dtype_for, box_problem

_FORMS = {
    'coco': 'a COCO json with images and annotations (--source coco)',
    'results': 'COCO detection results (--source coco, with --images-json)',
    'images': 'a COCO json with images but without annotations',
    'official': 'an official SoCo json, base names and lists of boxes (--source official)',
}


def _form(content: Any) -> str:
    """Return a key of `_FORMS`, or a short description of any other content."""
    if isinstance(content, list):
        if content and all(isinstance(row, dict) and 'image_id' in row for row in content):
            return 'results'
        return 'an empty list' if not content else f'a list of {type(content[0]).__name__}'
    if not isinstance(content, dict):
        return f'a single {type(content).__name__}'
    if isinstance(content.get('images'), list) and all(
            isinstance(row, dict) for row in content['images']):
        return 'coco' if isinstance(content.get('annotations'), list) else 'images'
    if content and all(isinstance(value, list) for value in content.values()):
        return 'official'
    keys = ', '.join(map(repr, list(content)[:4]))
    return f'an object with the keys {keys}' if keys else 'an empty object'


def _read_form(path: str | Path, *wanted: str) -> tuple[Any, str]:
    content = read_json(path)
    form = _form(content)
    if form not in wanted:
        raise ValueError(f'{path} should be {" or ".join(_FORMS[key] for key in wanted)}, but '
                         f'looks like {_FORMS.get(form, form)}.')
    return content, form


def _digest(path: str | Path) -> dict:
    with open(path, 'rb') as file:
        return dict(file=os.path.basename(path),
                    sha256=hashlib.file_digest(file, 'sha256').hexdigest())


def _is_finite(value: int | float) -> bool:
    return abs(value) < 1e300  # math.isfinite fails on integers that are too large for a float


def _as_array(boxes: list, image: str, path: str | Path) -> tuple[np.ndarray, str]:
    """Convert the boxes of an image exactly; return them and the smallest type of column for them."""
    for row, box in enumerate(boxes):
        if not (isinstance(box, list) and len(box) == 4
                and all(type(value) in (int, float) for value in box)):
            problem = 'is not a list of four numbers x, y, w, h'
        elif not all(map(_is_finite, box)):
            problem = 'contains a number that is not finite'
        elif min(box[2:]) < 0:
            problem = 'has a negative side (it should be x, y, w, h, not corners)'
        else:
            continue
        raise ValueError(f'box {row} of the image {image} in {path} {problem}: {box}.')
    kind = box_dtype_for([value for box in boxes for value in box])
    array = np.array(boxes, dtype=np.uint16 if kind == 'uint16' else np.float64)
    return array.reshape(-1, 4), kind


class ImportedBoxes(BoxGenerator):
    """Boxes of a json file; made by `read_official` and `read_coco`.

    Args:
        name (str): `'official'` or `'coco'`.
        path (str | Path): The json file.
        boxes (dict[str, list]): Name of each image to its boxes x, y, w, h.
        sizes (dict[str, tuple[int, int]]): Name of an image to its width and height, if the json has
            them.
        parameters (dict): Everything that determines the boxes, as JSON values.
        notes (Sequence[str]): What was left out, printed for the user. Defaults to ().

    Raises:
        ValueError: If there is no image or no box, or an entry is not a box.
    """

    def __init__(self, name: str, path: str | Path, boxes: dict[str, list],
                 sizes: dict[str, tuple[int, int]], parameters: dict,
                 notes: Sequence[str] = ()) -> None:
        self.name, self.path, self.notes = name, str(path), list(notes)
        self._parameters, self._sizes = parameters, sizes
        self._boxes, kinds = {}, {'uint16'}
        for image, values in boxes.items():
            self._boxes[image], kind = _as_array(values, image, path)
            kinds.add(kind)
        self.box_dtype = max(kinds, key=BOX_DTYPES.index)
        if not any(map(len, self._boxes.values())):
            raise ValueError(f'{path} contains no box for any of its {len(boxes)} images'
                             f'{"".join(f" ({note})" for note in self.notes)}.')

    def parameters(self) -> dict:
        """Return everything that determines the boxes, as JSON values."""
        return self._parameters

    def _key(self, name: str) -> str:
        return PurePosixPath(name).stem if self.name == 'official' else name

    def images(self, source: ImageSource) -> list[str]:
        """Return the images of a source that the json names.

        Args:
            source (ImageSource): The images.

        Returns:
            list[str]: Their names in the source, sorted.

        Raises:
            ValueError: If the source lacks an image that the json names, or contains two images with a
                base name that an official json names.
        """
        listed, found = source.names(), {}
        for name in listed:
            key = self._key(name)
            if key not in self._boxes:
                continue
            if key in found:
                raise ValueError(f'{source.path} contains two images with the base name {key} '
                                 f'({found[key]} and {name}): an official json does not distinguish '
                                 f'them.')
            found[key] = name
        missing = [key for key in self._boxes if key not in found]
        if missing:
            hint = '' if self.name == 'official' else where_instead(source, missing[0], 'IMAGES')
            raise ValueError(f'{len(missing)} of {len(self._boxes)} images that {self.path} names '
                             f'are not in {source.path}; the first is {missing[0]}. '
                             f'{hint or "Give the images that the json was made for."}')
        if len(found) < len(listed):
            self.notes = [*self.notes, f'{len(listed) - len(found)} images of {source.path} are left '
                          f'out: {self.path} does not name them']
        return list(found.values())

    def select(self, names: Sequence[str]) -> BoxGenerator:
        """Return a generator with the boxes of these images only."""
        part = copy.copy(self)
        keys = [self._key(name) for name in names]
        part._boxes = {key: self._boxes[key] for key in keys}
        part._sizes = {key: self._sizes[key] for key in keys if key in self._sizes}
        return part

    def boxes(self, source: ImageSource, name: str,
              max_pixels: int) -> Found:
        """Return the boxes of one image, after checking them against the size in its header."""
        with source.open(name) as file:
            width, height = image_size(file, max_pixels)
        key = self._key(name)
        said = self._sizes.get(key, (width, height))
        if said != (width, height):
            turned = ': perhaps it is turned by its EXIF data' * (said == (height, width))
            raise ImageError(f'its boxes are for {said[0]}x{said[1]} pixels, but it has '
                             f'{width}x{height}{turned}')
        problem = box_problem(self._boxes[key], width, height, self.box_dtype)
        if problem:
            raise ImageError(problem)
        return Found(width, height, self._boxes[key])


def read_official(path: str | Path) -> ImportedBoxes:
    """Read an official SoCo json: base names of images, without suffix, and lists of x, y, w, h.

    Args:
        path (str | Path): The json file.

    Returns:
        ImportedBoxes: Its boxes.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file has another form, or an entry is not a box.
    """
    content, _ = _read_form(path, 'official')
    return ImportedBoxes('official', path, content, {}, _digest(path))


def _read_images(rows: list, path: str | Path) -> tuple[dict, dict]:
    """Map ids to file names, and file names to sizes, of a COCO json's images."""
    names, sizes, seen = {}, {}, set()
    for number, image in enumerate(rows):
        key, name = image.get('id'), image.get('file_name')
        if not isinstance(key, (int, str)) or not isinstance(name, str):
            raise ValueError(f'images[{number}] of {path} has no id, or no file_name.')
        problem = name_problem(name)
        if problem:
            raise ValueError(f'images[{number}] of {path}: the file_name {name!r} {problem}. It should '
                             f'be relative to the folder of the images.')
        name = Path(os.path.normpath(name)).as_posix()
        if key in names or name in seen:
            raise ValueError(f'{path} lists the image {name} or its id twice.')
        if isinstance(image.get('width'), int) and isinstance(image.get('height'), int):
            sizes[name] = image['width'], image['height']
        names[key] = name
        seen.add(name)
    return names, sizes


def _best(rows: list[dict], at_least: float | None, most: int | None) -> list[dict]:
    """Return the rows of an image that `at_least` and `most` keep by score, in the file's order."""
    if at_least is not None:
        rows = [row for row in rows if row['score'] >= at_least]
    if most is not None and len(rows) > most:
        ranks = sorted(range(len(rows)), key=lambda i: -rows[i]['score'])[:most]
        rows = [rows[i] for i in sorted(ranks)]
    return rows


def _check_rows(rows: list, names: dict, label: Callable[[int], str], images_path: str | Path,
                scored: bool) -> None:
    unknown = []
    for number, row in enumerate(rows):
        if (not isinstance(row, dict) or not isinstance(row.get('image_id'), (int, str))
                or 'bbox' not in row):
            raise ValueError(f'{label(number)} has no image_id or no bbox.')
        if row['image_id'] not in names:
            unknown.append(number)
        score = row.get('score')
        if scored and not (type(score) in (int, float) and _is_finite(score)):
            raise ValueError(f'{label(number)} has no score, or one that is not a number: leave out '
                             f'--min-score and --max-boxes, which use the scores.')
    if unknown:
        raise ValueError(f'{len(unknown)} of {len(rows)} boxes belong to images that {images_path} '
                         f'does not list; the first is {label(unknown[0])}, with image_id '
                         f'{rows[unknown[0]]["image_id"]!r}. Check that boxes and images are of the '
                         f'same data set.')


def read_coco(path: str | Path, images_json: str | Path | None = None,
              min_score: float | None = None, max_boxes: int | None = None) -> ImportedBoxes:
    """Read the boxes of a COCO json, or of detection results.

    Images that the json lists without boxes are kept. Crowd regions (`iscrowd`) are left out, because
    they are not objects.

    Args:
        path (str | Path): A json of `images` and `annotations`, or a list of `image_id`, `bbox`,
            `score`.
        images_json (str | Path, optional): The COCO json that contains the images of detection
            results. Defaults to None.
        min_score (float, optional): Boxes with a lower score are left out. Defaults to None.
        max_boxes (int, optional): Largest number of boxes per image, >= 1; those with the highest
            scores are kept. Defaults to None.

    Returns:
        ImportedBoxes: The boxes.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If a json has another form, boxes and images do not belong together, boxes have no
            score although one is needed, or no box is left.
    """
    if max_boxes is not None and max_boxes < 1:
        raise ValueError(f'--max-boxes must be at least 1, not {max_boxes}.')
    content, form = _read_form(path, 'coco', 'results')
    parameters = dict(_digest(path), min_score=min_score, max_boxes=max_boxes)
    if form == 'coco':
        if images_json is not None:
            raise ValueError(f'{path} has images of its own: leave out --images-json.')
        image_rows, rows, images_path = content['images'], content['annotations'], path
    elif images_json is None:
        raise ValueError(f'{path} looks like {_FORMS[form]}: set --images-json to the json that '
                         f'contains the images.')
    else:
        image_rows = _read_form(images_json, 'coco', 'images')[0]['images']
        rows, images_path = content, images_json
        parameters['images_json'] = _digest(images_json)
    names, sizes = _read_images(image_rows, images_path)
    _check_rows(rows, names, lambda number: (
        f'annotations[{number}] of {path}' if form == 'coco' else f'row {number} of {path}'),
        images_path, min_score is not None or max_boxes is not None)
    by_image: dict[str, list[dict]] = {name: [] for name in names.values()}
    for row in rows:
        if not row.get('iscrowd'):
            by_image[names[row['image_id']]].append(row)
    single = sum(map(len, by_image.values()))
    by_image = {name: _best(found, min_score, max_boxes) for name, found in by_image.items()}
    kept = sum(map(len, by_image.values()))
    notes = []
    if single < len(rows):
        notes.append(f'{len(rows) - single} crowd regions are left out')
    if kept < single:
        notes.append(f'{single - kept} boxes are left out by their scores')
    boxes = {name: [row['bbox'] for row in found] for name, found in by_image.items()}
    return ImportedBoxes('coco', path, boxes, sizes, parameters, notes)
