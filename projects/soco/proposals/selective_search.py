"""Selective search with the boxes of the official SoCo code: pixels to boxes, nothing else."""
import time
from dataclasses import dataclass

import numpy as np

from . import grouping
from .jit import kernel
from .segmentation import edge_scratch, gaussian_weights, segment

VERSION = 1
MAX_SIDE = 65535
MAX_PIXELS = 2**30


@dataclass(frozen=True)
class SearchSetting:
    """Parameters of one way to search.

    Args:
        scale (float): Scale of observation of the segmentation; larger gives larger segments.
        sigma (float): Blur before segmentation in pixels.
        min_size (int): Smallest segment in pixels.
    """

    scale: float = 300.
    sigma: float = 0.9
    min_size: int = 100


SETTINGS = {'soco': SearchSetting()}


@kernel
def _search_soco(image: np.ndarray, weights: np.ndarray, scale: float, min_size: int,
                 scratch: np.ndarray) -> np.ndarray:
    labels, count = segment(image, weights, scale, min_size, scratch)
    extents, sizes, shares = grouping.describe_segments(image, labels, count)
    pairs = grouping.nested_pairs(extents)
    # Hue and saturation lie in 0 … 1 and are binned over 0 … 255 by the official code: all pixels
    # fall into the first bin of both, which adds 2 to every similarity.
    return grouping.group(extents, sizes, shares, pairs, grouping.COLOUR_BINS, 2.,
                          labels.size)


def _check_image(image: np.ndarray) -> None:
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8:
        kind = getattr(image, 'dtype', type(image).__name__)
        raise ValueError(f'selective search takes a uint8 array, not {kind}: convert the image '
                         f'to 8 bits a channel first.')
    if image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
        raise ValueError(f'selective search takes an RGB image of shape (H, W, 3), not '
                         f'{image.shape}.')
    height, width = image.shape[:2]
    if max(height, width) > MAX_SIDE or height * width > MAX_PIXELS:
        raise ValueError(f'an image of {width}×{height} pixels is too large for selective search: '
                         f'at most {MAX_SIDE} a side and {MAX_PIXELS} in all. Scale it down first.')


def selective_search(image: np.ndarray, setting: str | SearchSetting = 'soco') -> np.ndarray:
    """Find object-like boxes in an image, without labels.

    With the setting ``soco`` the result is that of the official SoCo code
    (``selective_search/selective_search.py``, scale 300, sigma 0.9, min_size 100), box for box.

    Args:
        image (np.ndarray): (H, W, 3) uint8 RGB.
        setting (str | SearchSetting): A name in :data:`SETTINGS`, or parameters of one's own.

    Returns:
        np.ndarray: (n, 4) int32 boxes x, y, w, h in pixels, in the order formed, w and h being
        the differences between the first and last column and row. Repeated boxes are kept.

    Raises:
        ValueError: If the image is no RGB array of 8 bits or too large, or the setting unknown.
    """
    _check_image(image)
    if isinstance(setting, str):
        if setting not in SETTINGS:
            raise ValueError(f'unknown setting {setting!r} of selective search: choose one of '
                             f'{", ".join(SETTINGS)}.')
        setting = SETTINGS[setting]
    extents = _search_soco(np.ascontiguousarray(image), gaussian_weights(setting.sigma),
                           float(setting.scale), int(setting.min_size),
                           edge_scratch(image.shape[0] * image.shape[1]))
    boxes = extents.astype(np.int32)
    boxes[:, 2:] -= boxes[:, :2]
    return boxes


def compile_kernels() -> float:
    """Compile the kernels, or fetch them from numba's cache.

    Returns:
        float: Seconds it took; about ten when they had to be compiled.
    """
    start = time.perf_counter()
    selective_search(np.zeros((8, 8, 3), dtype=np.uint8))
    return time.perf_counter() - start
