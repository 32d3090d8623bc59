"""Arrays to pictures: boxes on a photo, matched views.

Everything here takes and gives plain arrays and files. Boxes are x1 y1 x2 y2 in pixels, half-open.
Pictures are uint8 RGB arrays (H, W, 3).
"""
import itertools
import math
import textwrap
from collections.abc import Iterator, Sequence
from functools import lru_cache
from io import BytesIO
from pathlib import Path

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from .proposals.files import whole_file

# Okabe and Ito's colour-blind-safe palette without black; the first four differ most.
PALETTE = ((213, 94, 0), (86, 180, 233), (240, 228, 66), (0, 158, 115), (204, 121, 167),
           (0, 114, 178), (230, 159, 0))
LEVELS = ('P2', 'P3', 'P4', 'P5')
INK, MUTED, PAPER = (32, 36, 42), (96, 102, 110), (255, 255, 255)
MARGIN, HEADER, CELL = 16, 34, 448

Color = tuple[int, int, int]


def draw_boxes(image: np.ndarray,
               boxes: np.ndarray,
               labels: Sequence[str] | None = None,
               colors: Sequence[Color] | None = None) -> np.ndarray:
    """Draw boxes with their labels on chips that do not cover each other.

    A picture whose short side is below 320 px is enlarged by a whole factor first, so that a
    pixel (x, y) of `image` lies at (factor * x, factor * y), factor = `out.shape[0] // H`. A side
    that would hide the same side of an earlier box is drawn 5 px further inside.

    Args:
        image (np.ndarray): RGB, uint8, (H, W, 3).
        boxes (np.ndarray): (n, 4), x1 y1 x2 y2 in pixels of `image`; parts outside are cut off.
        labels (Sequence[str] | None): One text per box, '' for none. Default: 1, 2, …
        colors (Sequence[Color] | None): One (r, g, b) per box, 0 to 255. Default: `PALETTE`,
            repeated.

    Returns:
        np.ndarray: uint8, (factor * H, factor * W, 3).

    Raises:
        ValueError: If an array has another type or shape, or a list another length than `boxes`.
    """
    return _annotate(image, boxes, labels, colors, _whole_factor(image, 320))


def draw_proposals(image: np.ndarray, boxes: np.ndarray, title: str) -> np.ndarray:
    """Draw many boxes with thin lines, coloured by size, under a title and over a colour scale.

    Small boxes are drawn last, so that large ones do not hide them.

    Args:
        image (np.ndarray): RGB, uint8, (H, W, 3); enlarged by a whole factor if its short side
            is below 480 px.
        boxes (np.ndarray): (n, 4), x1 y1 x2 y2 in pixels of `image`; n may be 0.
        title (str): One line, cut where it is wider than the picture.

    Returns:
        np.ndarray: uint8, the picture, darkened a little, on white with the title above and the
        scale below; without boxes, no scale.

    Raises:
        ValueError: If an array has another type or shape.
    """
    return _framed(_proposal_panel(image, boxes, title, _whole_factor(image, 480)))


def draw_views(photo: np.ndarray,
               proposals: np.ndarray,
               views: Sequence[np.ndarray],
               bboxes: np.ndarray,
               levels: np.ndarray | None = None,
               name: str = 'photo') -> np.ndarray:
    """Draw a photo with its proposals and, for each pair (1, v), view 1 beside view v.

    An object has one number and one colour in both views of its pair. Numbers run on from pair to
    pair, colours begin again; a pair with the same boxes in view 1 as an earlier one has the same
    objects (SoCo*) and keeps its numbers. All views are shown at one size, whatever their own.

    Args:
        photo (np.ndarray): RGB, uint8, (H, W, 3).
        proposals (np.ndarray): (n, 4), x1 y1 x2 y2 in pixels of `photo`.
        views (Sequence[np.ndarray]): V = P + 1 pictures, RGB, uint8, (H_v, W_v, 3).
        bboxes (np.ndarray): (P, 2, K, 4), x1 y1 x2 y2 in pixels of the view; `bboxes[p, 0, k]`
            in view 1 and `bboxes[p, 1, k]` in view p + 2 are the same object.
        levels (np.ndarray | None): (P, 2, K), the pyramid level of each box, 0 for P2 to 3 for
            P5. Default: not shown.
        name (str): What the photo is called in its title. Default: 'photo'.

    Returns:
        np.ndarray: uint8, one figure on white.

    Raises:
        ValueError: If an array has another type, shape or range than said above.
    """
    views = [_check_image(view, f'views[{i}]') for i, view in enumerate(views)]
    bboxes, labels = _check_pairs(views, bboxes, levels)
    colors = [PALETTE[k % len(PALETTE)] for k in range(bboxes.shape[2])]

    def tile(view: int, pair: int, side: int) -> np.ndarray:
        height, width = views[view].shape[:2]
        picture = _annotate(views[view], bboxes[pair, side], labels[pair][side], colors,
                            CELL / max(height, width))
        return _titled(picture, f'view {view + 1}, {width}x{height}')

    rows = [join_pictures((tile(0, pair, 0), tile(pair + 1, pair, 1)), axis=1)
            for pair in range(len(bboxes))]
    height, width = _check_image(photo, 'photo').shape[:2]
    room = 1.4 * CELL if len(rows) == 1 else 1.8 * CELL
    panel = _proposal_panel(photo, proposals, f'{name}, {width}x{height}, proposals: '
                            f'{len(proposals)}', room / max(height, width), round(room))
    note = 'Same number and colour: the same object.'
    if levels is not None:
        note += ' P2 to P5: the pyramid level its feature is taken from.'
    left = join_pictures([panel, _paragraph(note, round(room))], axis=0)  # as wide for any photo
    return _framed(join_pictures([left, join_pictures(rows, axis=0)], axis=1, gap=2 * MARGIN))


def join_pictures(parts: Sequence[np.ndarray], axis: int, gap: int = MARGIN) -> np.ndarray:
    """Join pictures of any sizes on white, flush left and top.

    Args:
        parts (Sequence[np.ndarray]): RGB, uint8, (H, W, 3); at least one.
        axis (int): 0 for under each other, 1 for beside each other.
        gap (int): Pixels between two. Defaults to 16.

    Returns:
        np.ndarray: uint8, (H, W, 3).
    """
    across = max(part.shape[1 - axis] for part in parts)
    filled = []
    for i, part in enumerate(parts):
        pad = [(0, 0), (0, 0), (0, 0)]
        pad[1 - axis] = (0, across - part.shape[1 - axis])
        pad[axis] = (gap if i else 0, 0)
        filled.append(np.pad(part, pad, constant_values=255))
    return np.concatenate(filled, axis)


def save_image(array: np.ndarray, path: str | Path) -> Path:
    """Write a picture as PNG, whole or not at all; missing folders are made.

    Args:
        array (np.ndarray): RGB, uint8, (H, W, 3).
        path (str | Path): Ends in .png; a file there is replaced.

    Returns:
        Path: `path`.

    Raises:
        ValueError: If `array` is not such a picture or `path` has another suffix.
    """
    path = Path(path)
    if path.suffix.lower() != '.png':
        raise ValueError(f'Pictures are written as PNG: give a path that ends in .png, not {path}.')
    buffer = BytesIO()
    Image.fromarray(_check_image(array, 'array')).save(buffer, 'PNG')
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path, 'wb') as file:
        file.write(buffer.getvalue())
    return path


def _check_image(image: np.ndarray, name: str) -> np.ndarray:
    image = np.asarray(image)
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
        raise ValueError(f'`{name}` must be an RGB picture, uint8 of shape (H, W, 3), but is '
                         f'{image.dtype} of shape {image.shape}.')
    return image


def _whole_factor(image: np.ndarray, short_side: int) -> int:
    """The factor that brings the short side to a length, as far as 4096 px on the long one."""
    short, long = sorted(_check_image(image, 'image').shape[:2])
    return max(1, min(math.ceil(short_side / short), 4096 // long))


def _check_boxes(boxes: np.ndarray, name: str = 'boxes') -> np.ndarray:
    boxes = np.asarray(boxes, dtype=np.float64)
    if not boxes.size:
        boxes = boxes.reshape(0, 4)
    if boxes.ndim != 2 or boxes.shape[1] != 4 or not np.isfinite(boxes).all():
        raise ValueError(f'`{name}` must be finite numbers of shape (n, 4), x1 y1 x2 y2 in '
                         f'pixels, but has shape {boxes.shape}.')
    return boxes


def _check_pairs(views: list[np.ndarray], bboxes: np.ndarray, levels: np.ndarray | None
                 ) -> tuple[np.ndarray, list[list[list[str]]]]:
    """Check the pairs' arrays and name their objects: labels[pair][side][k]."""
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
        if levels.shape != bboxes.shape[:3] or not np.isin(levels, range(len(LEVELS))).all():
            raise ValueError(f'`levels` must have shape {bboxes.shape[:3]} and values from 0 (P2) '
                             f'to 3 (P5), but has shape {levels.shape}.')
        labels = [[[f'{label} {LEVELS[int(level)]}' for label, level in zip(texts, row)]
                   for texts, row in zip(sides, grid)] for sides, grid in zip(labels, levels)]
    return bboxes, labels


@lru_cache(maxsize=None)
def _font(size: int, bold: bool = False) -> ImageFont.FreeTypeFont:
    # By path: matplotlib's own look-up by name builds a cache of all fonts first.
    name = 'DejaVuSans-Bold.ttf' if bold else 'DejaVuSans.ttf'
    return ImageFont.truetype(str(Path(matplotlib.get_data_path(), 'fonts', 'ttf', name)), size)


def _contrast(color: Color) -> Color:
    """Black or white, whichever is read better on a colour (relative luminance, sRGB weights)."""
    return INK if np.dot(color, (.299, .587, .114)) > 120 else PAPER


def _enlarge(image: np.ndarray, factor: float) -> Image.Image:
    height, width = image.shape[:2]
    size = max(1, round(width * factor)), max(1, round(height * factor))
    return Image.fromarray(image).resize(size, Image.Resampling.BICUBIC)


def _to_pixels(boxes: np.ndarray, factor: float, size: tuple[int, int]) -> list[list[int]]:
    """Scale boxes and cut them to a picture of (width, height); at least 2 px stay."""
    low = np.clip(np.rint(boxes[:, :2] * factor), 0, np.array(size) - 2)
    high = np.maximum(np.minimum(np.rint(boxes[:, 2:] * factor), size), low + 2)
    return np.concatenate([low, high], 1).astype(int).tolist()


def _step_inside(box: list[int], earlier: list[list[int]]) -> list[int]:
    """Move the sides of a box inwards that lie on the same side of an earlier box."""
    moved = list(box)
    for side, inwards in enumerate((5, 5, -5, -5)):
        room = (box[side % 2 + 2] - box[side % 2]) // 3
        while abs(moved[side] - box[side]) + 5 <= room and any(
                abs(moved[side] - other[side]) < 5 for other in earlier):
            moved[side] += inwards
    return moved


def _outline(draw: ImageDraw.ImageDraw, box: list[int], color: Color, width: int) -> None:
    """A coloured frame just inside the box, with a hair line of contrast on both sides."""
    x1, y1, x2, y2 = box[0], box[1], box[2] - 1, box[3] - 1
    for grow, tint, line in ((1, _contrast(color), 1), (-width, _contrast(color), 1),
                             (0, color, width)):
        if x1 - grow <= x2 + grow and y1 - grow <= y2 + grow:
            draw.rectangle((x1 - grow, y1 - grow, x2 + grow, y2 + grow), outline=tint, width=line)


def _annotate(image: np.ndarray, boxes: np.ndarray, labels: Sequence[str] | None,
              colors: Sequence[Color] | None, factor: float) -> np.ndarray:
    boxes = _check_boxes(boxes)
    labels = [str(i + 1) for i in range(len(boxes))] if labels is None else list(labels)
    if colors is None:
        colors = [PALETTE[i % len(PALETTE)] for i in range(len(boxes))]
    for name, given in (('labels', labels), ('colors', colors)):
        if len(given) != len(boxes):
            raise ValueError(f'`{name}` has {len(given)} entries for {len(boxes)} boxes: give '
                             'one for each box, or None.')
    canvas = _enlarge(image, factor)
    draw = ImageDraw.Draw(canvas)
    pixels = _to_pixels(boxes, factor, canvas.size)
    for i, color in enumerate(colors):
        pixels[i] = _step_inside(pixels[i], pixels[:i])
        _outline(draw, pixels[i], tuple(color), 3)
    taken: list[tuple[int, int, int, int]] = []
    for box, label, color in zip(pixels, labels, colors):
        if label:
            taken.append(_draw_chip(draw, box, label, tuple(color), taken, canvas.size))
    return np.asarray(canvas)


def _draw_chip(draw: ImageDraw.ImageDraw, box: list[int], label: str, color: Color,
               taken: list[tuple[int, int, int, int]],
               size: tuple[int, int]) -> tuple[int, int, int, int]:
    """Write a label on a chip at the first place that is free; returns the place (xyxy)."""
    width, height = math.ceil(_font(14, True).getlength(label)) + 10, 20
    x1, y1, x2, y2 = box

    def is_free(place: tuple[int, int, int, int]) -> bool:
        return (place[0] >= 0 and place[1] >= 0 and place[2] <= size[0] and place[3] <= size[1]
                and not any(place[0] <= other[2] and other[0] <= place[2]
                            and place[1] <= other[3] and other[1] <= place[3] for other in taken))

    def places() -> Iterator[tuple[int, int, int, int]]:
        corners = [(x1, y1), (x2 - width, y1), (x1, y2 - height), (x2 - width, y2 - height),
                   (x1, y1 - height), (x1, y2), (x2, y1), (x1 - width, y1)]
        yield from ((x, y, x + width, y + height) for x, y in corners)
        everywhere = itertools.product(range(0, size[0] - width, 8), range(0, size[1] - height, 8))
        for x, y in sorted(everywhere, key=lambda at: math.hypot(at[0] - x1, at[1] - y1)):
            yield x, y, x + width, y + height

    place = next(filter(is_free, places()), (x1, y1, x1 + width, y1 + height))
    draw.rounded_rectangle((place[0], place[1], place[2] - 1, place[3] - 1), radius=3, fill=color,
                           outline=_contrast(color), width=1)
    draw.text(((place[0] + place[2]) / 2, (place[1] + place[3]) / 2), label, fill=_contrast(color),
              font=_font(14, True), anchor='mm')
    return place


def _proposal_panel(image: np.ndarray, boxes: np.ndarray, title: str, factor: float,
                    room: int = 0) -> np.ndarray:
    boxes = _check_boxes(boxes)
    sizes = np.sqrt(np.prod(np.maximum(boxes[:, 2:] - boxes[:, :2], 0), axis=1))
    shades = matplotlib.colormaps['cool']
    low, high = (sizes.min(), sizes.max()) if len(sizes) else (0., 0.)
    colors = (shades((sizes - low) / max(high - low, 1e-9))[:, :3] * 255).round().astype(int)
    canvas = _enlarge(image, factor).point(lambda value: .7 * value)
    draw = ImageDraw.Draw(canvas)
    pixels = _to_pixels(boxes, factor, canvas.size)
    for i in np.argsort(-sizes, kind='stable'):
        x1, y1, x2, y2 = pixels[i]
        draw.rectangle((x1, y1, x2 - 1, y2 - 1), outline=tuple(colors[i].tolist()),
                       width=max(1, round(factor)))
    parts = [_titled(np.asarray(canvas), title, room)]
    if len(boxes):
        parts.append(_color_scale(shades, low, high))
    return join_pictures(parts, axis=0, gap=8)


def _color_scale(shades: matplotlib.colors.Colormap, low: float, high: float) -> np.ndarray:
    """A bar from the smallest to the largest box with both sizes beside it."""
    parts = [f'box size √(w·h)   {low:.0f} px', f'{high:.0f} px']
    widths = [math.ceil(_font(14).getlength(part)) for part in parts]
    canvas = Image.new('RGB', (sum(widths) + 144, 22), PAPER)
    draw = ImageDraw.Draw(canvas)
    draw.text((0, 11), parts[0], fill=MUTED, font=_font(14), anchor='lm')
    bar = (shades(np.linspace(0, 1, 120))[None, :, :3] * 255).round().astype(np.uint8)
    canvas.paste(Image.fromarray(np.repeat(bar, 10, 0)), (widths[0] + 10, 6))
    draw.text((widths[0] + 140, 11), parts[1], fill=MUTED, font=_font(14), anchor='lm')
    return np.asarray(canvas)


def _titled(picture: np.ndarray, title: str, room: int = 0) -> np.ndarray:
    """A strip with the title above a picture; wider than it and than a room, a title is cut."""
    font, width = _font(17, True), max(picture.shape[1], room)
    text = title
    while font.getlength(text) > width and len(title) > 1:
        title = title[:-1]
        text = title.rstrip() + '…'
    strip = Image.new('RGB', (width, HEADER), PAPER)
    ImageDraw.Draw(strip).text((0, HEADER / 2), text, fill=INK, font=font, anchor='lm')
    return join_pictures([np.asarray(strip), picture], axis=0, gap=0)


def _paragraph(text: str, width: int) -> np.ndarray:
    """Text broken into lines that fit a width (a letter of 15 px is about 8.5 px wide)."""
    lines = textwrap.wrap(text, int(width / 8.5))
    canvas = Image.new('RGB', (width, 24 * len(lines)), PAPER)
    for row, line in enumerate(lines):
        ImageDraw.Draw(canvas).text((0, 24 * row + 12), line, fill=MUTED, font=_font(15),
                                    anchor='lm')
    return np.asarray(canvas)


def _framed(picture: np.ndarray) -> np.ndarray:
    """A white margin around a picture."""
    return np.pad(picture, ((MARGIN, MARGIN), (MARGIN, MARGIN), (0, 0)), constant_values=255)
