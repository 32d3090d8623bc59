"""Recall: the share of annotated objects that some proposal overlaps."""
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import numpy as np

from .store import ProposalStore

THRESHOLDS = (0.5, 0.7)
SIZES = (0., 0.1, 0.3, 0.8, np.inf)  # borders of sqrt(box area / image area) in the table


class Recall(NamedTuple):
    """The best overlap of each of n annotated objects with the proposals of its image.

    Attributes:
        overlaps (np.ndarray): (n,) largest IoU with a box, 0 to 1; 0 in an image without boxes.
        sizes (np.ndarray): (n,) sqrt(box area / image area).
    """

    overlaps: np.ndarray
    sizes: np.ndarray

    def at(self, threshold: float) -> float:
        """Return the share of objects with an IoU of at least `threshold`, NaN without objects."""
        return float((self.overlaps >= threshold).mean()) if len(self.overlaps) else float('nan')

    def rows(self) -> list[list[str]]:
        """Return a table: objects and recall, by size and of all. The first row is its header."""
        rows = [['size of the object / image', 'objects', *(f'IoU ≥ {t}' for t in THRESHOLDS)]]
        for low, high in zip(SIZES, SIZES[1:]):
            chosen = (self.sizes >= low) & (self.sizes < high)
            name = f'{low:g} to {high:g}' if np.isfinite(high) else f'from {low:g}'
            if chosen.any():
                rows.append(self._row(name, Recall(self.overlaps[chosen], self.sizes[chosen])))
        return [*rows, self._row('all', self)]

    @staticmethod
    def _row(name: str, of: 'Recall') -> list[str]:
        return [name, str(len(of.overlaps)), *(f'{of.at(t):.1%}' for t in THRESHOLDS)]


def best_overlaps(objects: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """Return the largest IoU of each object with a box.

    Args:
        objects (np.ndarray): (n, 4) x y w h in pixels.
        boxes (np.ndarray): (m, 4) x y w h in pixels.

    Returns:
        np.ndarray: (n,), 0 where there are no boxes.
    """
    objects, boxes = (np.asarray(each, dtype=np.float64).reshape(-1, 4) for each in (objects, boxes))
    if not len(boxes):
        return np.zeros(len(objects))
    low = np.maximum(objects[:, None, :2], boxes[None, :, :2])
    high = np.minimum((objects[:, :2] + objects[:, 2:])[:, None], (boxes[:, :2] + boxes[:, 2:])[None])
    shared = (high - low).clip(min=0).prod(axis=-1)  # (n, m)
    union = objects[:, 2:].prod(axis=1)[:, None] + boxes[:, 2:].prod(axis=1)[None] - shared
    return np.divide(shared, union, out=np.zeros_like(shared), where=union > 0).max(axis=1)


def recall(pairs: Iterable[tuple[np.ndarray, np.ndarray, tuple[int, int]]]) -> Recall:
    """Compute the recall of the objects of several images.

    Args:
        pairs (Iterable): For each image its objects (n, 4) and boxes (m, 4), both x y w h in pixels,
            and its width and height.

    Returns:
        Recall: The overlaps of all objects, in this order.
    """
    overlaps, sizes = [np.zeros(0)], [np.zeros(0)]
    for objects, boxes, (width, height) in pairs:
        objects = np.asarray(objects, dtype=np.float64).reshape(-1, 4)
        overlaps.append(best_overlaps(objects, boxes))
        sizes.append(np.sqrt(objects[:, 2:].prod(axis=1) / (width * height)))
    return Recall(np.concatenate(overlaps), np.concatenate(sizes))


def match_objects(store: ProposalStore, objects: Mapping[str, np.ndarray]) -> dict[int, np.ndarray]:
    """Find the rows of a store that images of annotations are.

    Args:
        store (ProposalStore): The store.
        objects (Mapping[str, np.ndarray]): For each `file_name` its objects, (n, 4).

    Returns:
        dict[int, np.ndarray]: Objects by row; images of the annotations that the store does not list
        are left out.

    Raises:
        ValueError: If the store lists none of them.
    """
    found = {store.index(name): boxes for name, boxes in objects.items() if name in store}
    if not found:
        theirs, ours = next(iter(objects), ''), store.name(0) if len(store) else ''
        raise ValueError(
            f'{store.path} lists none of the {len(objects)} images of the annotations. They name '
            f'{theirs!r}, the store {ours!r}: both must be relative to the same folder.')
    return found
