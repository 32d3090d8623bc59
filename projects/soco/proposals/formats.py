"""Proposals as the official SoCo json and as COCO json, in and out, number for number.

Official: one object, base name of the image without suffix → list of x, y, w, h. COCO: ``images``,
``annotations`` with ``bbox`` x, y, w, h, one category.
"""
import json
import os
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from .images import image_size
from .operations import box_dtype_for
from .sources import ImageSource
from .store import ProposalStore, StoreWriter

IMPORTED = 'imported'


def _read_json(path: str | Path) -> Any:
    if not os.path.isfile(path):
        raise FileNotFoundError(f'there is no file {path}.')
    try:
        with open(path, encoding='utf-8') as file:
            return json.load(file)
    except ValueError as error:
        raise ValueError(f'{path} is not a json file, or only a part of one: {error}.') from error


def _write_json(path: str | Path, write: Callable) -> None:
    partial = Path(f'{path}.partial')
    try:
        with open(partial, 'w', encoding='utf-8') as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def _numbers(regions: np.ndarray) -> list[list[float]]:
    if regions.dtype == np.float32:
        return [[float(str(value)) for value in box] for box in regions]
    return regions.tolist()


def _write_rows(out: str | Path, rows: dict[str, tuple[int, int, list]], origin: str) -> None:
    for image, (_, _, boxes) in rows.items():
        if not all(isinstance(box, list) and len(box) == 4
                   and all(type(value) in (int, float) for value in box) for box in boxes):
            raise ValueError(f'the boxes of {image} are not lists of four numbers x, y, w, h.')
    box_dtype = box_dtype_for([value for _, _, boxes in rows.values() for box in boxes
                               for value in box])
    metadata = dict(box_format='xywh', generator=dict(name=origin, version=1),
                    filter=dict(name='unknown', rules=[]), rules=[IMPORTED],
                    source=dict(kind=origin, images=len(rows)))
    with StoreWriter(out, metadata, box_dtype) as writer:
        for image in sorted(rows):
            width, height, boxes = rows[image]
            regions = np.array(boxes, dtype=np.float64).reshape(-1, 4).astype(box_dtype)
            writer.add(image, width, height, regions, IMPORTED)


def import_official(path: str | Path, source: ImageSource, out: str | Path) -> list[str]:
    """Make a store of an official SoCo json.

    The json has neither paths nor sizes: the images are found by their base names, and only their
    headers are read.

    Args:
        path (str | Path): The json.
        source (ImageSource): The images.
        out (str | Path): The store to be written.

    Returns:
        list[str]: Images of the source that the json does not name; they are left out.

    Raises:
        ValueError: If the json is of another form, names an image that the source does not hold,
            or a base name that the source holds twice.
    """
    content = _read_json(path)
    if not isinstance(content, dict) or not all(isinstance(v, list) for v in content.values()):
        raise ValueError(f'{path} is not an official SoCo json: it should be one object of base '
                         f'names and lists of boxes.')
    rows, left = {}, []
    for name in source.names():
        stem = PurePosixPath(name).stem
        if stem not in content:
            left.append(name)
            continue
        boxes = content[stem]
        if boxes is None:
            raise ValueError(f'{source.path} holds two images of the base name {stem}: an '
                             f'official json cannot tell them apart.')
        content[stem] = None
        rows[name] = (*image_size(source.read_bytes(name)), boxes)
    missing = [stem for stem, boxes in content.items() if boxes is not None]
    if missing:
        raise ValueError(f'{len(missing)} of {len(content)} images that {path} names are not in '
                         f'{source.path}; the first is {missing[0]}.')
    _write_rows(out, rows, 'official_json')
    return left


def export_official(store: ProposalStore, path: str | Path) -> None:
    """Write a store as an official SoCo json.

    Args:
        store (ProposalStore): The store.
        path (str | Path): The json to be written.

    Raises:
        ValueError: If two images have the same base name.
    """
    seen: dict[str, str] = {}
    for row in range(len(store)):
        name = store.name(row)
        stem = PurePosixPath(name).stem
        if stem in seen:
            raise ValueError(f'{seen[stem]} and {name} have the same base name: an official json '
                             f'cannot hold both.')
        seen[stem] = name

    def write(file: Any) -> None:
        for row, stem in enumerate(seen):
            file.write(f'{"," if row else "{"}\n{json.dumps(stem)}: '
                       f'{json.dumps(_numbers(store.regions(row)))}')
        file.write('\n}\n' if seen else '{}\n')

    _write_json(path, write)


def import_coco(path: str | Path, out: str | Path) -> None:
    """Make a store of a COCO json: every annotation's ``bbox`` is a proposal of its image.

    Args:
        path (str | Path): The json.
        out (str | Path): The store to be written.

    Raises:
        ValueError: If the json is of another form or lists an image twice.
    """
    content = _read_json(path)
    rows, names = {}, {}
    try:
        for image in content['images']:
            name = image['file_name']
            if name in rows or image['id'] in names:
                raise ValueError(f'{path} lists the image {name} or its id twice.')
            names[image['id']] = name
            rows[name] = (int(image['width']), int(image['height']), [])
        for annotation in content['annotations']:
            rows[names[annotation['image_id']]][2].append(annotation['bbox'])
    except (KeyError, TypeError) as error:
        raise ValueError(f'{path} is not a COCO json with images (id, file_name, width, height) '
                         f'and annotations (image_id, bbox): {type(error).__name__} '
                         f'{error}.') from error
    _write_rows(out, rows, 'coco_json')


def export_coco(store: ProposalStore, path: str | Path) -> None:
    """Write a store as a COCO json with one category, ``object``.

    Args:
        store (ProposalStore): The store.
        path (str | Path): The json to be written.
    """
    def write(file: Any) -> None:
        file.write('{"categories": [{"id": 1, "name": "object"}],\n"images": [')
        for row in range(len(store)):
            width, height = store.size(row)
            image = dict(id=row + 1, file_name=store.name(row), width=width, height=height)
            file.write((',\n' if row else '\n') + json.dumps(image))
        file.write('],\n"annotations": [')
        number = 0
        for row in range(len(store)):
            for box in _numbers(store.regions(row)):
                number += 1
                annotation = dict(id=number, image_id=row + 1, category_id=1, bbox=box,
                                  area=box[2] * box[3], iscrowd=0)
                file.write((',\n' if number > 1 else '\n') + json.dumps(annotation))
        file.write(']}\n')

    _write_json(path, write)
