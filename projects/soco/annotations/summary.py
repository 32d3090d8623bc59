"""What a COCO file contains: photos, and objects by class and size."""
import math
from typing import NamedTuple

SIZES = {'small': (0, 32**2), 'medium': (32**2, 96**2), 'large': (96**2, math.inf)}  # COCO's areas


class ClassCount(NamedTuple):
    """Number of objects of one class.

    Args:
        name (str): Name of the class.
        id (int | str): Its id.
        objects (int): Its objects, without crowd regions.
        photos (int): Photos with at least one of them.
        sizes (dict[str, int]): Objects by COCO's areas, with the keys of `SIZES`.
        crowds (int): Regions of many objects.
    """

    name: str
    id: int | str
    objects: int
    photos: int
    sizes: dict[str, int]
    crowds: int


def count_classes(content: dict) -> list[ClassCount]:
    """Count the objects of each class.

    Args:
        content (dict): A COCO file that `judge_coco` accepts.

    Returns:
        list[ClassCount]: One entry for each category, in the order of the file.
    """
    rows: dict = {row['id']: [] for row in content['categories']}
    crowds = dict.fromkeys(rows, 0)
    for row in content['annotations']:
        if row['iscrowd']:
            crowds[row['category_id']] += 1
        else:
            rows[row['category_id']].append(row)
    return [ClassCount(
        row['name'], row['id'], len(rows[row['id']]), len({a['image_id'] for a in rows[row['id']]}),
        {size: sum(low <= a['area'] < high for a in rows[row['id']])
         for size, (low, high) in SIZES.items()}, crowds[row['id']])
        for row in content['categories']]
