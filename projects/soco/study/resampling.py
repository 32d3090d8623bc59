"""Differences between arms with intervals over photos and seeds."""
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats

DRAWS = 0  # seed of the draws of photos; the same for all runs, so that they are paired


class Interval(NamedTuple):
    """A difference with its 95 % interval.

    Args:
        value (float): Mean over the seeds.
        low (float): Lower end.
        high (float): Upper end.
    """
    value: float
    low: float
    high: float


def student_half_width(values: Sequence[float]) -> float:
    """Return half the width of the 95 % interval of a mean, after Student's t.

    Args:
        values (Sequence[float]): The values, at least two.
    """
    return half_width(float(np.std(values, ddof=1)), len(values))


def half_width(spread: float, count: int) -> float:
    """Return half the width of the 95 % interval of a mean of values with a standard deviation.

    Args:
        spread (float): Standard deviation of the values.
        count (int): Number of values, at least 2.
    """
    return float(stats.t.ppf(.975, count - 1)) * spread / math.sqrt(count)


def paired_difference(ours: Sequence[float], theirs: Sequence[float], our_samples: np.ndarray,
                      their_samples: np.ndarray) -> Interval:
    """Compute the difference of two arms over the same seeds and the same draws of photos.

    Effects that both arms share (hard photos, a lucky seed) cancel out. The photos' part of the
    interval is a bootstrap: percentiles of the mean difference over draws of photos. A bootstrap over
    few seeds would underestimate the uncertainty, so the seeds' part is Student's t on the seeds'
    differences. Both parts are combined as independent: the root of the sum of squares.

    Args:
        ours (Sequence[float]): S values of an arm, one for each seed.
        theirs (Sequence[float]): S values of the other arm, in the same order.
        our_samples (np.ndarray): (S, R) values under draws of photos.
        their_samples (np.ndarray): (S, R) values of the other arm under the same draws.

    Returns:
        Interval: Interval of `ours - theirs`. With one seed, it covers the photos only.
    """
    differences = np.subtract(ours, theirs)
    value, seeds = float(differences.mean()), len(differences)
    by_draw = (our_samples - their_samples).mean(axis=0)
    low, high = value - np.nanpercentile(by_draw, (2.5, 97.5))
    of_seeds = 0.0
    if seeds > 1:
        of_seeds = student_half_width(differences)
    return Interval(value, value - math.hypot(low, of_seeds), value + math.hypot(high, of_seeds))
