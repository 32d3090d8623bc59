"""Scores of labelled object features: k-NN accuracy and retrieval mAP, with 95 % intervals."""
import math
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..annotations.summary import SIZES
from .annotated import LabelledPhotos

CHUNK = 512  # queries per chunk; bounds the (CHUNK, n) similarities in memory


class Outcomes(NamedTuple):
    """The results of n objects as queries.

    Args:
        correct (Tensor): (n,) 1 where the nearest neighbours voted for the object's class, else 0.
        precision (Tensor): (n,) average precision.
        counted (Tensor): (n,) bool, False where no candidate has the object's class.
    """
    correct: Tensor
    precision: Tensor
    counted: Tensor


class Figure(NamedTuple):
    """A mean over objects or over classes, with its 95 % interval.

    Args:
        value (float): The mean, within [0, 1].
        low (float): Lower end.
        high (float): Upper end.
        objects (int): How many objects were queries.
    """
    value: float
    low: float
    high: float
    objects: int


Figures = dict[str, Figure | None]


class LabelledScore(NamedTuple):
    """How well nearest neighbours predict classes. `knn` and `map` are in every dict.

    Args:
        other_photos (dict): Neighbours in other photos only. `knn` and `map` are means over
            objects, `knn_classes` and `map_classes` means over classes.
        all_photos (dict): The same with the object's own photo included, which is easier.
        sizes (dict): As `other_photos`, by the name of COCO's object size; None where there is no
            object.
        classes (dict): As `other_photos`, by the name of the class; None where the class is in one
            photo only.
        commonest (float): `other_photos['knn']` of a classifier that always predicts the most
            frequent class.
    """
    other_photos: Figures
    all_photos: Figures
    sizes: dict[str, Figures]
    classes: dict[str, Figures]
    commonest: float


def rank_classes(feats: Tensor, classes: Tensor, photos: Tensor, k: int,
                 other_photos: bool) -> Outcomes:
    """Predict each object's class from the objects nearest to it, itself excluded.

    Args:
        feats (Tensor): (n, D) unit features.
        classes (Tensor): (n,) int64.
        photos (Tensor): (n,) int64.
        k (int): Neighbours that vote, one vote each, >= 1. On a tie, the class with the nearest
            neighbour wins.
        other_photos (bool): Whether to exclude all objects of the query's photo.

    Returns:
        Outcomes: One result per object. The average precision is the mean, over the objects of its
        class, of the share of its class among all objects that are at least as near.
    """
    parts = []
    for index in torch.arange(len(feats)).split(CHUNK):
        similarity = feats[index] @ feats.T  # (c, n)
        hidden = torch.zeros_like(similarity, dtype=torch.bool).scatter_(1, index[:, None], True)
        if other_photos:
            hidden |= photos[index, None] == photos
        order = similarity.masked_fill(hidden, -math.inf).argsort(dim=1, descending=True, stable=True)
        seen = ~hidden.gather(1, order)
        same = (classes[order] == classes[index, None]) & seen
        ranks = torch.arange(1, len(feats) + 1)
        precision = (same.double().cumsum(1) / ranks * same).sum(1) / same.sum(1).clamp_min(1)
        # The nearest neighbours get a quarter, an eighth, … of a vote more, to break ties.
        weights = 1 + 0.5 ** torch.arange(2, k + 2, dtype=torch.float64)
        votes = torch.zeros(len(index), int(classes.max()) + 1, dtype=torch.float64)
        votes.scatter_add_(1, classes[order[:, :k]], weights[:order.shape[1]] * seen[:, :k])
        parts.append(((votes.argmax(1) == classes[index]).double(), precision, same.any(1)))
    return Outcomes(*map(torch.cat, zip(*parts)))


def bootstrap_interval(values: np.ndarray, photos: np.ndarray, groups: np.ndarray | None = None,
                       resamples: int = 1000, seed: int = 0) -> tuple[float, float]:
    """Estimate the 95 % interval of a mean by drawing photos with replacement (bootstrap).

    Photos are drawn instead of objects, because objects of one photo are similar. The candidates of
    the neighbour search are not resampled.

    Args:
        values (np.ndarray): (n,) values.
        photos (np.ndarray): (n,) photo of each value.
        groups (np.ndarray, optional): (n,) class of each value, for the mean of the classes' means;
            a class that is not drawn is left out of that draw. Defaults to None: the plain mean.
        resamples (int): Number of draws. Defaults to 1000.
        seed (int): Seed of the draws. Defaults to 0.

    Returns:
        tuple[float, float]: The 2.5th and the 97.5th percentile of the means.
    """
    _, photo = np.unique(photos, return_inverse=True)
    drawn = draw_photos(photo.max() + 1, resamples, seed)
    low, high = np.percentile(drawn_means(values, photo, drawn, groups), (2.5, 97.5))
    return float(low), float(high)


def draw_photos(num_photos: int, resamples: int, seed: int) -> np.ndarray:
    """Draw photos with replacement; return the count of each photo, (resamples, num_photos) int64."""
    return np.random.default_rng(seed).multinomial(num_photos, np.full(num_photos, 1 / num_photos),
                                                   size=resamples)


def drawn_means(values: np.ndarray, photos: np.ndarray, drawn: np.ndarray,
                groups: np.ndarray | None = None) -> np.ndarray:
    """Compute the mean over objects for each draw of photos.

    Args:
        values (np.ndarray): (n,) value of each object.
        photos (np.ndarray): (n,) index of each object's photo.
        drawn (np.ndarray): (R, photos), from `draw_photos`.
        groups (np.ndarray, optional): (n,) class of each object, for the mean of the classes' means;
            a class that is not drawn is left out of that draw. Defaults to None: the plain mean.

    Returns:
        np.ndarray: (R,); NaN where no object is drawn.
    """
    _, group = np.unique(np.zeros_like(photos) if groups is None else groups, return_inverse=True)
    shape = drawn.shape[1], group.max() + 1
    sums, counts = np.zeros(shape), np.zeros(shape)
    np.add.at(sums, (photos, group), values)
    np.add.at(counts, (photos, group), 1)
    totals = drawn @ counts
    there = totals > 0
    means = np.divide(drawn @ sums, totals, out=np.zeros(totals.shape), where=there)
    return np.divide(means.sum(axis=1), there.sum(axis=1), out=np.full(len(drawn), np.nan),
                     where=there.any(axis=1))


def score_labelled(feats: Tensor, labelled: LabelledPhotos, k: int = 5, resamples: int = 1000,
                   seed: int = 0) -> LabelledScore:
    """Score object features by the classes of their nearest neighbours.

    Args:
        feats (Tensor): (n, D) unit features of the objects of `labelled`; see `embed_labelled`.
        labelled (LabelledPhotos): Classes, areas and photos.
        k (int): Neighbours that vote. Defaults to 5.
        resamples (int): Number of bootstrap draws. Defaults to 1000.
        seed (int): Seed of the draws. Defaults to 0.

    Returns:
        LabelledScore: Scores overall, by object size and by class.

    Raises:
        ValueError: If no class is in two photos.
    """
    classes, photos, areas = labelled.classes, labelled.photos, labelled.areas

    def figures(outcomes: Outcomes, chosen: Tensor | None = None, by_class: bool = False) -> Figures:
        keep = outcomes.counted if chosen is None else outcomes.counted & chosen
        groups = classes[keep].numpy() if by_class else None
        ending = '_classes' if by_class else ''
        return {f'{name}{ending}': _figure(values[keep].numpy(), photos[keep].numpy(), groups,
                                           resamples, seed)
                for name, values in (('knn', outcomes.correct), ('map', outcomes.precision))}

    everywhere, elsewhere = (rank_classes(feats, classes, photos, k, other) for other in (False, True))
    if not elsewhere.counted.any():
        raise ValueError('No category has objects in two photos, so no object has a match in another '
                         'photo. Use annotations of more photos.')
    counted = classes[elsewhere.counted]
    return LabelledScore(
        {**figures(elsewhere), **figures(elsewhere, by_class=True)},
        {**figures(everywhere), **figures(everywhere, by_class=True)},
        {name: figures(elsewhere, (areas >= low) & (areas < high))
         for name, (low, high) in SIZES.items()},
        {name: figures(elsewhere, classes == i) for i, name in enumerate(labelled.class_names)},
        int(counted.bincount().max()) / len(counted))


def _figure(values: np.ndarray, photos: np.ndarray, groups: np.ndarray | None, resamples: int,
            seed: int) -> Figure | None:
    if not len(values):
        return None
    means = [values[groups == g].mean() for g in np.unique(groups)] if groups is not None else values
    return Figure(float(np.mean(means)), *bootstrap_interval(values, photos, groups, resamples, seed),
                  len(values))
