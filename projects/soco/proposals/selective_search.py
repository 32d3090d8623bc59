"""Selective search, which finds object-like boxes in an image, as in the official SoCo code."""
import time
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageCms

from . import grouping
from .segmentation import segment

VERSION = 1
MAX_SIDE = 65535
MAX_PIXELS = 2**30


@dataclass(frozen=True)
class SearchSetting:
    """Parameters of selective search.

    Args:
        name (str): Name of the setting. Defaults to 'custom'.
        scales (tuple[float, ...]): Scales of observation of the segmentation; a larger scale gives
            larger segments. Each is searched in turn. Defaults to (300.,).
        sigma (float): Standard deviation of the blur before segmentation in pixels, in [0, 100].
            Defaults to 0.9.
        min_size (int): Smallest segment in pixels, >= 1. Defaults to 100.
        colour_spaces (tuple[str, ...]): Colour spaces of the segmentation: `rgb`, `hsv`, `lab`,
            `grey`. Each is searched in turn. Defaults to ('rgb',).
        official (bool): Whether histograms and neighbours are those of the official SoCo code: hue and
            saturation have no effect, and two segments are neighbours if the bounding box of one
            strictly contains a corner of the other's. Otherwise, as in the paper of Uijlings et al.,
            hue, saturation and value are binned over their real range, colour, texture, size and fill
            have equal weights, and segments that touch are neighbours. The texture is local binary
            patterns in both cases. Defaults to True.

    Raises:
        ValueError: If a parameter is out of range.
    """

    name: str = 'custom'
    scales: tuple[float, ...] = (300.,)
    sigma: float = 0.9
    min_size: int = 100
    colour_spaces: tuple[str, ...] = ('rgb',)
    official: bool = True

    def __post_init__(self) -> None:
        unknown = set(self.colour_spaces) - set(COLOUR_SPACES)
        if unknown:
            raise ValueError(f'unknown colour space {min(unknown)!r}: choose from '
                             f'{", ".join(COLOUR_SPACES)}.')
        if not self.scales or min(self.scales) <= 0 or not self.colour_spaces:
            raise ValueError('selective search needs at least one scale, all above 0, and one '
                             'colour space.')
        if not 0 <= self.sigma <= 100 or self.min_size < 1:
            raise ValueError(f'selective search needs 0 <= sigma <= 100 and min_size >= 1, not '
                             f'{self.sigma} and {self.min_size}.')


COLOUR_SPACES = ('rgb', 'hsv', 'lab', 'grey')
# `fine` finds objects down to a few percent of a photo; our choice, see docs/proposals.md.
SETTINGS = {'soco': SearchSetting('soco'),
            'fine': SearchSetting('fine', scales=(100.,), min_size=20),
            'uijlings': SearchSetting('uijlings', official=False)}


def _convert(image: np.ndarray, colour_space: str) -> np.ndarray:
    if colour_space == 'rgb':
        return image
    mode = dict(hsv='HSV', lab='LAB', grey='L')[colour_space]
    source = Image.fromarray(image)
    if mode == 'LAB':
        profiles = ImageCms.createProfile('sRGB'), ImageCms.createProfile('LAB')
        return np.array(ImageCms.profileToProfile(source, *profiles, outputMode='LAB'))
    converted = np.array(source.convert(mode))
    return converted if mode == 'HSV' else np.repeat(converted[..., None], 3, axis=2)


def _search_once(image: np.ndarray, hsv: np.ndarray | None, scale: float,
                 setting: SearchSetting) -> np.ndarray:
    labels, count = segment(image, float(scale), setting.sigma, int(setting.min_size))
    colours = grouping.brightest_channel(image) if setting.official else hsv
    extents, sizes, shares = grouping.describe_segments(image, colours, labels, count)
    if setting.official:
        # The official code bins hue and saturation, which are in 0 … 1, over 0 … 255: all pixels
        # are in the first bin of both, which adds 2 to every similarity.
        pairs, colour_start = grouping.nested_pairs(extents), 2.
    else:
        # Each histogram sums to 1 over its three channels.
        pairs, colour_start, shares = grouping.touching_pairs(labels, count), 0., shares / 3.
    return grouping.group(extents, sizes, shares, pairs,
                          grouping.COLOUR_BINS * colours.shape[2], colour_start, labels.size)


def _search(image: np.ndarray, setting: SearchSetting) -> np.ndarray:
    hsv = None if setting.official else _convert(image, 'hsv')
    found = [_search_once(_convert(image, colour_space), hsv, scale, setting)
             for colour_space in setting.colour_spaces for scale in setting.scales]
    if len(found) == 1:
        return found[0]
    together = np.concatenate(found)
    _, first = np.unique(together, axis=0, return_index=True)
    return together[np.sort(first)]


def _check_image(image: np.ndarray) -> None:
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8:
        kind = getattr(image, 'dtype', type(image).__name__)
        raise ValueError(f'selective search takes a uint8 array, not {kind}: convert the image '
                         f'to 8 bits per channel first.')
    if image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
        raise ValueError(f'selective search takes an RGB image of shape (H, W, 3), not '
                         f'{image.shape}.')
    height, width = image.shape[:2]
    if max(height, width) > MAX_SIDE or height * width > MAX_PIXELS:
        raise ValueError(f'an image of {width}×{height} pixels is too large for selective search: '
                         f'at most {MAX_SIDE} a side and {MAX_PIXELS} in total. Scale it down first.')


def selective_search(image: np.ndarray, setting: str | SearchSetting = 'soco') -> np.ndarray:
    """Find object-like boxes in an image, without labels.

    With the default setting `soco`, the boxes equal those of the official SoCo code
    (`selective_search/selective_search.py`, scale 300, sigma 0.9, min_size 100), in the same order.

    Args:
        image (np.ndarray): (H, W, 3) uint8 RGB.
        setting (str | SearchSetting): A name in `SETTINGS`, or custom parameters. Defaults to 'soco'.

    Returns:
        np.ndarray: (n, 4) int32 boxes x, y, w, h in pixels, in the order formed; w and h are the
        differences between the first and last column and row. Duplicates are kept, except with several
        scales or colour spaces.

    Raises:
        ValueError: If the image is not an RGB array of 8 bits or is too large, or the setting is
            unknown.
    """
    _check_image(image)
    if isinstance(setting, str):
        if setting not in SETTINGS:
            raise ValueError(f'unknown setting {setting!r} of selective search: choose one of '
                             f'{", ".join(SETTINGS)}.')
        setting = SETTINGS[setting]
    boxes = _search(np.ascontiguousarray(image), setting).astype(np.int32)
    boxes[:, 2:] -= boxes[:, :2]
    return boxes


def compile_kernels(setting: str | SearchSetting = 'soco') -> float:
    """Compile the kernels of a setting, or load them from the cache.

    Args:
        setting (str | SearchSetting): As in `selective_search`. Defaults to 'soco'.

    Returns:
        float: Duration in seconds.
    """
    start = time.perf_counter()
    selective_search(np.zeros((8, 8, 3), dtype=np.uint8), setting)
    return time.perf_counter() - start
