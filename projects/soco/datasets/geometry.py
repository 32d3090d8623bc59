"""Functions on boxes and crop windows.

Boxes are (n, 4) float32, x1 y1 x2 y2, half-open (`x2 = x1 + w`). A window is `(x, y, w, h)` in whole
pixels of the photo. Random functions take a `numpy.random.Generator`, so that a sample is a function
of its seed.
"""
import math

import numpy as np

Window = tuple[int, int, int, int]


def sample_window(width: int, height: int, area: tuple[float, float],
                  ratio: tuple[float, float], rng: np.random.Generator) -> Window:
    """Draw the window of a RandomResizedCrop.

    Args:
        width (int): Width of the photo in pixels.
        height (int): Height of the photo in pixels.
        area (tuple[float, float]): Lowest and highest share of the photo's area, within (0, 1].
        ratio (tuple[float, float]): Lowest and highest width / height; drawn uniformly on a log scale.
        rng (np.random.Generator): Source of randomness.

    Returns:
        Window: `(x, y, w, h)`. If ten draws do not fit, the largest central window whose ratio is
        within the range (official behaviour, as in torchvision).
    """
    low, high = math.log(ratio[0]), math.log(ratio[1])
    for _ in range(10):
        target = rng.uniform(*area) * width * height
        aspect = math.exp(rng.uniform(low, high))
        w, h = round(math.sqrt(target * aspect)), round(math.sqrt(target / aspect))
        if 0 < w <= width and 0 < h <= height:
            return (int(rng.integers(0, width - w + 1)), int(rng.integers(0, height - h + 1)), w, h)
    w = min(width, max(1, round(height * ratio[1])))
    h = min(height, max(1, round(width / ratio[0])))
    return (width - w) // 2, (height - h) // 2, w, h


def zoom_of(width: int, height: int, scale: tuple[float, float],
            keep_ratio: bool = True) -> tuple[float, float]:
    """Return the factors by which a detector's pipeline enlarges a photo (as mmcv's `Resize`).

    Args:
        width (int): Width of the photo in pixels.
        height (int): Height of the photo in pixels.
        scale (tuple[float, float]): Width and height that the photo is resized to, in pixels.
        keep_ratio (bool): Whether the photo keeps its shape: then its long side is at most the larger,
            and its short side at most the smaller number of `scale`. Defaults to True.

    Returns:
        tuple[float, float]: Factors of the width and of the height.
    """
    if not keep_ratio:
        return scale[0] / width, scale[1] / height
    factor = min(max(scale) / max(width, height), min(scale) / min(width, height))
    return factor, factor


def sample_tile(width: int, height: int, sides: tuple[float, float], rng: np.random.Generator,
                anchor: np.ndarray | None = None) -> Window:
    """Draw a tile of a photo, uniformly among those that contain a box.

    Args:
        width (int): Width of the photo in pixels.
        height (int): Height of the photo in pixels.
        sides (tuple[float, float]): Width and height of the tile in pixels of the photo. If it does
            not fit into the photo, the largest tile of this shape is drawn.
        rng (np.random.Generator): Source of randomness.
        anchor (np.ndarray, optional): (4, ) box that is in the tile; of a side that is longer than the
            tile's, a part. Defaults to None: the tile may be anywhere in the photo.

    Returns:
        Window: `(x, y, w, h)`.
    """
    fit = min(1, width / sides[0], height / sides[1])
    corner, shape = [], []
    for axis, whole in enumerate((width, height)):
        side = min(whole, max(1, round(sides[axis] * fit)))
        low, high = 0, whole - side
        if anchor is not None:
            ends = anchor[axis], anchor[axis + 2] - side  # the tile begins at one, or ends at the other
            low = min(max(math.ceil(min(ends)), low), high)
            high = max(min(math.floor(max(ends)), high), low)
        corner.append(int(rng.integers(low, high + 1)))
        shape.append(side)
    return corner[0], corner[1], shape[0], shape[1]


def shares_inside(boxes: np.ndarray, window: Window) -> np.ndarray:
    """Return the share (n,) of the area of each box (n, 4) that is in a window; 0 for empty boxes."""
    x, y, w, h = window
    edges = np.clip(boxes, (x, y, x, y), (x + w, y + h, x + w, y + h))
    inside = (edges[:, 2:] - edges[:, :2]).prod(axis=1)
    area = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)
    return np.divide(inside, area, out=np.zeros(len(boxes)), where=area > 0)


def overlaps(boxes: np.ndarray, window: Window) -> np.ndarray:
    """Return a bool array (n,) that marks the boxes (n, 4) that share area with a window."""
    x, y, w, h = window
    return ((np.minimum(boxes[:, 2], x + w) > np.maximum(boxes[:, 0], x)) &
            (np.minimum(boxes[:, 3], y + h) > np.maximum(boxes[:, 1], y)))


def to_view(boxes: np.ndarray, window: Window, size: tuple[int, int]) -> np.ndarray:
    """Clip boxes to a window and express them in the pixels of the view that is cut from it.

    Args:
        boxes (np.ndarray): (n, 4) in pixels of the photo.
        window (Window): Part of the photo that the view shows.
        size (tuple[int, int]): Width and height of the view in pixels.

    Returns:
        np.ndarray: (n, 4) float32 in pixels of the view.
    """
    x, y, w, h = window
    scale = np.array([size[0] / w, size[1] / h] * 2)
    moved = boxes.astype(np.float64) - np.array([x, y] * 2)
    return (np.clip(moved, 0, np.array([w, h] * 2)) * scale).astype(np.float32)


def jitter_boxes(boxes: np.ndarray, prob: float, ratio: float,
                 rng: np.random.Generator) -> np.ndarray:
    """Move and scale some boxes by a share of their own size (official behaviour).

    Args:
        boxes (np.ndarray): (n, 4).
        prob (float): Probability that a box is changed, within [0, 1].
        ratio (float): Largest change. x and y move by, and w and h grow by, a uniform draw from
            `[-ratio, ratio]` times the box's width or height.
        rng (np.random.Generator): Source of randomness.

    Returns:
        np.ndarray: (n, 4), not clipped.
    """
    chosen = rng.random(len(boxes)) < prob
    change = rng.uniform(-ratio, ratio, size=(len(boxes), 4)) * chosen[:, None]
    size = boxes[:, 2:] - boxes[:, :2]
    corner = boxes[:, :2] + change[:, :2] * size
    return np.concatenate([corner, corner + size * (1 + change[:, 2:])], axis=1).astype(np.float32)


def flip_boxes(boxes: np.ndarray, width: float) -> np.ndarray:
    """Mirror boxes (..., 4) horizontally in a view that is `width` pixels wide."""
    flipped = boxes.copy()
    flipped[..., 0] = width - boxes[..., 2]
    flipped[..., 2] = width - boxes[..., 0]
    return flipped
