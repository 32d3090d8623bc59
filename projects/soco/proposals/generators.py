"""Where boxes come from: searched for, drawn at random, or laid out as a grid.

``imports.py`` has the fourth way: boxes that another program has written.
"""
import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np

from .filters import Rule, get_filter
from .images import ImageError, decode_image, image_size
from .selective_search import MAX_SIDE, SETTINGS, VERSION, SearchSetting, selective_search
from .source_base import ImageSource

MAX_BOXES = 10_000


class BoxGenerator:
    """What makes the boxes of an image.

    Its boxes are a function of the image and of what :meth:`describe` tells, nothing else.
    """

    name: str
    version = 1
    default_filter = 'all'
    box_dtype = 'uint16'
    notes: Sequence[str] = ()  # what was left out, for people

    def parameters(self) -> dict:
        """All that determines the boxes, apart from the image, as JSON values."""
        return json.loads(json.dumps(asdict(self)))

    def describe(self) -> dict:
        """The generator for the metadata of a store, as JSON values."""
        return dict(name=self.name, version=self.version, parameters=self.parameters())

    def images(self, source: ImageSource) -> list[str]:
        """The images of a source that get a row in the store, sorted."""
        return source.names()

    def select(self, names: Sequence[str]) -> 'BoxGenerator':
        """A generator for these images only, quick to send to a worker."""
        return self

    def boxes(self, source: ImageSource, name: str,
              max_pixels: int) -> tuple[int, int, np.ndarray]:
        """Make the boxes of one image.

        Args:
            source (ImageSource): Where the image is.
            name (str): Its name there.
            max_pixels (int): Largest width × height that is taken.

        Returns:
            tuple[int, int, np.ndarray]: Width and height of the upright image in pixels, and
            (n, 4) x, y, w, h in pixels, of type ``box_dtype`` or exact in it.

        Raises:
            ImageError: If the image cannot be used.
            OSError: If it cannot be read.
        """
        raise NotImplementedError


@dataclass(frozen=True)
class SearchBoxes(BoxGenerator):
    """Selective search.

    Args:
        setting (SearchSetting): Its parameters.
    """

    setting: SearchSetting = SETTINGS['soco']

    name = 'selective_search'
    version = VERSION
    default_filter = 'ratio3size0308post'

    def parameters(self) -> dict:
        return json.loads(json.dumps(asdict(self.setting)))

    def boxes(self, source: ImageSource, name: str,
              max_pixels: int) -> tuple[int, int, np.ndarray]:
        image = decode_image(source.read_bytes(name), max_pixels)
        try:
            regions = selective_search(image, self.setting)
        except ValueError as error:
            raise ImageError(f'too large: {error}') from error
        return image.shape[1], image.shape[0], regions


class _SizedBoxes(BoxGenerator):
    """Boxes that are a function of an image's name and size; its pixels are not decoded."""

    def boxes_for(self, name: str, width: int, height: int) -> np.ndarray:
        """The boxes of an image, (n, 4) int64."""
        raise NotImplementedError

    def boxes(self, source: ImageSource, name: str,
              max_pixels: int) -> tuple[int, int, np.ndarray]:
        with source.open(name) as file:
            width, height = image_size(file, max_pixels)
        if max(width, height) > MAX_SIDE:
            raise ImageError(f'too large: {width}x{height} pixels, a side above {MAX_SIDE}')
        return width, height, self.boxes_for(name, width, height)


@dataclass(frozen=True)
class RandomBoxes(_SizedBoxes):
    """Boxes drawn at random, see :func:`random_boxes`.

    Args:
        num_boxes (int): Boxes an image, in 1 … 10,000. Selective search with the official filter
            leaves 28 on average (1141 photos).
        seed (int): Another seed gives other boxes, >= 0.

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
        digest = hashlib.sha256(name.encode('utf-8', 'surrogateescape')).digest()
        rng = np.random.default_rng([self.seed, int.from_bytes(digest[:16], 'big')])
        return random_boxes(width, height, self.num_boxes, rng)


def _draw(width: int, height: int, count: int, rule: Rule,
          rng: np.random.Generator) -> np.ndarray:
    """Draw boxes within a rule; (n, 4) int64, n <= count, as rounding pushes some past a limit."""
    area, shortest = float(width * height), rule.min_side
    low = max(rule.min_size, shortest / math.sqrt(area))
    # a box of size s and ratio r fits where s² <= r·H/W and s² <= W/(r·H)
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
    """Draw boxes of the sizes and ratios that the official filter lets pass.

    sqrt(w·h) / sqrt(W·H) is uniform in 0.3 … 0.8, then w / h log-uniform in 1/3 … 3, then the
    place uniform, each over what fits: w, h >= 32 and the box inside the image. Sides are whole
    numbers; a box that rounding pushes past a limit is drawn again. Where an image is too small
    or too long for all of this, the 32 pixels go first, then the ratio; an image of a few pixels
    is its own box.

    Args:
        width (int): Width of the image in pixels.
        height (int): Height of the image in pixels.
        count (int): Number of boxes.
        rng (np.random.Generator): Randomness.

    Returns:
        np.ndarray: (count, 4) int64 x, y, w, h in pixels.
    """
    official = get_filter('ratio3size0308').rules[0]
    small = replace(official, min_side=1)
    for rule in (official, small, replace(small, max_ratio=math.inf)):
        boxes = _draw(width, height, 8 * count, rule, rng)
        if len(boxes):
            # in tiny images few whole numbers are within the limits: boxes come again
            return boxes[np.arange(count) % len(boxes)]
    return np.tile(np.array([[0, 0, width, height]]), (count, 1))


@dataclass(frozen=True)
class GridBoxes(_SizedBoxes):
    """Boxes of a few shapes in even rows and columns, see :func:`grid_boxes`.

    Args:
        scales (tuple[float, ...]): sqrt(w·h) / sqrt(W·H) of the shapes, in (0, 1].
        ratios (tuple[float, ...]): w / h of the shapes, in [0.01, 100].
        stride (float): Largest step to the next box, as a share of the box's side, in (0, 1].

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
            raise ValueError(f'this grid has about {count} boxes an image, more than {MAX_BOXES}: '
                             f'take larger --grid-scales or a larger --grid-stride.')

    def boxes_for(self, name: str, width: int, height: int) -> np.ndarray:
        return grid_boxes(width, height, self.scales, self.ratios, self.stride)


def _steps(side: int, length: int, stride: float) -> np.ndarray:
    count = 1 + math.ceil((length - side) / (stride * side))
    return np.unique(np.rint(np.linspace(0, length - side, count)).astype(np.int64))


def grid_boxes(width: int, height: int, scales: Sequence[float], ratios: Sequence[float],
               stride: float) -> np.ndarray:
    """Lay boxes out so that those of each shape cover the image, from edge to edge.

    A shape that is longer than the image is cut to it.

    Args:
        width (int): Width of the image in pixels.
        height (int): Height of the image in pixels.
        scales (Sequence[float]): sqrt(w·h) / sqrt(W·H) of the shapes, in (0, 1].
        ratios (Sequence[float]): w / h of the shapes.
        stride (float): Largest step to the next box, as a share of the box's side, in (0, 1].

    Returns:
        np.ndarray: (n, 4) int64 x, y, w, h in pixels, each box once.
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
