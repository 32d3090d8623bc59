"""Differences between arms with intervals over photos and seeds."""
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

DRAWS = 0  # seed of the draws of photos; the same for all runs, so that they are paired
# 97.5 % quantiles of Student's t by degrees of freedom; above, the normal's 1.96 is close enough.
T = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 6: 2.447, 7: 2.365, 8: 2.306, 9: 2.262}


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
        of_seeds = T.get(seeds - 1, 1.96) * float(differences.std(ddof=1)) / math.sqrt(seeds)
    return Interval(value, value - math.hypot(low, of_seeds), value + math.hypot(high, of_seeds))
