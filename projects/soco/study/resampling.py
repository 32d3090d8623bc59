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


def widening(photos: int) -> float:
    """Return by how much the percentiles of a bootstrap over few photos must be widened.

    A bootstrap takes the spread of its draws, which is too small by the root of (n - 1) / n, and the
    normal distribution instead of Student's t: with n = 5, an interval of 95 % covers 84 %. Both are
    mended as for a mean (Hesterberg, "What Teachers Should Know About the Bootstrap", 2015, section
    5.2: the expanded percentile interval).

    Args:
        photos (int): Photos that are drawn from, at least 2.
    """
    normal = float(stats.norm.ppf(.975))
    return float(stats.t.ppf(.975, photos - 1)) / normal * math.sqrt(photos / (photos - 1))


def widened(draws: np.ndarray, mean: float, photos: int) -> np.ndarray:
    """Return values under draws of photos, further from their mean by `widening`."""
    return mean + widening(photos) * (draws - mean)


def paired_difference(ours: Sequence[float], theirs: Sequence[float], our_samples: np.ndarray,
                      their_samples: np.ndarray, photos: int) -> Interval:
    """Compute the difference of two arms over the same seeds and the same draws of photos.

    Effects that both arms share (hard photos, a lucky seed) cancel out. The photos' part of the
    interval is a bootstrap: percentiles of the mean difference over draws of photos, widened for few
    photos (`widening`). A bootstrap over few seeds would underestimate the uncertainty, so the seeds'
    part is Student's t on the seeds' differences. Both parts are combined as independent: the root of
    the sum of squares.

    Args:
        ours (Sequence[float]): S values of an arm, one for each seed.
        theirs (Sequence[float]): S values of the other arm, in the same order.
        our_samples (np.ndarray): (S, R) values under draws of photos.
        their_samples (np.ndarray): (S, R) values of the other arm under the same draws.
        photos (int): Photos that were drawn from, at least 2.

    Returns:
        Interval: Interval of `ours - theirs`. With one seed, it covers the photos only.
    """
    return pooled_difference([np.subtract(ours, theirs)], [(our_samples - their_samples).mean(axis=0)],
                             [photos])


def pooled_difference(differences: Sequence[np.ndarray], by_draw: Sequence[np.ndarray],
                      photos: Sequence[int]) -> Interval:
    """Compute the mean difference of two arms over several data sets, each of which counts the same.

    The photos' part of the interval is that of `paired_difference`; the draws of the data sets are
    independent. The seeds' part is Student's t with one standard deviation for all data sets, from the
    differences around the mean of their own set. So the interval is about these data sets, not about
    others.

    Args:
        differences (Sequence[np.ndarray]): For each data set, the (S,) differences of its seeds.
        by_draw (Sequence[np.ndarray]): For each data set, the (R,) mean differences over its seeds
            under draws of its photos.
        photos (Sequence[int]): For each data set, the photos that were drawn from, at least 2.

    Returns:
        Interval: The mean over the data sets. With one seed each, it covers the photos only.
    """
    means = [float(values.mean()) for values in differences]
    value, sets = float(np.mean(means)), len(means)
    wide = list(map(widened, by_draw, means, photos))
    mixed = [np.random.default_rng(i).permutation(draws) if i else draws
             for i, draws in enumerate(wide)]  # the draws of two sets may be alike otherwise
    low, high = value - np.nanpercentile(np.mean(mixed, axis=0), (2.5, 97.5))
    free = sum(len(values) - 1 for values in differences)
    of_seeds = 0.0
    if free:
        squares = sum(float(((values - mean) ** 2).sum()) for values, mean in zip(differences, means))
        of_mean = sum(squares / free / len(values) for values in differences) / sets ** 2
        of_seeds = float(stats.t.ppf(.975, free)) * math.sqrt(of_mean)
    return Interval(value, value - math.hypot(low, of_seeds), value + math.hypot(high, of_seeds))
