"""How many directions features use: the measure of dimensional collapse.

A head whose features have collapsed into a few directions can have a low loss, a large spread and find
objects again, and still be a worse start for a detector than a random one. The rank tells.
"""
from typing import NamedTuple

import torch
from torch import Tensor

from ..datasets.dataset import SoCoDataset
from ..models.soco import SoCo
from .objects import distinct_boxes, finite, held_out_batches, working_copy

MAX_DRAWS = 20  # of each photo; more views of the same few photos say little


class FeatureRank(NamedTuple):
    """In how many directions features differ; see `measure_rank`.

    Args:
        effective_rank (float): See `effective_rank`.
        rankme (float): See `rankme`.
        leading_share (float): See `leading_share`, of the first five directions.
        silent (int): Units that are 0 for every object: they never fire.
        by_box (float | None): See `explained_by_boxes`; None without boxes.
        dimensions (int): D.
        num_objects (int): n.
    """

    effective_rank: float
    rankme: float
    leading_share: float
    silent: int
    by_box: float | None
    dimensions: int
    num_objects: int


def rankme(features: Tensor, eps: float = 1e-7) -> float:
    """Return RankMe (Garrido et al., ICML 2023): exp of the entropy of the normalised singular values.

    With the singular values s of the features as they are, p = s / sum(s) + eps, and
    RankMe = exp(-sum(p log p)). It is 1 for features along one direction, and min(n, D) for features
    whose singular values are all equal.

    Args:
        features (Tensor): (n, D).
        eps (float): As in the paper. Defaults to 1e-7.

    Raises:
        ValueError: If there are no features, or they are not finite.
    """
    values = torch.linalg.svdvals(_checked(features))
    share = values / values.sum().clamp_min(torch.finfo(values.dtype).tiny) + eps
    return float(torch.exp(-(share * share.log()).sum()))


def effective_rank(features: Tensor) -> float:
    """Return exp of the entropy of the variances along the principal directions.

    With the singular values s of the centred features, p = s² / sum(s²), and the rank is
    exp(-sum(p log p)). It is 1 for features that vary along one direction, and k for features that vary
    equally along k directions, whatever their scale, rotation and mean. It is 0 when nothing varies.

    Args:
        features (Tensor): (n, D).

    Raises:
        ValueError: See `rankme`.
    """
    return _rank_of(_variance_shares(features))


def leading_share(features: Tensor, directions: int = 5) -> float:
    """Return the share of the variance along the first principal directions, within [0, 1].

    Args:
        features (Tensor): (n, D).
        directions (int): How many. Defaults to 5.

    Raises:
        ValueError: See `rankme`.
    """
    return float(_variance_shares(features)[:directions].sum())


def explained_by_boxes(features: Tensor, boxes: Tensor, photos: Tensor) -> float:
    """Return the share of the features' variance that the place and the size of the box explain.

    A linear regression on the box's centre x and y, its width and height, and their squares is fitted
    on the objects of every second photo, and judged on the objects of the other photos, both ways. 0
    means that the box predicts the features no better than their mean, 1 that it predicts them exactly.

    Args:
        features (Tensor): (n, D).
        boxes (Tensor): (n, 4), x1 y1 x2 y2 in any unit that is the same for all.
        photos (Tensor): (n,) the photo of each object; at least two photos.

    Raises:
        ValueError: See `rankme`, or all objects are of one photo.
    """
    features, boxes = _checked(features), boxes.double()
    size = boxes[:, 2:] - boxes[:, :2]
    terms = torch.cat([boxes[:, :2] + size / 2, size], dim=1)
    terms = torch.cat([terms, terms.square()], dim=1)
    terms = (terms - terms.mean(dim=0)) / terms.std(dim=0).clamp_min(1e-12)
    terms = torch.cat([torch.ones_like(terms[:, :1]), terms], dim=1)
    _, order = photos.unique(return_inverse=True)
    odd = order % 2 == 1
    if not odd.any():
        raise ValueError('Objects of at least two photos are needed to tell what their boxes explain.')
    left = total = 0.
    for fit in (odd, ~odd):
        # a little ridge: sizes may be the same for all
        gram = terms[fit].T @ terms[fit] + 1e-6 * len(features) * torch.eye(terms.shape[1]).double()
        weights = torch.linalg.solve(gram, terms[fit].T @ features[fit])
        left += float((features[~fit] - terms[~fit] @ weights).square().sum())
        total += float((features[~fit] - features[fit].mean(dim=0)).square().sum())
    return max(0., 1 - left / total) if total else 0.


def measure_rank(features: Tensor, boxes: Tensor | None = None,
                 photos: Tensor | None = None) -> FeatureRank:
    """Measure features in all ways of this module.

    Args:
        features (Tensor): (n, D), as the network gives them: neither centred nor normalised.
        boxes (Tensor, optional): See `explained_by_boxes`. Defaults to None.
        photos (Tensor, optional): See `explained_by_boxes`. Defaults to None.

    Raises:
        ValueError: See `rankme` and `explained_by_boxes`.
    """
    shares = _variance_shares(features)
    return FeatureRank(
        _rank_of(shares), rankme(features), float(shares[:5].sum()),
        int((features == 0).all(dim=0).sum()),
        None if boxes is None else explained_by_boxes(features, boxes, photos),
        features.shape[1], len(features))


@torch.no_grad()
def rank_of_model(model: SoCo, dataset: SoCoDataset, num_photos: int = 64, batch_size: int = 8,
                  seed: int = 0, features: str = 'projection',
                  num_objects: int = 1024) -> dict[str, FeatureRank]:
    """Measure the rank of a model's features on held-out photos.

    The objects are those of the first view. Of proposals that overlap with an IoU above 0.5, only the
    first is used. The photos are drawn again, with other views, until there are enough objects, at most
    twenty times (our choice). For BatchNorm see `objects.working_copy`.

    Args:
        model (SoCo): The model, on any device. It is not changed.
        dataset (SoCoDataset): Photos and proposals; see `objects.held_out_dataset`.
        num_photos (int): Photos to use, evenly spread over those that have boxes. Defaults to 64.
        batch_size (int): Photos per batch, also for BN's statistics. Defaults to 8.
        seed (int): Seed of the views. Defaults to 0.
        features (str): 'projection' for object features and projections, 'object' for object features
            alone, for weights without a projector. Defaults to 'projection'.
        num_objects (int): Objects to measure with; fewer if twenty draws do not give them. Defaults to
            1024.

    Returns:
        dict[str, FeatureRank]: 'object' and 'projection' of the target network, 'online object' and
        'online projection' of the online network.

    Raises:
        ValueError: If a photo cannot be read, or features are not finite.
    """
    model = working_copy(model)
    names = ('object', 'projection') if features == 'projection' else ('object', )
    feats: dict[str, list[Tensor]] = {}
    boxes: list[Tensor] = []
    photos: list[Tensor] = []
    for draw in range(MAX_DRAWS):
        for rows, prepared in held_out_batches(model, dataset, num_photos, draw, batch_size, seed):
            first = prepared['bboxes'][:, :, 0].flatten(1, 2).cpu()  # (N, P * K, 4)
            keep = torch.stack([distinct_boxes(own) for own in first])
            for prefix, target in (('', True), ('online ', False)):
                for name, (values, *_) in zip(names, model.extract_feat(**prepared, target=target)):
                    own = values.transpose(0, 1).flatten(1, 2).cpu()  # (N, P * K, D)
                    feats.setdefault(prefix + name, []).append(own[keep])
            boxes.append(first[keep])
            photos.append(rows[:, None].expand_as(keep)[keep])
        if sum(map(len, boxes)) >= num_objects:
            break
    photo = torch.cat(photos)
    where = (torch.cat(boxes), photo) if len(photo.unique()) > 1 else (None, None)
    return {name: measure_rank(torch.cat(parts), *where) for name, parts in feats.items()}


def _checked(features: Tensor) -> Tensor:
    if features.ndim != 2 or not features.numel():
        raise ValueError(f'Features must have shape (n, D), not {tuple(features.shape)}.')
    return finite(features).double()


def _rank_of(shares: Tensor) -> float:
    """Return exp of the entropy of the shares of the variance; 0 when nothing varies."""
    return float(torch.exp(-torch.special.xlogy(shares, shares).sum())) if shares.sum() else 0.


def _variance_shares(features: Tensor) -> Tensor:
    """Return the share of the variance along each principal direction, in decreasing order."""
    features = _checked(features)
    # of the smaller of the two Gram matrices, whose eigenvalues other than 0 are the same
    centred = features - features.mean(dim=0)
    gram = centred.T @ centred if centred.shape[1] <= len(centred) else centred @ centred.T
    values = torch.linalg.eigvalsh(gram).flip(0).clamp_min(0)
    # what rounding leaves of a direction in which nothing varies
    floor = 1e-12 * features.square().sum()
    values = torch.where(values > floor, values, 0)
    return values / values.sum() if values.sum() else values
