"""Functions that draw outlines, labels, titles and margins on arrays."""
import itertools
import math
import textwrap
from collections.abc import Iterator, Sequence
from functools import cache
from io import BytesIO
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image, ImageDraw, ImageFont

from ..files import write_whole

# Okabe and Ito's colour-blind-safe palette without black; the first four differ most.
PALETTE = ((213, 94, 0), (86, 180, 233), (240, 228, 66), (0, 158, 115), (204, 121, 167),
           (0, 114, 178), (230, 159, 0))
INK, MUTED, PAPER = (32, 36, 42), (96, 102, 110), (255, 255, 255)
MARGIN, HEADER, CELL = 16, 34, 448

Color = tuple[int, int, int]


def join_pictures(parts: Sequence[np.ndarray], axis: int, gap: int = MARGIN) -> np.ndarray:
    """Join pictures of any sizes on white, aligned left and top.

    Args:
        parts (Sequence[np.ndarray]): RGB, uint8, (H, W, 3); at least one.
        axis (int): 0 to join them vertically, 1 horizontally.
        gap (int): Pixels between two pictures. Defaults to 16.

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


def resize_picture(picture: np.ndarray, width: int) -> np.ndarray:
    """Resize a picture to a width, with its proportions.

    Args:
        picture (np.ndarray): RGB, uint8, (H, W, 3).
        width (int): In pixels.

    Returns:
        np.ndarray: uint8, (h, width, 3).
    """
    height = max(1, round(picture.shape[0] * width / picture.shape[1]))
    return np.asarray(Image.fromarray(picture).resize((width, height), Image.Resampling.LANCZOS))


def save_image(array: np.ndarray, path: str | Path) -> Path:
    """Write a picture as a PNG file atomically, and create missing folders.

    Args:
        array (np.ndarray): RGB, uint8, (H, W, 3).
        path (str | Path): Path that ends in .png; an existing file is replaced.

    Returns:
        Path: `path`.

    Raises:
        ValueError: If `array` is not such a picture or `path` has another suffix.
    """
    path = Path(path)
    if path.suffix.lower() != '.png':
        raise ValueError(f'Pictures are written as PNG: use a path that ends in .png, not {path}.')
    buffer = BytesIO()
    Image.fromarray(check_image(array, 'array')).save(buffer, 'PNG')
    write_whole(path, buffer.getvalue())
    return path


def figure_pixels(figure: Figure) -> np.ndarray:
    """Draw a figure of matplotlib, and return it as an image (H, W, 3) uint8."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def check_image(image: np.ndarray, name: str) -> np.ndarray:
    """Check that an array is an RGB picture.

    Args:
        image (np.ndarray): The array to check.
        name (str): Name of the argument, for the message.

    Returns:
        np.ndarray: `image`, uint8, (H, W, 3).

    Raises:
        ValueError: If it has another type or shape, or is empty.
    """
    image = np.asarray(image)
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
        raise ValueError(f'`{name}` must be an RGB picture, uint8 of shape (H, W, 3), but is '
                         f'{image.dtype} of shape {image.shape}.')
    return image


def whole_factor(image: np.ndarray, short_side: int) -> int:
    """Return the whole factor that enlarges a picture's short side to at least a length.

    The factor is smaller where the long side would exceed 4096 px; it is at least 1.

    Args:
        image (np.ndarray): RGB, uint8, (H, W, 3).
        short_side (int): Length of the short side in pixels.

    Returns:
        int: The factor.
    """
    short, long = sorted(check_image(image, 'image').shape[:2])
    return max(1, min(math.ceil(short_side / short), 4096 // long))


def check_boxes(boxes: np.ndarray, name: str = 'boxes') -> np.ndarray:
    """Check that an array contains boxes.

    Args:
        boxes (np.ndarray): (n, 4), x1 y1 x2 y2 in pixels; n may be 0.
        name (str): Name of the argument, for the message. Defaults to 'boxes'.

    Returns:
        np.ndarray: The boxes, float64, (n, 4).

    Raises:
        ValueError: If the array has another shape, or a number is not finite.
    """
    boxes = np.asarray(boxes, dtype=np.float64)
    if not boxes.size:
        boxes = boxes.reshape(0, 4)
    if boxes.ndim != 2 or boxes.shape[1] != 4 or not np.isfinite(boxes).all():
        raise ValueError(f'`{name}` must be finite numbers of shape (n, 4), x1 y1 x2 y2 in '
                         f'pixels, but has shape {boxes.shape}.')
    return boxes


@cache
def font_of(size: int, bold: bool = False) -> ImageFont.FreeTypeFont:
    """Return matplotlib's DejaVu Sans font in a size."""
    # By path: matplotlib's look-up by name first builds a cache of all fonts.
    name = 'DejaVuSans-Bold.ttf' if bold else 'DejaVuSans.ttf'
    return ImageFont.truetype(str(Path(matplotlib.get_data_path(), 'fonts', 'ttf', name)), size)


def _contrast(color: Color) -> Color:
    """Return `INK` or `PAPER`, whichever is more legible on a colour (relative luminance)."""
    return INK if np.dot(color, (.299, .587, .114)) > 120 else PAPER


def enlarge(image: np.ndarray, factor: float) -> Image.Image:
    """Resize a picture by a factor, with bicubic interpolation, to at least 1 px per side."""
    height, width = image.shape[:2]
    size = max(1, round(width * factor)), max(1, round(height * factor))
    return Image.fromarray(image).resize(size, Image.Resampling.BICUBIC)


def to_pixels(boxes: np.ndarray, factor: float, size: tuple[int, int]) -> list[list[int]]:
    """Scale boxes and clip them to a picture of (width, height); sides stay at least 2 px long."""
    low = np.clip(np.rint(boxes[:, :2] * factor), 0, np.array(size) - 2)
    high = np.maximum(np.minimum(np.rint(boxes[:, 2:] * factor), size), low + 2)
    return np.concatenate([low, high], 1).astype(int).tolist()


def step_inside(box: list[int], earlier: list[list[int]]) -> list[int]:
    """Move those sides of a box inwards that coincide with the same side of an earlier box."""
    moved = list(box)
    for side, inwards in enumerate((5, 5, -5, -5)):
        room = (box[side % 2 + 2] - box[side % 2]) // 3
        while abs(moved[side] - box[side]) + 5 <= room and any(
                abs(moved[side] - other[side]) < 5 for other in earlier):
            moved[side] += inwards
    return moved


def outline(draw: ImageDraw.ImageDraw, box: list[int], color: Color, width: int) -> None:
    """Draw a coloured frame just inside the box, with a contrasting hairline on both sides."""
    x1, y1, x2, y2 = box[0], box[1], box[2] - 1, box[3] - 1
    for grow, tint, line in ((1, _contrast(color), 1), (-width, _contrast(color), 1),
                             (0, color, width)):
        if x1 - grow <= x2 + grow and y1 - grow <= y2 + grow:
            draw.rectangle((x1 - grow, y1 - grow, x2 + grow, y2 + grow), outline=tint, width=line)


def draw_chip(draw: ImageDraw.ImageDraw, box: list[int], label: str, color: Color,
               taken: list[tuple[int, int, int, int]],
               size: tuple[int, int]) -> tuple[int, int, int, int]:
    """Write a label on a chip at the first free place, and return the place (xyxy)."""
    width, height = math.ceil(font_of(14, True).getlength(label)) + 10, 20
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
              font=font_of(14, True), anchor='mm')
    return place


def color_scale(shades: matplotlib.colors.Colormap, low: float, high: float) -> np.ndarray:
    """Draw a colour bar from the smallest to the largest box, with both sizes beside it."""
    parts = [f'box size √(w·h)   {low:.0f} px', f'{high:.0f} px']
    widths = [math.ceil(font_of(14).getlength(part)) for part in parts]
    canvas = Image.new('RGB', (sum(widths) + 144, 22), PAPER)
    draw = ImageDraw.Draw(canvas)
    draw.text((0, 11), parts[0], fill=MUTED, font=font_of(14), anchor='lm')
    bar = (shades(np.linspace(0, 1, 120))[None, :, :3] * 255).round().astype(np.uint8)
    canvas.paste(Image.fromarray(np.repeat(bar, 10, 0)), (widths[0] + 10, 6))
    draw.text((widths[0] + 140, 11), parts[1], fill=MUTED, font=font_of(14), anchor='lm')
    return np.asarray(canvas)


def titled(picture: np.ndarray, title: str, room: int = 0) -> np.ndarray:
    """Put a title above a picture; a title wider than the picture and than `room` is cut."""
    font, width = font_of(17, True), max(picture.shape[1], room)
    text = title
    while font.getlength(text) > width and len(title) > 1:
        title = title[:-1]
        text = title.rstrip() + '…'
    strip = Image.new('RGB', (width, HEADER), PAPER)
    ImageDraw.Draw(strip).text((0, HEADER / 2), text, fill=INK, font=font, anchor='lm')
    return join_pictures([np.asarray(strip), picture], axis=0, gap=0)


def paragraph(text: str, width: int) -> np.ndarray:
    """Draw text, wrapped to a width (a letter of 15 px is about 8.5 px wide)."""
    lines = textwrap.wrap(text, int(width / 8.5))
    canvas = Image.new('RGB', (width, 24 * len(lines)), PAPER)
    for row, line in enumerate(lines):
        ImageDraw.Draw(canvas).text((0, 24 * row + 12), line, fill=MUTED, font=font_of(15),
                                    anchor='lm')
    return np.asarray(canvas)


def framed(picture: np.ndarray) -> np.ndarray:
    """Add a white margin around a picture."""
    return np.pad(picture, ((MARGIN, MARGIN), (MARGIN, MARGIN), (0, 0)), constant_values=255)
