"""Filters that select which regions are kept as proposals."""
import math
import re
from dataclasses import asdict, dataclass

import numpy as np

NOTHING = 'nothing'


@dataclass(frozen=True)
class Rule:
    """Limits on the sides, the ratio and the size of a box. All limits are inclusive.

    Args:
        name (str): Name of the rule in metadata and statistics.
        min_side (float): Smallest width and height in pixels. Defaults to 32.
        max_ratio (float): Largest ratio of the longer to the shorter side. Defaults to inf: any.
        min_size (float): Smallest sqrt(w·h) / sqrt(W·H), in [0, 1]. Defaults to 0.
        max_size (float): Largest sqrt(w·h) / sqrt(W·H). Defaults to inf: any.
        max_side (float): Largest width and height in pixels. Defaults to inf: any.
    """

    name: str
    min_side: float = 32
    max_ratio: float = math.inf
    min_size: float = 0.
    max_size: float = math.inf
    max_side: float = math.inf

    def keeps(self, boxes: np.ndarray, width: float | np.ndarray,
              height: float | np.ndarray) -> np.ndarray:
        """Return for each box whether it satisfies the rule.

        Args:
            boxes (np.ndarray): (n, 4) x, y, w, h in pixels.
            width (float | np.ndarray): Width of the image in pixels, or (n,) of the image of each box.
            height (float | np.ndarray): Height of the image in pixels, or (n,).

        Returns:
            np.ndarray: (n,) bool.
        """
        w, h = boxes[:, 2].astype(np.float64), boxes[:, 3].astype(np.float64)
        kept = (np.minimum(w, h) >= self.min_side) & (np.maximum(w, h) <= self.max_side)
        if self.max_ratio < math.inf:
            ratio = np.divide(w, h, out=np.full_like(w, math.inf), where=h > 0)
            kept &= (1. / self.max_ratio <= ratio) & (ratio <= self.max_ratio)
        if self.min_size > 0 or self.max_size < math.inf:
            size = np.sqrt(w * h) / np.sqrt(width * height)
            kept &= (self.min_size <= size) & (size <= self.max_size)
        return kept


@dataclass(frozen=True)
class BoxFilter:
    """Rules that are tried in order: the first one that keeps at least one box is applied.

    Args:
        name (str): Name of the filter.
        rules (tuple[Rule, ...]): The intended rule, then its fallbacks.
    """

    name: str
    rules: tuple[Rule, ...]

    def __call__(self, boxes: np.ndarray, width: int, height: int) -> tuple[np.ndarray, str]:
        """Filter the regions of one image.

        Args:
            boxes (np.ndarray): (n, 4) x, y, w, h in pixels.
            width (int): Width of the image in pixels.
            height (int): Height of the image in pixels.

        Returns:
            tuple[np.ndarray, str]: The boxes kept, in their order, and the name of the rule that was
            applied, or `'nothing'` if no rule keeps a box.
        """
        kept, rule = self._apply(boxes, width, height)
        return boxes[kept], rule

    def marks(self, boxes: np.ndarray, width: float, height: float) -> np.ndarray:
        """Return for each of the regions of one image whether it is kept, (n,) bool; see `__call__`."""
        return self._apply(boxes, width, height)[0]

    def _apply(self, boxes: np.ndarray, width: float, height: float) -> tuple[np.ndarray, str]:
        for rule in self.rules:
            kept = rule.keeps(boxes, width, height)
            if kept.any():
                return kept, rule.name
        return np.zeros(len(boxes), dtype=bool), NOTHING

    def describe(self) -> dict:
        """Return the filter as JSON values, for the metadata of a store."""
        rules = [{key: value for key, value in asdict(rule).items() if value != math.inf}
                 for rule in self.rules]
        return dict(name=self.name, rules=rules)


_NAME = re.compile(r'(?:ratio(?P<ratio>[1-9]))?(?:size(?P<low>\d\d)(?P<high>\d\d)?)?(?P<post>post)?')


def get_filter(name: str) -> BoxFilter:
    """Return the filter of a given name.

    `ratio3` limits the ratio of the sides to 3. `size0308` keeps boxes whose sqrt(w·h) is between 0.3
    and 0.8 of the image's, `size01` those from 0.1 upwards. Each of these also requires sides of at
    least 32 pixels; `side32` requires nothing else. With the suffix `post`, an image left without boxes
    keeps those of the ratio rule, or else all with sides of at least 32 pixels. `all` keeps every
    region. The official SoCo recipe is `ratio3size0308post` (`filter_ss_proposals_json.py` and
    `filter_ss_proposals_json_post_no_prop.py`).

    Args:
        name (str): Name of the filter.

    Returns:
        BoxFilter: The filter.

    Raises:
        ValueError: If no filter has that name.
    """
    if name == 'all':
        return BoxFilter(name, (Rule('all', min_side=0),))
    if name == 'side32':
        return BoxFilter(name, (Rule('side32'),))
    match = _NAME.fullmatch(name)
    if match is None or name in ('', 'post'):
        raise ValueError(f'unknown filter {name!r}: use all, side32, ratio3, size0308, '
                         f'ratio3size0308, ratio3size0308post (the official one) or other '
                         f'numbers in these patterns.')
    ratio = float(match['ratio'] or math.inf)
    rules = [Rule(name.removesuffix('post'), 32, ratio, float(match['low'] or 0) / 10,
                  float(match['high']) / 10 if match['high'] else math.inf)]
    if match['post']:
        if match['ratio'] and match['low']:
            rules.append(Rule(f'ratio{match["ratio"]}', 32, ratio))
        rules.append(Rule('side32'))
    return BoxFilter(name, tuple(rules))


def custom_filter(min_side: float = 32, max_ratio: float = math.inf, min_size: float = 0.,
                  max_size: float = math.inf, fallback: bool = False,
                  max_side: float = math.inf) -> BoxFilter:
    """Build a filter from limits.

    Args:
        min_side (float): Smallest width and height in pixels, >= 0. Defaults to 32.
        max_ratio (float): Largest ratio of the longer to the shorter side, >= 1. Defaults to inf.
        min_size (float): Smallest sqrt(w·h) / sqrt(W·H), in [0, 1]. Defaults to 0.
        max_size (float): Largest sqrt(w·h) / sqrt(W·H). Defaults to inf.
        fallback (bool): Whether an image left without boxes keeps those within `max_ratio`, or else
            all with sides of at least `min_side`. Defaults to False.
        max_side (float): Largest width and height in pixels. Defaults to inf.

    Returns:
        BoxFilter: The filter, named `custom`.

    Raises:
        ValueError: If a number is out of range.
    """
    if not 0 <= min_side <= max_side or max_ratio < 1 or not 0 <= min_size <= max_size:
        raise ValueError(f'a filter needs 0 <= min_side <= max_side, max_ratio >= 1 and '
                         f'0 <= min_size <= max_size, not min_side={min_side}, max_side={max_side}, '
                         f'max_ratio={max_ratio}, min_size={min_size}, max_size={max_size}.')
    rules = [Rule('custom', min_side, max_ratio, min_size, max_size, max_side)]
    if fallback:
        rules += [Rule('ratio', min_side, max_ratio), Rule('side', min_side)]
    return BoxFilter('custom', tuple(rules))
