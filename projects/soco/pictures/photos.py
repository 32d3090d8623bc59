"""Pictures of boxes on a photo and of matched views.

All functions take and return plain arrays. Boxes are x1 y1 x2 y2 in pixels, half-open.
Pictures are uint8 RGB arrays (H, W, 3).
"""
from collections.abc import Sequence

import matplotlib
import numpy as np
from PIL import ImageDraw

from .canvas import (
    CELL,
    MARGIN,
    PALETTE,
    Color,
    check_boxes,
    check_image,
    color_scale,
    draw_chip,
    enlarge,
    framed,
    join_pictures,
    outline,
    paragraph,
    step_inside,
    titled,
    to_pixels,
    whole_factor,
)


def draw_proposals(image: np.ndarray, boxes: np.ndarray, title: str) -> np.ndarray:
    """Draw many boxes with thin lines, coloured by size, with a title above and a scale below.

    Small boxes are drawn last, so that large ones do not hide them.

    Args:
        image (np.ndarray): RGB, uint8, (H, W, 3); enlarged by a whole factor if its short side
            is below 480 px.
        boxes (np.ndarray): (n, 4), x1 y1 x2 y2 in pixels of `image`; n may be 0.
        title (str): One line; it is cut if it is wider than the picture.

    Returns:
        np.ndarray: uint8, the picture, darkened a little, on white with the title above and the
        scale below; without boxes, no scale.

    Raises:
        ValueError: If an array has another type or shape.
    """
    return framed(_proposal_panel(image, boxes, title, whole_factor(image, 480)))


def draw_views(photo: np.ndarray,
               proposals: np.ndarray,
               views: Sequence[np.ndarray],
               bboxes: np.ndarray,
               levels: np.ndarray | None = None,
               level_names: Sequence[str] = (),
               name: str = 'photo') -> np.ndarray:
    """Draw a photo with its proposals and, for each pair (1, v), view 1 beside view v.

    An object has the same number and colour in both views of its pair. Numbers continue from pair to
    pair, and colours start again. A pair with the same boxes in view 1 as an earlier pair has the same
    objects (SoCo*) and keeps their numbers. All views are drawn at the same size.

    Args:
        photo (np.ndarray): RGB, uint8, (H, W, 3).
        proposals (np.ndarray): (n, 4), x1 y1 x2 y2 in pixels of `photo`.
        views (Sequence[np.ndarray]): V = P + 1 pictures, RGB, uint8, (H_v, W_v, 3).
        bboxes (np.ndarray): (P, 2, K, 4), x1 y1 x2 y2 in pixels of the view; `bboxes[p, 0, k]`
            in view 1 and `bboxes[p, 1, k]` in view p + 2 are the same object.
        levels (np.ndarray | None): (P, 2, K), the index of each box's pyramid level. Defaults to
            None: levels are not shown.
        level_names (Sequence[str]): Names of the levels, such as P2; needed if `levels` is given.
            Defaults to ().
        name (str): Name of the photo in its title. Defaults to 'photo'.

    Returns:
        np.ndarray: uint8, one figure on white.

    Raises:
        ValueError: If an array has another type, shape or range than described above.
    """
    views = [check_image(view, f'views[{i}]') for i, view in enumerate(views)]
    bboxes, labels = _check_pairs(views, bboxes, levels, level_names)
    colors = [PALETTE[k % len(PALETTE)] for k in range(bboxes.shape[2])]

    def tile(view: int, pair: int, side: int) -> np.ndarray:
        height, width = views[view].shape[:2]
        picture = _annotate(views[view], bboxes[pair, side], labels[pair][side], colors,
                            CELL / max(height, width))
        return titled(picture, f'view {view + 1}, {width}x{height}')

    rows = [join_pictures((tile(0, pair, 0), tile(pair + 1, pair, 1)), axis=1)
            for pair in range(len(bboxes))]
    height, width = check_image(photo, 'photo').shape[:2]
    room = 1.4 * CELL if len(rows) == 1 else 1.8 * CELL
    panel = _proposal_panel(photo, proposals, f'{name}, {width}x{height}, proposals: '
                            f'{len(proposals)}', room / max(height, width), round(room))
    note = 'Same number and colour: the same object.'
    if levels is not None:
        note += f' {level_names[0]} to {level_names[-1]}: the pyramid level of its feature.'
    left = join_pictures([panel, paragraph(note, round(room))], axis=0)  # the same width for any photo
    return framed(join_pictures([left, join_pictures(rows, axis=0)], axis=1, gap=2 * MARGIN))


def _check_pairs(views: list[np.ndarray], bboxes: np.ndarray, levels: np.ndarray | None,
                 level_names: Sequence[str]) -> tuple[np.ndarray, list[list[list[str]]]]:
    """Check the pairs' arrays, and return the boxes and their labels[pair][side][k]."""
    bboxes = np.asarray(bboxes, dtype=np.float64)
    if bboxes.ndim != 4 or bboxes.shape[1::2] != (2, 4) or not 1 <= len(bboxes) == len(views) - 1:
        raise ValueError(f'`bboxes` must have shape (P, 2, K, 4) with P = {len(views) - 1} pairs '
                         f'for {len(views)} views, at least one, but has shape {bboxes.shape}.')
    pairs, _, num, _ = bboxes.shape
    first = [next(i for i in range(pair + 1) if np.array_equal(bboxes[i, 0], bboxes[pair, 0]))
             for pair in range(pairs)]
    order = sorted(set(first))
    labels = [[[str(order.index(i) * num + k + 1) for k in range(num)] for _ in range(2)]
              for i in first]
    if levels is not None:
        levels = np.asarray(levels)
        if levels.shape != bboxes.shape[:3] or not np.isin(levels, range(len(level_names))).all():
            raise ValueError(f'`levels` must have shape {bboxes.shape[:3]} and values below the number '
                             f'of `level_names`, {len(level_names)}, but has shape {levels.shape}.')
        labels = [[[f'{label} {level_names[int(level)]}' for label, level in zip(texts, row)]
                   for texts, row in zip(sides, grid)] for sides, grid in zip(labels, levels)]
    return bboxes, labels


def _annotate(image: np.ndarray, boxes: np.ndarray, labels: Sequence[str], colors: Sequence[Color],
              factor: float) -> np.ndarray:
    """Draw boxes, with their labels on chips that do not overlap.

    A pixel (x, y) of `image` is at (factor * x, factor * y). A side that would hide the same side of an
    earlier box is drawn 5 px further inside. There is no chip for the label ''.
    """
    boxes = check_boxes(boxes)
    canvas = enlarge(image, factor)
    draw = ImageDraw.Draw(canvas)
    pixels = to_pixels(boxes, factor, canvas.size)
    for i, color in enumerate(colors):
        pixels[i] = step_inside(pixels[i], pixels[:i])
        outline(draw, pixels[i], tuple(color), 3)
    taken: list[tuple[int, int, int, int]] = []
    for box, label, color in zip(pixels, labels, colors):
        if label:
            taken.append(draw_chip(draw, box, label, tuple(color), taken, canvas.size))
    return np.asarray(canvas)


def _proposal_panel(image: np.ndarray, boxes: np.ndarray, title: str, factor: float,
                    room: int = 0) -> np.ndarray:
    boxes = check_boxes(boxes)
    sizes = np.sqrt(np.prod(np.maximum(boxes[:, 2:] - boxes[:, :2], 0), axis=1))
    shades = matplotlib.colormaps['cool']
    low, high = (sizes.min(), sizes.max()) if len(sizes) else (0., 0.)
    colors = (shades((sizes - low) / max(high - low, 1e-9))[:, :3] * 255).round().astype(int)
    canvas = enlarge(image, factor).point(lambda value: .7 * value)
    draw = ImageDraw.Draw(canvas)
    pixels = to_pixels(boxes, factor, canvas.size)
    for i in np.argsort(-sizes, kind='stable'):
        x1, y1, x2, y2 = pixels[i]
        draw.rectangle((x1, y1, x2 - 1, y2 - 1), outline=tuple(colors[i].tolist()),
                       width=max(1, round(factor)))
    parts = [titled(np.asarray(canvas), title, room)]
    if len(boxes):
        parts.append(color_scale(shades, low, high))
    return join_pictures(parts, axis=0, gap=8)
