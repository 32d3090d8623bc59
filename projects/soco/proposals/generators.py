"""Generators of boxes: selective search, random boxes, and grids.

`imports.py` contains the fourth generator: boxes that another program has written.
"""
import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import NamedTuple

import numpy as np
from PIL import Image

from .filters import Rule, get_filter
from .images import ImageError, decode_image, image_size
from .pixel_values import range_remark
from .selective_search import MAX_SIDE, SETTINGS, VERSION, SearchSetting, selective_search
from .source_base import ImageSource

MAX_BOXES = 10_000


class Found(NamedTuple):
    """Boxes of an image.

    Args:
        width (int): Width of the upright image in pixels.
        height (int): Height of the upright image in pixels.
        regions (np.ndarray): (n, 4) x, y, w, h in pixels.
        remark (str): What is suspicious about the image, in a few words. Defaults to '': nothing.
    """

    width: int
    height: int
    regions: np.ndarray
    remark: str = ''


class BoxGenerator:
    """Base class of generators, which make the boxes of an image.

    The boxes depend only on the image and on what `describe` returns.
    """

    name: str
    version = 1
    default_filter = 'all'
    box_dtype = 'uint16'
    notes: Sequence[str] = ()  # what was left out, printed for the user

    def parameters(self) -> dict:
        """Return everything that determines the boxes, apart from the image, as JSON values."""
        return json.loads(json.dumps(asdict(self)))

    def describe(self) -> dict:
        """Return the generator as JSON values, for the metadata of a store."""
        return dict(name=self.name, version=self.version, parameters=self.parameters())

    def images(self, source: ImageSource) -> list[str]:
        """Return the images of a source that get a row in the store, sorted."""
        return source.names()

    def select(self, names: Sequence[str]) -> 'BoxGenerator':
        """Return a generator for these images only, which is cheap to send to a worker."""
        return self

    def boxes(self, source: ImageSource, name: str,
              max_pixels: int) -> Found:
        """Make the boxes of one image.

        Args:
            source (ImageSource): Source of the image.
            name (str): Name of the image in the source.
            max_pixels (int): Largest width × height that is accepted.

        Returns:
            Found: The size of the upright image and its boxes, of type `box_dtype` or exact in it.

        Raises:
            ImageError: If the image cannot be used.
            OSError: If the image cannot be read.
        """
        raise NotImplementedError


@dataclass(frozen=True)
class SearchBoxes(BoxGenerator):
    """Boxes found by selective search.

    Args:
        setting (SearchSetting): Parameters of the search. Defaults to the setting `soco`.
        short_side (int, optional): An image with a longer short side is scaled down to it for the
            search, and the boxes are scaled back; 16 or more pixels. Then the scale and the smallest
            segment mean the same in photos of every size, and photos of many megapixels take little
            time. Our choice. Defaults to None: the image as it is, as in the official code.

    Raises:
        ValueError: If `short_side` is below 16.
    """

    setting: SearchSetting = SETTINGS['soco']
    short_side: int | None = None

    name = 'selective_search'
    version = VERSION
    default_filter = 'ratio3size0308post'

    def __post_init__(self) -> None:
        if self.short_side is not None and self.short_side < 16:
            raise ValueError(f'the short side of a search must be at least 16 pixels, not '
                             f'{self.short_side}.')

    def parameters(self) -> dict:
        """Return the parameters of the search, as JSON values."""
        scaled = {} if self.short_side is None else {'short_side': self.short_side}
        return json.loads(json.dumps(asdict(self.setting) | scaled))

    def boxes(self, source: ImageSource, name: str,
              max_pixels: int) -> Found:
        """Decode one image and search for boxes in it."""
        image = decode_image(source.read_bytes(name), max_pixels)
        remark, (height, width) = range_remark(image), image.shape[:2]
        if max(width, height) > MAX_SIDE:
            raise ImageError(f'too large: {width}x{height} pixels, a side above {MAX_SIDE}')
        if self.short_side is not None and min(width, height) > self.short_side:
            image = _scaled_down(image, self.short_side)
        try:
            regions = selective_search(image, self.setting)
        except ValueError as error:
            raise ImageError(f'too large: {error}') from error
        return Found(width, height, _scaled_back(regions, image.shape[:2], (height, width)), remark)


def _scaled_down(image: np.ndarray, short_side: int) -> np.ndarray:
    """Return an image (h, w, 3) uint8 whose short side has this many pixels."""
    height, width = image.shape[:2]
    factor = short_side / min(width, height)
    size = max(1, round(width * factor)), max(1, round(height * factor))
    return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BOX))


def _scaled_back(regions: np.ndarray, searched: Sequence[int], size: Sequence[int]) -> np.ndarray:
    """Return boxes of a scaled image in the pixels of the image; in the same order.

    Args:
        regions (np.ndarray): (n, 4) integers x y w h.
        searched (Sequence[int]): Height and width of the scaled image.
        size (Sequence[int]): Those of the image.

    Returns:
        np.ndarray: (n, 4) integers, inside the image, with sides of at least a pixel.
    """
    if tuple(searched) == tuple(size):
        return regions
    factor = np.array([size[1] / searched[1], size[0] / searched[0]])
    low = np.floor(regions[:, :2] * factor + 0.5)
    high = np.minimum(np.floor((regions[:, :2] + regions[:, 2:]) * factor + 0.5), size[::-1])
    return np.concatenate([low, high - low], axis=1).astype(regions.dtype)


class _SizedBoxes(BoxGenerator):
    """Base class of generators that use only an image's name and size; pixels are not decoded."""

    def boxes_for(self, name: str, width: int, height: int) -> np.ndarray:
        """Return the boxes of an image.

        Args:
            name (str): Name of the image.
            width (int): Width of the image in pixels.
            height (int): Height of the image in pixels.

        Returns:
            np.ndarray: (n, 4) int64 x, y, w, h in pixels.
        """
        raise NotImplementedError

    def boxes(self, source: ImageSource, name: str,
              max_pixels: int) -> Found:
        """Read the size of one image from its header and make its boxes."""
        with source.open(name) as file:
            width, height = image_size(file, max_pixels)
        if max(width, height) > MAX_SIDE:
            raise ImageError(f'too large: {width}x{height} pixels, a side above {MAX_SIDE}')
        return Found(width, height, self.boxes_for(name, width, height))


@dataclass(frozen=True)
class RandomBoxes(_SizedBoxes):
    """Boxes drawn at random; see `random_boxes`.

    Args:
        num_boxes (int): Boxes per image, in 1 … 10,000. Defaults to 28: selective search with the
            official filter keeps 28 on average (1141 photos).
        seed (int): Random seed, >= 0. Defaults to 0.

    Raises:
        ValueError: If a parameter is out of range.
    """

    num_boxes: int = 28
    seed: int = 0

    name = 'random'

    def __post_init__(self) -> None:
        if not 1 <= self.num_boxes <= MAX_BOXES:
            raise ValueError(f'--num-boxes must be in 1 … {MAX_BOXES}, not {self.num_boxes}.')
        if self.seed < 0:
            raise ValueError(f'--seed must be at least 0, not {self.seed}.')

    def boxes_for(self, name: str, width: int, height: int) -> np.ndarray:
        """Draw the boxes of an image; they depend on its name and size, and on the seed."""
        digest = hashlib.sha256(name.encode('utf-8', 'surrogateescape')).digest()
        rng = np.random.default_rng([self.seed, int.from_bytes(digest[:16], 'big')])
        return random_boxes(width, height, self.num_boxes, rng)


def _draw(width: int, height: int, count: int, rule: Rule,
          rng: np.random.Generator) -> np.ndarray:
    """Draw boxes that satisfy a rule.

    Returns:
        np.ndarray: (n, 4) int64, n <= count; boxes that rounding pushed past a limit are dropped.
    """
    area, shortest = float(width * height), rule.min_side
    low = max(rule.min_size, shortest / math.sqrt(area))
    # a box of size s and ratio r fits if s² <= r·H/W and s² <= W/(r·H)
    high = min(rule.max_size, math.sqrt(rule.max_ratio * min(width / height, height / width)))
    if low > high or min(width, height) < shortest:
        return np.zeros((0, 4), dtype=np.int64)
    areas = area * (low + (high - low) * rng.random(count))**2
    least = np.maximum(shortest**2 / areas, areas / height**2)
    most = np.minimum(areas / shortest**2, width**2 / areas)
    least = np.log(np.maximum(least, 1 / rule.max_ratio))
    most = np.log(np.minimum(most, rule.max_ratio))
    ratios = np.exp(least + (most - least) * rng.random(count))
    w = np.rint(np.sqrt(areas * ratios)).clip(1, width).astype(np.int64)
    h = np.rint(np.sqrt(areas / ratios)).clip(1, height).astype(np.int64)
    x = np.floor(rng.random(count) * (width - w + 1)).astype(np.int64)
    y = np.floor(rng.random(count) * (height - h + 1)).astype(np.int64)
    boxes = np.stack([x, y, w, h], axis=1)
    return boxes[rule.keeps(boxes, width, height)]


def random_boxes(width: int, height: int, count: int, rng: np.random.Generator) -> np.ndarray:
    """Draw boxes of the sizes and ratios that the official filter keeps.

    sqrt(w·h) / sqrt(W·H) is uniform in 0.3 … 0.8, then w / h is log-uniform in 1/3 … 3, then the
    position is uniform, each over the range that fits: w, h >= 32 and the box inside the image. Sides
    are integers; a box that rounding pushes past a limit is drawn again. If an image is too small or
    too elongated for all limits, the limit of 32 pixels is dropped first, then that of the ratio. In an
    image of a few pixels, the box is the whole image.

    Args:
        width (int): Width of the image in pixels.
        height (int): Height of the image in pixels.
        count (int): Number of boxes.
        rng (np.random.Generator): Random number generator.

    Returns:
        np.ndarray: (count, 4) int64 x, y, w, h in pixels.
    """
    official = get_filter('ratio3size0308').rules[0]
    small = replace(official, min_side=1)
    for rule in (official, small, replace(small, max_ratio=math.inf)):
        boxes = _draw(width, height, 8 * count, rule, rng)
        if len(boxes):
            # in tiny images only a few integer boxes are within the limits: repeat them
            return boxes[np.arange(count) % len(boxes)]
    return np.tile(np.array([[0, 0, width, height]]), (count, 1))


@dataclass(frozen=True)
class GridBoxes(_SizedBoxes):
    """Boxes of a few shapes in evenly spaced rows and columns; see `grid_boxes`.

    Args:
        scales (tuple[float, ...]): sqrt(w·h) / sqrt(W·H) of the shapes, in (0, 1]. Defaults to
            (0.3, 0.5, 0.8).
        ratios (tuple[float, ...]): w / h of the shapes, in [0.01, 100]. Defaults to (0.5, 1., 2.).
        stride (float): Largest step to the next box as a share of the box's side, in (0, 1]. Defaults
            to 0.5.

    Raises:
        ValueError: If a parameter is out of range, or the grid has more than 10,000 boxes.
    """

    scales: tuple[float, ...] = (0.3, 0.5, 0.8)
    ratios: tuple[float, ...] = (0.5, 1., 2.)
    stride: float = 0.5

    name = 'grid'

    def __post_init__(self) -> None:
        if not self.scales or not all(0 < scale <= 1 for scale in self.scales):
            raise ValueError(f'--grid-scales must be above 0 and at most 1, not {self.scales}.')
        if not self.ratios or not all(0.01 <= ratio <= 100 for ratio in self.ratios):
            raise ValueError(f'--grid-ratios must be in 0.01 … 100, not {self.ratios}.')
        if not 0 < self.stride <= 1:
            raise ValueError(f'--grid-stride must be above 0 and at most 1, not {self.stride}.')
        count = len(self.ratios) * sum(
            (1 + math.ceil((1 - scale) / (self.stride * scale)))**2 for scale in self.scales)
        if count > MAX_BOXES:
            raise ValueError(f'this grid has about {count} boxes per image, more than {MAX_BOXES}: '
                             f'use larger --grid-scales or a larger --grid-stride.')

    def boxes_for(self, name: str, width: int, height: int) -> np.ndarray:
        """Return the grid of an image, which depends on its size only."""
        return grid_boxes(width, height, self.scales, self.ratios, self.stride)


def _steps(side: int, length: int, stride: float) -> np.ndarray:
    count = 1 + math.ceil((length - side) / (stride * side))
    return np.unique(np.rint(np.linspace(0, length - side, count)).astype(np.int64))


def grid_boxes(width: int, height: int, scales: Sequence[float], ratios: Sequence[float],
               stride: float) -> np.ndarray:
    """Place boxes so that those of each shape cover the image from edge to edge.

    A shape that is longer than the image is cut to the image.

    Args:
        width (int): Width of the image in pixels.
        height (int): Height of the image in pixels.
        scales (Sequence[float]): sqrt(w·h) / sqrt(W·H) of the shapes, in (0, 1].
        ratios (Sequence[float]): w / h of the shapes.
        stride (float): Largest step to the next box as a share of the box's side, in (0, 1].

    Returns:
        np.ndarray: (n, 4) int64 x, y, w, h in pixels, without duplicates.
    """
    found: dict[tuple[int, int], np.ndarray] = {}
    for scale in scales:
        for ratio in ratios:
            side = scale * math.sqrt(width * height)
            w = min(width, max(1, round(side * math.sqrt(ratio))))
            h = min(height, max(1, round(side / math.sqrt(ratio))))
            if (w, h) not in found:
                y, x = np.meshgrid(_steps(h, height, stride), _steps(w, width, stride),
                                   indexing='ij')
                boxes = np.stack([x, y, np.full_like(x, w), np.full_like(y, h)], axis=-1)
                found[w, h] = boxes.reshape(-1, 4)
    return np.concatenate(list(found.values()))
