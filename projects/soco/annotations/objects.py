"""What is judged in the objects of a COCO file: ids, boxes, crowd marks, areas and masks."""
from itertools import chain
from typing import Any

import numpy as np

from .findings import MENDED, NOTE, REFUSED, Judgement
from .masks import polygon_box, shape_area
from .values import LARGEST, as_number, label, shown

TOLERANCE = 2.  # pixels that a box may stick out of its photo: rounding, as in COCO's own files


def judge_values(judged: Judgement) -> None:
    """Judge ids, crowd marks and the four numbers of each box; annotations are mended in place."""
    annotations = judged.content['annotations']
    _judge_annotation_ids(judged, annotations)
    _judge_crowd(judged, annotations)
    _judge_box_values(judged, annotations)


def judge_places(judged: Judgement) -> None:
    """Compare boxes with the sizes of their photos, and compute areas; nothing is refused yet."""
    annotations = judged.content['annotations']
    boxes = _floats([row['bbox'] for row in annotations])
    _judge_places(judged, annotations, boxes)
    if not judged.of(REFUSED):
        _judge_areas(judged, annotations)


def _judge_annotation_ids(judged: Judgement, annotations: list[dict]) -> None:
    """Renumber the annotations if ids are missing, not unique, no numbers, or 0."""
    ids = [row.get('id') for row in annotations]
    if set(map(type, ids)) <= {int} and len(set(ids)) == len(ids) and (
            not ids or min(ids) > 0 and max(ids) < LARGEST):
        return
    seen: dict[int, int] = {}
    odd = [i for i, value in enumerate(ids)
           if type(value) is not int or not 0 < value < LARGEST or seen.setdefault(value, i) != i]
    for i, row in enumerate(annotations, 1):
        row['id'] = i
    why = []
    for i in odd[:3]:
        text = f'annotations[{i}] has ' + ('no id' if ids[i] is None else f'the id {shown(ids[i])}')
        if ids[i] == 0:
            text += ": COCO's evaluation counts a match with id 0 as a miss"
        elif type(ids[i]) is int and ids[i] in seen:
            text += f', as has annotations[{seen[ids[i]]}]'
        why.append(text)
    judged.add(MENDED, 'annotation ids that are missing, not unique, or no number above 0 (all '
               'annotations were numbered from 1)', why, count=len(odd))


def _judge_crowd(judged: Judgement, annotations: list[dict]) -> None:
    """Set a missing `iscrowd` to 0; turn other forms of 0 and 1 into numbers."""
    odd = [(i, row) for i, row in enumerate(annotations)
           if type(row.get('iscrowd')) is not int or row['iscrowd'] not in (0, 1)]
    added, changed, bad = [], [], []
    for i, row in odd:
        value = row.get('iscrowd')
        if value is None:
            added.append(i)
            row['iscrowd'] = 0
            continue
        number = {'false': 0, 'true': 1}.get(str(value).strip().lower(), as_number(value))
        if number in (0, 1):
            changed.append(f'{label(i, row)}: {value!r}')
        else:
            bad.append(f'{label(i, row)}: {shown(value)}')
        row['iscrowd'] = int(number or 0) if number in (0, 1) else 0
    _add_all(judged, 'annotations without iscrowd, taken as 0', annotations, added)
    judged.add(MENDED, 'values of iscrowd in another form, written as 0 or 1', changed)
    judged.add(REFUSED, 'values of iscrowd that are neither 0 nor 1', bad,
               '1 marks a region of many objects, which training does not use; 0 is an object.')
    ignored = [(i, row) for i, row in enumerate(annotations) if row.get('ignore')]
    judged.add(NOTE, 'annotations with "ignore", which training leaves out and evaluation counts',
               [label(i, row) for i, row in ignored[:3]], count=len(ignored))


def _add_all(judged: Judgement, kind: str, annotations: list[dict], found: list[int]) -> None:
    judged.add(MENDED, kind, [label(i, annotations[i]) for i in found[:3]], count=len(found))


def _judge_box_values(judged: Judgement, annotations: list[dict]) -> None:
    """Check that each box has four finite numbers, width and height not below 0."""
    boxes = [row.get('bbox') for row in annotations]
    if not (set(map(type, boxes)) <= {list} and set(map(len, boxes)) <= {4}
            and set(map(type, chain.from_iterable(boxes))) <= {int, float}):
        _mend_boxes(judged, annotations)
        annotations = [row for row in annotations if _is_box(row.get('bbox'))]
        boxes = [row['bbox'] for row in annotations]
    values = _floats(boxes)
    odd = np.flatnonzero(~np.isfinite(values).all(axis=1))
    judged.add(REFUSED, 'boxes with a value that is not a finite number', [
        f'{label(i, annotations[i])}: {annotations[i]["bbox"]}' for i in odd[:3]],
        'A bbox is x, y, width, height in pixels: correct it, or remove the annotation.', len(odd))
    odd = np.flatnonzero((values[:, 2:] < 0).any(axis=1))
    judged.add(REFUSED, 'boxes of negative width or height', [
        f'{label(i, annotations[i])}: {annotations[i]["bbox"]}' for i in odd[:3]],
        'A bbox is x, y, width, height in pixels: correct it, or remove the annotation.', len(odd))


def _floats(boxes: list) -> np.ndarray:
    try:
        return np.fromiter(chain.from_iterable(boxes), np.float64, 4 * len(boxes)).reshape(-1, 4)
    except OverflowError:  # an integer of hundreds of digits
        return np.array([[v if as_number(v) is not None else np.inf for v in box] for box in boxes])


def _is_box(box: Any) -> bool:
    return type(box) is list and len(box) == 4 and set(map(type, box)) <= {int, float}


def _mend_boxes(judged: Judgement, annotations: list[dict]) -> None:
    """Turn boxes in other forms into four numbers; take a missing one from the polygons."""
    text, taken, bad = [], [], []
    for i, row in enumerate(annotations):
        box = row.get('bbox')
        if _is_box(box):
            continue
        numbers = [as_number(value) for value in box] if isinstance(box, list) else []
        around = polygon_box(row.get('segmentation')) if not box else None
        if len(numbers) == 4 and None not in numbers:
            row['bbox'] = numbers
            text.append(f'{label(i, row)}: {shown(box)}')
        elif around is not None:
            row['bbox'] = around
            taken.append(i)
        else:
            bad.append(f'{label(i, row)} has the bbox {shown(box)}' if 'bbox' in row
                       else f'{label(i, row)} has no bbox')
    judged.add(MENDED, 'boxes of numbers as text, written as numbers', text)
    _add_all(judged, 'annotations without bbox, taken from their polygons', annotations, taken)
    judged.add(REFUSED, 'boxes that are not four numbers', bad,
               'A bbox is x, y, width, height in pixels: correct it, or remove the annotation.')


def _numbers_of(rows: list[dict], annotations: list[dict], key: str) -> np.ndarray:
    """Return the row that each annotation's `key` refers to, (n,) integers."""
    number = {row['id']: i for i, row in enumerate(rows)}
    return np.fromiter((number[row[key]] for row in annotations), np.int64, len(annotations))


def _judge_places(judged: Judgement, annotations: list[dict], boxes: np.ndarray) -> None:
    """Compare boxes with the sizes of the photos; clip those that stick out."""
    photos = _numbers_of(judged.content['images'], annotations, 'image_id')
    sizes = np.array([(row.get('width', np.inf), row.get('height', np.inf))
                      for row in judged.content['images']], dtype=np.float64).reshape(-1, 2)[photos]
    low, high = boxes[:, :2], boxes[:, :2] + boxes[:, 2:]
    out = np.maximum(-low, high - sizes).max(axis=1, initial=0)
    outside = ((low >= sizes) | (high <= 0)).any(axis=1) & (boxes[:, 2:] > 0).all(axis=1)
    guess = _other_meaning(boxes, sizes, out)
    if guess:
        first = annotations[0]
        judged.add(REFUSED, f'boxes that look like {guess}', [f'{label(0, first)}: {first["bbox"]}'],
                   'COCO has x, y, width, height in pixels, x and y of the upper left corner: convert '
                   'them.', len(boxes))
        return
    images = {row['id']: row for row in judged.content['images']}

    def place(i: int) -> str:
        row = annotations[i]
        image = images[row['image_id']]
        return (f'{label(i, row)}: {row["bbox"]} in {image["file_name"]!r} of '
                f'{image.get("width", "?")}x{image.get("height", "?")}')

    judged.add(REFUSED, 'boxes outside of their photo', [place(i) for i in np.flatnonzero(outside)[:3]],
               'Correct the box or the size of the image, or remove the annotation.',
               int(outside.sum()))
    repeated = _repeated(
        photos, _numbers_of(judged.content['categories'], annotations, 'category_id'), boxes)
    judged.add(NOTE, 'objects that are listed twice (same photo, class and box)',
               [place(i) for i in repeated[:3]], count=len(repeated))
    tiny = np.flatnonzero((boxes[:, 2:] < 1).any(axis=1))
    judged.add(NOTE, 'boxes of less than a pixel, which training leaves out',
               [place(i) for i in tiny[:3]], count=len(tiny))
    beyond = np.flatnonzero((out > TOLERANCE) & ~outside)
    judged.add(MENDED, f'boxes that stick out of their photo by over {TOLERANCE:g} pixels, clipped',
               [place(i) for i in beyond[:3]], count=len(beyond))
    for i in beyond:
        row = annotations[i]
        x, y = np.clip(low[i], 0, sizes[i])
        width, height = np.clip(high[i], 0, sizes[i]) - (x, y)
        if as_number(row.get('area')) == boxes[i, 2] * boxes[i, 3]:
            row['area'] = float(width * height)
        row['bbox'] = [float(x), float(y), float(width), float(height)]


def _repeated(images: np.ndarray, categories: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """Return the objects of which an earlier one has the same photo, class and box."""
    mixed = images.astype(np.uint64)
    for column in (categories, *(boxes + 0.).T):  # + 0.: -0. and 0. are equal
        # a hash of 64 bits: sorting one column takes a tenth of the time of sorting six
        mixed = mixed * np.uint64(0x9E3779B97F4A7C15) ^ np.ascontiguousarray(column).view(np.uint64)
    order = np.argsort(mixed, kind='stable')
    mixed = mixed[order]
    return np.sort(order[1:][mixed[1:] == mixed[:-1]])


def _other_meaning(boxes: np.ndarray, sizes: np.ndarray, out: np.ndarray) -> str:
    """Return what all boxes together seem to be, if it is not x, y, width, height in pixels."""
    if not len(boxes) or not np.isfinite(sizes).all():
        return ''
    if boxes.max() <= 1 and (boxes % 1).any() and sizes.min() > 2:
        return "shares of the photo's size (as in YOLO's files)"
    corners = (boxes[:, 2:] > boxes[:, :2]).all() and (boxes[:, 2:] <= sizes + TOLERANCE).all()
    if corners and (out > TOLERANCE).sum() > max(1, 0.2 * len(boxes)):
        return 'corners (x1, y1, x2, y2)'
    return ''


def _judge_areas(judged: Judgement, annotations: list[dict]) -> None:
    """Compute an area that is missing or no positive number, from the polygons or the box."""
    odd = [(i, row) for i, row in enumerate(annotations)
           if type(row.get('area')) not in (int, float) or not 0 < row['area'] < LARGEST]
    missing, wrong = [], []
    for i, row in odd:
        value, area = row.get('area'), _area(row)
        if value is None:
            missing.append(i)
            row['area'] = area
            continue
        number = as_number(value)
        if number == area and type(value) in (int, float):
            continue  # 0 of a box without extent, as in COCO's own files
        wrong.append(f'{label(i, row)}: {shown(value)}')
        row['area'] = number if isinstance(value, str) and number and number > 0 else area
    _add_all(judged, 'annotations without area, computed', annotations, missing)
    judged.add(MENDED, 'areas that are not a positive number, computed or written as one', wrong)


def _area(row: dict[str, Any]) -> float:
    _, _, width, height = row['bbox']
    mask = row.get('segmentation')
    return mask and shape_area(mask) or width * height
