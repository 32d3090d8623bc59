"""Graph segmentation of an RGB image (Felzenszwalb and Huttenlocher, IJCV 2004), compiled.

The labels equal those of `skimage.segmentation.felzenszwalb`: blur, costs and thresholds are rounded
where scikit-image rounds them, and edges of equal cost are processed in the order right, down,
down-right, up-right, then by pixel.
"""
import threading

import numpy as np

from .forest import find_root, grow_forest
from .jit import kernel

KEPT_PIXELS = 2**21


def gaussian_weights(sigma: float) -> np.ndarray:
    """Return half of a normalised Gaussian kernel, truncated at four standard deviations.

    Args:
        sigma (float): Standard deviation in pixels, >= 0.

    Returns:
        np.ndarray: (radius + 1,) float64, the centre first.
    """
    radius = int(4 * sigma + 0.5)
    offsets = np.arange(-radius, radius + 1)
    weights = np.exp(-0.5 / max(sigma * sigma, 1e-30) * offsets**2)
    weights /= weights.sum()
    return np.ascontiguousarray(weights[radius:])


_kept = threading.local()


def edge_scratch(pixels: int) -> np.ndarray:
    """Return work space for the edges of an image.

    Up to `KEPT_PIXELS` pixels, it is kept for the next image of the same thread, because fresh pages
    from the operating system cost more time than sorting the edges.

    Args:
        pixels (int): Number of pixels of the image.

    Returns:
        np.ndarray: (4, >= 4 * pixels + 1) uint64, uninitialised.
    """
    scratch = getattr(_kept, 'scratch', None)
    if scratch is None or scratch.shape[1] <= 4 * pixels:
        scratch = np.empty((4, 4 * pixels + 1), dtype=np.uint64)
        if pixels <= KEPT_PIXELS:
            _kept.scratch = scratch
    return scratch


@kernel
def _reflect(index: int, size: int) -> int:
    index = index % (2 * size)
    return index if index < size else 2 * size - 1 - index


@kernel
def _load_row(image: np.ndarray, y: int, planes: np.ndarray) -> None:
    scale = 1. / 255.
    row = image[y]
    for channel in range(3):
        plane = planes[channel]
        for x in range(row.shape[0]):
            plane[x] = row[x, channel] * scale


@kernel
def blur(image: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Blur an image, first along its columns, then along its rows.

    Each sum starts with the centre and adds symmetric pairs from the outside in, as in SciPy.

    Args:
        image (np.ndarray): (H, W, 3) uint8.
        weights (np.ndarray): (radius + 1,) float64 half of a Gaussian kernel, the centre first.

    Returns:
        np.ndarray: (3, H, W) float64 in [0, 1].
    """
    height, width = image.shape[0], image.shape[1]
    radius = weights.shape[0] - 1
    ring_size = 2 * radius + 1
    ring = np.empty((ring_size, 3, width))
    padded = np.empty(width + 2 * radius)
    out = np.empty((3, height, width))
    for y in range(min(radius, height)):
        _load_row(image, y, ring[y])
    for y in range(height):
        if y + radius < height:
            _load_row(image, y + radius, ring[(y + radius) % ring_size])
        for channel in range(3):
            middle = padded[radius:radius + width]
            centre = ring[y % ring_size, channel]
            for x in range(width):
                middle[x] = centre[x] * weights[0]
            for k in range(radius, 0, -1):
                above = ring[_reflect(y - k, height) % ring_size, channel]
                below = ring[_reflect(y + k, height) % ring_size, channel]
                weight = weights[k]
                for x in range(width):
                    middle[x] += (above[x] + below[x]) * weight
            for k in range(1, radius + 1):
                padded[radius - k] = middle[_reflect(-k, width)]
                padded[radius + width - 1 + k] = middle[_reflect(width - 1 + k, width)]
            line = out[channel, y]
            for x in range(width):
                line[x] = middle[x] * weights[0]
            for k in range(radius, 0, -1):
                left = padded[radius - k:radius - k + width]
                right = padded[radius + k:radius + k + width]
                weight = weights[k]
                for x in range(width):
                    line[x] += (left[x] + right[x]) * weight
    return out


@kernel
def _cost_row(first: np.ndarray, second: np.ndarray, out: np.ndarray) -> None:
    for x in range(out.shape[0]):
        red = first[0, x] - second[0, x]
        green = first[1, x] - second[1, x]
        blue = first[2, x] - second[2, x]
        out[x] = np.sqrt(red * red + green * green + blue * blue)


@kernel
def edge_costs(blurred: np.ndarray) -> np.ndarray:
    """Compute colour distances along the edges right, down, down-right and up-right of each pixel.

    The edge up-right of (y, x) connects (y, x + 1) and (y + 1, x).

    Args:
        blurred (np.ndarray): (3, H, W) float64.

    Returns:
        np.ndarray: (4, H, W) float32; 0 for edges that cross the border.
    """
    height, width = blurred.shape[1], blurred.shape[2]
    costs = np.zeros((4, height, width), dtype=np.float32)
    for y in range(height):
        row = blurred[:, y]
        _cost_row(row[:, 1:], row[:, :width - 1], costs[0, y, :width - 1])
        if y + 1 < height:
            below = blurred[:, y + 1]
            _cost_row(below, row, costs[1, y])
            _cost_row(below[:, 1:], row[:, :width - 1], costs[2, y, :width - 1])
            _cost_row(below[:, :width - 1], row[:, 1:], costs[3, y, :width - 1])
    return costs


@kernel
def number_labels(parents: np.ndarray, height: int, width: int) -> tuple[np.ndarray, int]:
    """Assign labels to the trees of a forest, by first appearance in raster order.

    Args:
        parents (np.ndarray): (H*W,) int32 forest from `grow_forest`.
        height (int): Height of the image in pixels, H.
        width (int): Width of the image in pixels, W.

    Returns:
        tuple[np.ndarray, int]: (H, W) int32 labels from 0, and their number.
    """
    numbers = np.full(parents.shape[0], -1, dtype=np.int32)
    labels = np.empty(parents.shape[0], dtype=np.int32)
    count = 0
    for pixel in range(parents.shape[0]):
        root = find_root(parents, pixel)
        if numbers[root] < 0:
            numbers[root] = count
            count += 1
        labels[pixel] = numbers[root]
    return labels.reshape(height, width), count


def segment(image: np.ndarray, scale: float, sigma: float,
            min_size: int) -> tuple[np.ndarray, int]:
    """Segment an RGB image into components of similar colour.

    Args:
        image (np.ndarray): (H, W, 3) uint8.
        scale (float): Scale of observation; a larger scale gives larger components.
        sigma (float): Standard deviation of the blur in pixels.
        min_size (int): Smallest component in pixels.

    Returns:
        tuple[np.ndarray, int]: (H, W) int32 labels from 0, numbered by first appearance in raster
        order, and their number.
    """
    height, width = image.shape[:2]
    blurred = blur(image, gaussian_weights(sigma))
    parents = grow_forest(edge_costs(blurred), blurred, scale / 255., min_size,
                          edge_scratch(height * width))
    return number_labels(parents, height, width)
