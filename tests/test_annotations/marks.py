"""A small COCO file of instances for the tests of this folder, and its photos."""
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

WIDTH, HEIGHT = 60, 40


def marks(photos: int = 3, objects: int = 2) -> dict[str, Any]:
    """Return a COCO file in which nothing is wrong: `objects` on each photo, of two classes in turn."""
    content = dict(
        info={}, licenses=[],
        images=[dict(id=i + 1, file_name=f'{i}.png', width=WIDTH, height=HEIGHT)
                for i in range(photos)],
        categories=[dict(id=1, name='car'), dict(id=2, name='bird')], annotations=[])
    for n in range(photos * objects):
        x, y = 5 + n % 2 * 27, 6
        content['annotations'].append(dict(
            id=n + 1, image_id=n // objects + 1, category_id=n % 2 + 1, bbox=[x, y, 20, 10], area=200,
            iscrowd=0, segmentation=[[x, y, x + 20, y, x + 20, y + 10, x, y + 10]]))
    return content


def write_photo(path: Path, size: tuple[int, int] = (WIDTH, HEIGHT), orientation: int = 1) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    photo = Image.fromarray(np.zeros((size[1], size[0], 3), np.uint8))
    exif = Image.Exif()
    exif[0x0112] = orientation
    photo.save(path, exif=exif)
