"""Statistics of a store: sizes and ratios of its boxes, and the rules that selected them."""
from collections import Counter
from dataclasses import dataclass

import numpy as np

from .store import ProposalStore


@dataclass(frozen=True)
class Statistics:
    """Sizes of images and boxes, of all rows or of an evenly spread sample.

    Args:
        images (int): Number of images in the store.
        sampled (int): Number of sampled images, from which all entries after `counts` are computed.
        counts (np.ndarray): (images,) number of boxes of each image.
        rules (dict[str, int]): Number of sampled images per rule of the filter.
        sizes (np.ndarray): (sampled, 2) width and height of images in pixels.
        sides (np.ndarray): (boxes,) sqrt(w·h) in pixels.
        shares (np.ndarray): (boxes,) sqrt(w·h) / sqrt(W·H).
        ratios (np.ndarray): (boxes,) w / h.
    """

    images: int
    sampled: int
    counts: np.ndarray
    rules: dict[str, int]
    sizes: np.ndarray
    sides: np.ndarray
    shares: np.ndarray
    ratios: np.ndarray


def measure(store: ProposalStore, sample: int = 100_000) -> Statistics:
    """Compute the statistics of a store.

    Args:
        store (ProposalStore): The store.
        sample (int): Largest number of images to use; a store with more is sampled evenly. Defaults to
            100,000.

    Returns:
        Statistics: The statistics.
    """
    step = max(1, -(-len(store) // sample))
    rows = range(0, len(store), step)
    sizes = np.array([store.size(row) for row in rows], dtype=np.float64).reshape(-1, 2)
    regions = [store.regions(row)[:, 2:] for row in rows]
    boxes = np.concatenate(regions or [np.zeros((0, 2))]).astype(np.float64)
    areas = np.repeat(sizes.prod(axis=1), [len(r) for r in regions])
    sides = np.sqrt(boxes.prod(axis=1))
    with np.errstate(over='ignore'):  # boxes from a json may be thin enough for an overflow
        ratios = np.divide(boxes[:, 0], boxes[:, 1], out=np.full(len(boxes), np.inf),
                           where=boxes[:, 1] > 0)
    return Statistics(len(store), len(rows), store.box_counts(),
                      dict(Counter(store.rule(row) for row in rows)), sizes, sides,
                      sides / np.sqrt(np.maximum(areas, 1)), ratios)
