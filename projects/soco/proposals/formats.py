"""Export of stores as official SoCo json and as COCO json; `imports.py` reads both.

All numbers are kept exactly. The official json is one object: base name of the image without suffix →
list of x, y, w, h. The COCO json has `images`, `annotations` with `bbox` x, y, w, h, and one category.
"""
import json
from pathlib import Path, PurePosixPath

import numpy as np

from ..files import whole_file
from .store import ProposalStore


def _numbers(regions: np.ndarray) -> list[list[float]]:
    if regions.dtype == np.float32:
        return [[float(str(value)) for value in box] for box in regions]
    return regions.tolist()


def export_official(store: ProposalStore, path: str | Path) -> None:
    """Write a store as an official SoCo json.

    Args:
        store (ProposalStore): The store.
        path (str | Path): The json file to write.

    Raises:
        ValueError: If two images have the same base name.
    """
    seen: dict[str, str] = {}
    for row in range(len(store)):
        name = store.name(row)
        stem = PurePosixPath(name).stem
        if stem in seen:
            raise ValueError(f'{seen[stem]} and {name} have the same base name: an official json '
                             f'cannot contain both.')
        seen[stem] = name
    with whole_file(path) as file:
        for row, stem in enumerate(seen):
            file.write(f'{"," if row else "{"}\n{json.dumps(stem)}: '
                       f'{json.dumps(_numbers(store.regions(row)))}')
        file.write('\n}\n' if seen else '{}\n')


def export_coco(store: ProposalStore, path: str | Path) -> None:
    """Write a store as a COCO json with one category, `object`.

    Args:
        store (ProposalStore): The store.
        path (str | Path): The json file to write.
    """
    with whole_file(path) as file:
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
