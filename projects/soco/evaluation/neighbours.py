"""Pictures of objects and their nearest neighbours in feature space."""
import math
from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor
from torch.utils.data import default_collate

from ..datasets.dataset import SampleKey, SoCoDataset
from ..models.soco import SoCo
from ..pictures.canvas import (
    INK,
    MUTED,
    PALETTE,
    PAPER,
    font_of,
    framed,
    join_pictures,
    paragraph,
    titled,
)
from ..proposals.images import decode_image
from ..proposals.sources import ImageSource
from .annotated import LabelledPhotos
from .objects import ViewObjects

SIDE, FRAME, CAPTION = 124, 5, 24  # side of a tile's picture, frame width, caption height, in pixels
RIGHT, EMPTY = PALETTE[3], (238, 240, 242)
NEAREST = 5


class Tile(NamedTuple):
    """A crop with a caption.

    Args:
        crop (np.ndarray): (H, W, 3) uint8, RGB.
        caption (str): One line, below the crop.
        right (bool): Whether to frame it as a correct match. Defaults to False.
    """
    crop: np.ndarray
    caption: str
    right: bool = False


def draw_neighbours(rows: Sequence[tuple[Sequence[Tile], Sequence[Tile]]], title: str,
                    note: str) -> np.ndarray:
    """Draw objects, each in a row with its nearest neighbours.

    Args:
        rows (Sequence[tuple]): The query's tiles and its neighbours' tiles, nearest first, per row.
        title (str): One line above the picture.
        note (str): An explanation below the picture.

    Returns:
        np.ndarray: uint8, (H, W, 3), RGB.
    """
    lines = []
    for row in rows:
        groups = [join_pictures([_draw_tile(tile) for tile in tiles], axis=1, gap=8) for tiles in row]
        lines.append(join_pictures(groups, axis=1, gap=40))
    body = join_pictures(lines, axis=0, gap=8)
    return framed(join_pictures([titled(body, title), paragraph(note, body.shape[1])], axis=0))


def _draw_tile(tile: Tile) -> np.ndarray:
    """Draw a crop, resized to fit a square, with its frame and caption."""
    outer = SIDE + 2 * FRAME
    canvas = Image.new('RGB', (outer, outer + CAPTION), PAPER)
    draw = ImageDraw.Draw(canvas)
    draw.rectangle((0, 0, outer - 1, outer - 1), fill=RIGHT if tile.right else PAPER)
    draw.rectangle((FRAME, FRAME, FRAME + SIDE - 1, FRAME + SIDE - 1), fill=EMPTY)
    height, width = tile.crop.shape[:2]
    factor = SIDE / max(height, width)
    size = max(1, round(width * factor)), max(1, round(height * factor))
    crop = Image.fromarray(tile.crop).resize(size, Image.Resampling.BICUBIC)
    canvas.paste(crop, (FRAME + (SIDE - size[0]) // 2, FRAME + (SIDE - size[1]) // 2))
    text, font = tile.caption, font_of(14, tile.right)
    while font.getlength(text) > outer and len(text) > 1:
        text = f'{text[:-2].rstrip()}…'
    draw.text((outer / 2, outer + CAPTION / 2 - 2), text, fill=INK if tile.right else MUTED, font=font,
              anchor='mm')
    return np.asarray(canvas)


def cut_box(picture: np.ndarray, box: Sequence[float]) -> np.ndarray:
    """Cut a box (x1 y1 x2 y2 in pixels, rounded outwards, at least one pixel) from (H, W, 3)."""
    height, width = picture.shape[:2]
    x1, y1 = min(max(int(box[0]), 0), width - 1), min(max(int(box[1]), 0), height - 1)
    x2, y2 = (max(math.ceil(end), start + 1) for end, start in ((box[2], x1), (box[3], y1)))
    return np.ascontiguousarray(picture[y1:y2, x1:x2])


def spread_queries(rows: Tensor, num: int) -> list[int]:
    """Choose objects of different photos, evenly spread over the photos.

    Args:
        rows (Tensor): (n,) photo of each object, in any order.
        num (int): Maximum number of objects.

    Returns:
        list[int]: Indices of the objects.
    """
    photos = rows.unique()
    chosen = photos[torch.linspace(0, len(photos) - 1, min(num, len(photos))).long()]
    return [int(of[len(of) // 2]) for of in ((rows == p).nonzero().flatten() for p in chosen)]


def draw_view_neighbours(model: SoCo, dataset: SoCoDataset, objects: ViewObjects, seed: int = 0,
                         num_queries: int = 8, name: str | None = None) -> np.ndarray:
    """Draw objects of the first view and their five nearest among all objects in the other view.

    Args:
        model (SoCo): Its data preprocessor applies the views' colour augmentations.
        dataset (SoCoDataset): The data set that `objects` come from.
        objects (ViewObjects): Features and boxes; see `embed_objects`.
        seed (int): The seed of `objects`. Defaults to 0.
        num_queries (int): Number of rows, each from a different photo. Defaults to 8.
        name (str, optional): Name of the model, for the title. Defaults to None: no name.

    Returns:
        np.ndarray: uint8, (H, W, 3), RGB.
    """
    @cache
    def views_of(row: int) -> list[np.ndarray]:
        batch = default_collate([dataset[SampleKey(row, objects.key_epoch, seed)]])
        prepared = model.data_preprocessor(batch, True)['inputs']
        return [model.data_preprocessor.to_pixels(view)[0].cpu().numpy() for view in prepared]

    def crop(index: int, side: int) -> np.ndarray:
        picture = views_of(int(objects.rows[index]))[objects.view if side else 0]
        return cut_box(picture, objects.boxes[index, side].tolist())

    first, other = objects.feats
    rows = []
    for query in spread_queries(objects.rows, num_queries):
        similarity = other @ first[query]
        place = int((similarity > similarity[query]).sum()) + 1
        nearest = similarity.topk(min(NEAREST, len(other))).indices.tolist()
        tiles = [Tile(crop(i, 1), f'{float(similarity[i]):.3f}', i == query) for i in nearest]
        rows.append(([Tile(crop(query, 0), 'object'), Tile(crop(query, 1), f'itself, no. {place}')],
                     tiles))
    whose = f'{name}: n' if name else 'N'
    return draw_neighbours(
        rows, f'{whose}earest objects in another view',
        f'Left: an object in the first view ({objects.sizes[0]} pixels), and the same object in the '
        f'other view ({objects.sizes[1]} pixels) with its rank there. Right: the nearest of '
        f'{len(objects.rows)} objects in the other view, with the cosine similarity. Green: the same '
        'object.')


def draw_class_neighbours(feats: Tensor, labelled: LabelledPhotos, source: ImageSource,
                          num_queries: int = 8, name: str | None = None) -> np.ndarray:
    """Draw objects and their five nearest objects in other photos.

    Args:
        feats (Tensor): (n, D) unit features; see `embed_labelled`.
        labelled (LabelledPhotos): The objects.
        source (ImageSource): The photos.
        num_queries (int): Number of rows, each from a different photo. Defaults to 8.
        name (str, optional): Name of the model, for the title. Defaults to None: no name.

    Returns:
        np.ndarray: uint8, (H, W, 3), RGB.
    """
    @cache
    def photo(index: int) -> np.ndarray:
        return decode_image(source.read_bytes(labelled.names[index]))

    def tile(index: int, query: int) -> Tile:
        label = int(labelled.classes[index])
        return Tile(cut_box(photo(int(labelled.photos[index])), labelled.boxes[index].tolist()),
                    labelled.class_names[label], index != query and label == labelled.classes[query])

    rows = []
    for query in spread_queries(labelled.photos, num_queries):
        elsewhere = (labelled.photos != labelled.photos[query]).nonzero().flatten()
        nearest = (feats[elsewhere] @ feats[query]).topk(min(NEAREST, len(elsewhere))).indices
        rows.append(([tile(query, query)], [tile(int(i), query) for i in elsewhere[nearest]]))
    whose = f'{name}: n' if name else 'N'
    return draw_neighbours(
        rows, f'{whose}earest objects in other photos',
        f'Left: an object. Right: the nearest of {len(feats)} objects by cosine similarity, without '
        'those of its own photo. Green: objects of the same class.')
