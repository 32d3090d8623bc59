"""What is judged in the masks of a COCO file: polygons and run-length codes."""
from itertools import chain
from typing import Any

from .findings import MENDED, NOTE, REFUSED, Judgement
from .values import as_number, label, shown

BOX_DETECTOR = 'configs/benchmarks/mmdetection/own_photos/faster-rcnn_effnetlite0_fpn.py'


def judge_masks(judged: Judgement, annotations: list[dict], needed: bool) -> None:
    """Judge the `segmentation` of all annotations.

    Args:
        judged (Judgement): The file; its annotations are mended in place.
        annotations (list[dict]): Its annotations.
        needed (bool): Whether objects without a mask are refused. Without masks, faults of masks do not
            matter, and are noted only.
    """
    sizes = {row['id']: (row.get('height'), row.get('width')) for row in judged.content['images']}
    absent, mended, bad = [], [], []
    for i, row in enumerate(annotations):
        shape = row.get('segmentation')
        if not shape:
            absent.append(i)
        elif type(shape) is not list or not _plain(shape):
            fixed, problem = _mend(shape, sizes[row['image_id']])
            if problem:
                bad.append(f'{label(i, row)}: {problem}')
            elif not fixed:
                absent.append(i)
            elif fixed != shape:
                mended.append(f'{label(i, row)}: {shown(shape)}')
                row['segmentation'] = fixed
    judged.add(MENDED, 'masks in another form, written as COCO has them (pieces of fewer than three '
               'points are left out)', mended)
    if needed:
        judged.add(REFUSED, 'masks that cannot be read', bad,
                   'A mask is a list of polygons [x1, y1, x2, y2, …] or a run-length code.')
        judged.add(REFUSED, f'objects, of {len(annotations)}, without a mask (segmentation), which '
                   'this detector needs', [label(i, annotations[i]) for i in absent[:3]],
                   f'Draw the missing masks, or train on boxes only with {BOX_DETECTOR}', len(absent))
    else:
        judged.add(NOTE, 'masks that cannot be read, and are not used', bad)
        if len(absent) < len(annotations):
            judged.add(NOTE, f'objects, of {len(annotations)}, without a mask (boxes need none)', [
                label(i, annotations[i]) for i in absent[:3]], count=len(absent))


def _plain(polygons: list) -> bool:
    """Whether all polygons have an even number of at least six numbers."""
    for polygon in polygons:
        if type(polygon) is not list or len(polygon) < 6 or len(polygon) % 2:
            return False
    return set(map(type, chain.from_iterable(polygons))) <= {int, float} and _finite(polygons)


def _finite(polygons: list) -> bool:
    total = sum(map(sum, polygons))
    return total - total == 0


def _mend(shape: Any, size: tuple) -> tuple[Any, str]:
    """Return a mask in COCO's form, empty if nothing is left of it, and what is wrong with it."""
    if isinstance(shape, dict):
        return _mend_code(shape, size)
    if not isinstance(shape, list):
        return None, f'it is a {type(shape).__name__}'
    if all(as_number(value) is not None for value in shape):
        shape = [shape]  # one polygon without its list
    fixed = []
    for polygon in shape:
        if not isinstance(polygon, list):
            return None, f'a polygon is {shown(polygon)}'
        if polygon and all(isinstance(point, list) and len(point) == 2 for point in polygon):
            polygon = list(chain.from_iterable(polygon))  # a list of points
        numbers = [as_number(value) for value in polygon]
        if None in numbers:
            return None, f'a polygon has values that are not finite numbers: {shown(polygon)}'
        if len(numbers) % 2:
            return None, f'a polygon has {len(numbers)} numbers: an x without its y'
        if len(numbers) >= 6:
            fixed.append(numbers)
    return fixed, ''


def _mend_code(shape: dict, size: tuple) -> tuple[Any, str]:
    counts, stored = shape.get('counts'), shape.get('size')
    if isinstance(counts, str) and counts[:2] in ("b'", 'b"') and counts[-1:] == counts[1]:
        shape = {**shape, 'counts': counts[2:-1].replace('\\\\', '\\')}  # bytes, printed by Python
    if not isinstance(counts, (list, str)) or not counts or not isinstance(stored, list):
        return None, f'a run-length code has "counts" and "size": {shown(shape)}'
    if None not in size and tuple(stored) != size:
        return None, f'its run-length code is of {stored} (height, width), the photo of {list(size)}'
    return shape, ''


def polygon_box(shape: Any) -> list[float] | None:
    """Return the box around polygons, x y w h, or None if there are none."""
    if not isinstance(shape, list) or not shape or not _plain(shape):
        return None
    xs = [x for polygon in shape for x in polygon[::2]]
    ys = [y for polygon in shape for y in polygon[1::2]]
    return [min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys)]


def shape_area(shape: Any) -> float:
    """Return the area of polygons or of a plain run-length code in pixels; 0 if it is not known."""
    if isinstance(shape, dict) and isinstance(shape.get('counts'), list):
        return float(sum(shape['counts'][1::2]))
    if not isinstance(shape, list) or not shape or not _plain(shape):
        return 0.
    total = 0.
    for polygon in shape:
        xs, ys = polygon[::2], polygon[1::2]
        total += abs(sum(x * v - u * y for x, y, u, v in zip(
            xs, ys, xs[1:] + xs[:1], ys[1:] + ys[:1]))) / 2
    return total
