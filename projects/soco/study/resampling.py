"""Bootstrap over photos and seeds, paired between arms."""
from typing import NamedTuple, Sequence

import numpy as np

PHOTO_SEED, SEED_SEED = 0, 1  # draws are the same for all runs: that is what pairs them


class Interval(NamedTuple):
    """A difference with its 95 % interval.

    Args:
        value (float): Mean over the seeds.
        low (float): 2.5th percentile.
        high (float): 97.5th percentile.
    """
    value: float
    low: float
    high: float


def photo_draws(num_photos: int, resamples: int) -> np.ndarray:
    """Draw photos with replacement: (resamples, num_photos) indices, the same at every call."""
    rng = np.random.default_rng([PHOTO_SEED, num_photos])
    return rng.integers(num_photos, size=(resamples, num_photos))


def resampled_means(values: np.ndarray, photos: np.ndarray, resamples: int,
                    groups: np.ndarray | None = None) -> np.ndarray:
    """Compute the mean over objects again for each draw of photos.

    Args:
        values (np.ndarray): (n,) one for each object.
        photos (np.ndarray): (n,) its photo; any numbers.
        resamples (int): R.
        groups (np.ndarray, optional): (n,) class of each, for the mean of the classes' means; a class
            that is not drawn is left out of that draw. Defaults to None: the plain mean.

    Returns:
        np.ndarray: (R,).
    """
    known, photo = np.unique(photos, return_inverse=True)
    names, group = np.unique(np.zeros_like(photos) if groups is None else groups, return_inverse=True)
    sums, counts = np.zeros((2, len(known), len(names)))
    np.add.at(sums, (photo, group), values)
    np.add.at(counts, (photo, group), 1)
    draws = photo_draws(len(known), resamples)
    total = counts[draws].sum(axis=1)  # (R, classes)
    means = np.divide(sums[draws].sum(axis=1), total, out=np.full_like(total, np.nan), where=total > 0)
    return np.nanmean(means, axis=1)


def paired_difference(ours: Sequence[float], theirs: Sequence[float], our_samples: np.ndarray,
                      their_samples: np.ndarray) -> Interval:
    """Compare two arms over the same seeds and the same draws of photos.

    Each draw takes photos and seeds with replacement, the same for both arms, so what is common to
    both (hard photos, a lucky seed) cancels out.

    Args:
        ours (Sequence[float]): S values of an arm, one for each seed.
        theirs (Sequence[float]): S of the other arm, in the same order.
        our_samples (np.ndarray): (S, R) values for draws of photos.
        their_samples (np.ndarray): (S, R) for the same draws.

    Returns:
        Interval: Of `ours - theirs`.
    """
    difference = our_samples - their_samples
    seeds, resamples = difference.shape
    drawn = np.random.default_rng([SEED_SEED, seeds]).integers(seeds, size=(resamples, seeds))
    means = difference[drawn, np.arange(resamples)[:, None]].mean(axis=1)
    low, high = np.nanpercentile(means, (2.5, 97.5))
    return Interval(float(np.mean(ours) - np.mean(theirs)), float(low), float(high))
