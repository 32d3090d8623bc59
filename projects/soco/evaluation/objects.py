"""Object scores without labels: matching objects between views by their features."""
import copy
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from mmengine.config import Config
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import DATASETS, DefaultScope
from torch import Tensor
from torch.utils.data import default_collate
from torchvision.ops import nms

from ..datasets.dataset import SampleKey, SoCoDataset
from ..models.soco import SoCo, feature_spread

HELD_OUT_EPOCH = 2**31  # beyond any training run, so training never draws these augmentations
FEATURES = ('projection', 'object')
CHUNK = 1024  # queries per chunk; bounds the (CHUNK, n) similarities in memory


class ViewObjects(NamedTuple):
    """The same n objects in two views of their photos, from one draw of the augmentations.

    Args:
        key_epoch (int): The draw: `dataset[SampleKey(row, key_epoch, seed)]` returns a photo's views.
        view (int): Index of the second view; the first is 0.
        sizes (tuple[int, int]): Sides of the two views in pixels.
        rows (Tensor): (n,) int64, row of each object's photo in the store.
        boxes (Tensor): (n, 2, 4), x1 y1 x2 y2 in pixels of the two views.
        feats (Tensor): (2, n, D), unit vectors.
        spread (float): `feature_spread` of the object features in the first view.
    """
    key_epoch: int
    view: int
    sizes: tuple[int, int]
    rows: Tensor
    boxes: Tensor
    feats: Tensor
    spread: float


class ObjectScore(NamedTuple):
    """How well objects are matched between views. A value that no view pair defines is None.

    Args:
        top1 (float): Share of objects whose nearest neighbour, among all objects of all photos in a
            second view of the same size, is the same object.
        top5 (float): Share of objects that are among their five nearest neighbours.
        top1_same_photo (float): As `top1`, among the objects of the same photo. This is harder,
            because they share colours and light. Photos with a single object are left out.
        chance (float): Expected `top1` of random guessing.
        chance_same_photo (float): Expected `top1_same_photo` of random guessing.
        alignment (float): Mean squared distance of an object's unit features in two views of the same
            size; 0 is best, 2 is the value of unrelated features (Wang & Isola, arXiv 2005.10242).
        top1_scales (float): As `top1`, with a second view of a different size, such as 112 pixels
            against 224.
        top5_scales (float): As `top5`, with a second view of a different size.
        top1_same_photo_scales (float): As `top1_same_photo`, with a second view of a different size.
        chance_scales (float): Expected `top1_scales` of random guessing.
        chance_same_photo_scales (float): Expected `top1_same_photo_scales` of random guessing.
        alignment_scales (float): As `alignment`, with a second view of a different size.
        uniformity (float): log of the mean of exp(-2 d^2) over distances d of different objects in
            the first view; lower is more uniform, 0 is collapse (the same paper).
        spread (float): `feature_spread` of the object features in the first view; 0 is collapse.
        num_photos (int): Photos used.
        num_objects (int): Number of queries, over all view pairs and draws.
    """
    top1: float | None
    top5: float | None
    top1_same_photo: float | None
    chance: float | None
    chance_same_photo: float | None
    alignment: float | None
    top1_scales: float | None
    top5_scales: float | None
    top1_same_photo_scales: float | None
    chance_scales: float | None
    chance_same_photo_scales: float | None
    alignment_scales: float | None
    uniformity: float | None
    spread: float
    num_photos: int
    num_objects: int


def held_out_dataset(cfg: Config, images: str | Path, proposals: str | Path,
                     num_proposals: int = 16) -> SoCoDataset:
    """Build a data set of held-out photos with the views of a recipe.

    Box jitter and cutouts are disabled, and each photo has more boxes than in training.

    Args:
        cfg (Config): A pretraining config.
        images (str | Path): The folder of the photos, or a zip or tar archive.
        proposals (str | Path): Proposal store of the photos.
        num_proposals (int): Maximum number of boxes per photo and view pair. Defaults to 16.

    Returns:
        SoCoDataset: The data set.

    Raises:
        FileNotFoundError: If the store or the photos do not exist.
        ValueError: If the store cannot be read, belongs to other photos, or has no box.
    """
    dataset = copy.deepcopy(cfg.train_dataloader.dataset)
    dataset.update(data_root=str(images), proposals=str(proposals), repeat=1, max_bad_share=0)
    for transform in dataset.pipeline:
        if transform['type'] == 'LoadProposals':
            transform.pop('max_proposals', None)  # set by an ablation
        elif transform['type'] == 'ProposalViews':
            transform.update(num_proposals=num_proposals, jitter_prob=0.0)
        elif transform['type'] == 'ProposalCutout':
            transform['prob'] = 0.0
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        built = DATASETS.build(dataset)
    if not built.box_counts().any():
        raise ValueError(  # the store may be a temporary file
            f'The config uses no box of the {len(built.store)} photos of {images}. Make proposals that '
            f'have small boxes too: python tools/generate_proposals.py {images} OUT.arrow --setting '
            'fine --keep all, and give them with --proposals OUT.arrow (in training, '
            'default_hooks.scores.proposals=OUT.arrow).')
    return built


def working_copy(model: SoCo) -> SoCo:
    """Copy a model, with BN in training mode, so that the original's running statistics stay.

    BN uses the statistics of each batch, as in training. The running statistics of a random
    initialisation are untrained; with them, it would be a network without normalisation. SyncBN is
    replaced with BN, because one process evaluates.

    Args:
        model (SoCo): The model. It is not changed.

    Returns:
        SoCo: The copy.
    """
    return revert_sync_batchnorm(copy.deepcopy(model)).train()


def score_objects(model: SoCo, dataset: SoCoDataset, num_photos: int = 64, repeats: int = 2,
                  batch_size: int = 8, seed: int = 0, features: str = 'projection') -> ObjectScore:
    """Match each object of a view with the objects of another view of the same photos.

    The arguments and errors are those of `embed_objects`. The result depends only on them.

    Returns:
        ObjectScore: Means over all objects.
    """
    return summarise(embed_objects(model, dataset, num_photos, repeats, batch_size, seed, features))


@torch.no_grad()
def embed_objects(model: SoCo, dataset: SoCoDataset, num_photos: int = 64, repeats: int = 2,
                  batch_size: int = 8, seed: int = 0, features: str = 'projection',
                  report: Callable[[int], None] = lambda photos: None) -> list[ViewObjects]:
    """Compute the target network's features of objects in views that training never draws.

    Of proposals that overlap with an IoU above 0.5, only the first is used, because they are hard to
    distinguish. For BatchNorm see `working_copy`.

    Args:
        model (SoCo): The model, on any device. It is not changed.
        dataset (SoCoDataset): Photos and proposals; see `held_out_dataset`.
        num_photos (int): Photos to use, evenly spread over those that have boxes. Defaults to 64.
        repeats (int): Draws of views per photo. Defaults to 2.
        batch_size (int): Photos per batch, also for BN's statistics. Defaults to 8.
        seed (int): Seed of the views. Defaults to 0.
        features (str): 'projection', which pretraining compares, or 'object', the RoI head's output,
            which a detector uses. Defaults to 'projection'.
        report (Callable): Called after each batch with its number of photos. Defaults to a function
            that does nothing.

    Returns:
        list[ViewObjects]: One for each draw and view pair.

    Raises:
        ValueError: If `features` is unknown, a photo cannot be read, or features are not finite.
    """
    if features not in FEATURES:
        raise ValueError(f'features must be one of {", ".join(FEATURES)}, not {features!r}.')
    model = working_copy(model)
    found = []
    for draw in range(repeats):
        pairs: dict[int, list[tuple]] = {}
        for rows, prepared in held_out_batches(model, dataset, num_photos, draw, batch_size, seed):
            for view, objects in _embed_batch(model, prepared, rows, FEATURES.index(features)):
                pairs.setdefault(view, []).append(objects)
            report(len(rows))
        sizes = [views.shape[-1] for views in prepared['inputs']]
        for view, batches in pairs.items():
            rows_of, boxes, feats, obj_feats = (list(values) for values in zip(*batches))
            found.append(ViewObjects(HELD_OUT_EPOCH + draw, view, (sizes[0], sizes[view]),
                                     torch.cat(rows_of), torch.cat(boxes),
                                     unit(torch.cat(feats, dim=1)),
                                     float(feature_spread(torch.cat(obj_feats)))))
    return found


def held_out_batches(model: SoCo, dataset: SoCoDataset, num_photos: int, draw: int, batch_size: int,
                     seed: int) -> Iterator[tuple[Tensor, dict]]:
    """Yield the photos of one draw of the views, in batches that are ready for the model.

    Args:
        model (SoCo): The model, whose preprocessor is used.
        dataset (SoCoDataset): Photos and proposals; see `held_out_dataset`.
        num_photos (int): Photos to use, evenly spread over those that have boxes.
        draw (int): Which draw of the views, from 0; none of them is used in training.
        batch_size (int): Photos per batch.
        seed (int): Seed of the views.

    Yields:
        tuple[Tensor, dict]: Rows of the photos in the store, (N,), and the preprocessor's output.

    Raises:
        ValueError: If a photo cannot be read.
    """
    usable = torch.from_numpy(dataset.box_counts()).nonzero().flatten()
    rows = usable[torch.linspace(0, len(usable) - 1, min(num_photos, len(usable))).long()]
    # Batches of nearly equal size: a small last batch would have different BN statistics.
    for part in rows.tensor_split(math.ceil(len(rows) / batch_size)):
        keys = [SampleKey(row, HELD_OUT_EPOCH + draw, seed) for row in part.tolist()]
        yield part, model.data_preprocessor(default_collate([dataset[key] for key in keys]), True)


def _embed_batch(model: SoCo, prepared: dict, rows: Tensor, kind: int) -> list[tuple[int, tuple]]:
    """Embed a batch's objects in the first view and in each other view.

    Returns:
        list[tuple]: For each other view, its index and a tuple of photos (n,), boxes (n, 2, 4),
        features (2, n, D) and the first view's object features (n, D).
    """
    obj_feats, projs = model.extract_feat(**prepared, target=True)
    feats = (projs, obj_feats)[kind]
    bboxes = prepared['bboxes'].cpu()  # (N, P, 2, K, 4)
    found = []
    for p in range(bboxes.shape[1]):
        keep = torch.stack([distinct_boxes(boxes) for boxes in bboxes[:, p, 0]])  # (N, K)
        both = torch.stack([feats[0][p].cpu()[keep], feats[p + 1][0].cpu()[keep]])
        found.append((p + 1, (rows[:, None].expand_as(keep)[keep],
                              bboxes[:, p].transpose(1, 2)[keep], both, obj_feats[0][p].cpu()[keep])))
    return found


def unit(features: Tensor) -> Tensor:
    """Scale features (..., D) to length 1.

    Raises:
        ValueError: If the features are not finite.
    """
    return F.normalize(finite(features).float(), dim=-1)


def finite(features: Tensor) -> Tensor:
    """Return features.

    Raises:
        ValueError: If they are not finite.
    """
    if not features.isfinite().all():
        raise ValueError('Features of objects are not finite: the weights are broken, or their '
                         'training diverged. Use an earlier checkpoint.')
    return features


def distinct_boxes(boxes: Tensor) -> Tensor:
    """Return a (K,) bool mask of the boxes (K, 4) whose IoU with all earlier ones is at most 0.5."""
    order = torch.arange(len(boxes), 0, -1, device=boxes.device, dtype=boxes.dtype)
    keep = torch.zeros(len(boxes), dtype=torch.bool, device=boxes.device)
    return keep.index_fill(0, nms(boxes, order, iou_threshold=0.5), True)


def summarise(found: list[ViewObjects]) -> ObjectScore:
    """Compute the scores of features: means over the objects of all draws and view pairs.

    Args:
        found (list[ViewObjects]): From `embed_objects`.

    Returns:
        ObjectScore: The scores.
    """
    same = [o for o in found if o.sizes[0] == o.sizes[1]]
    scales = [o for o in found if o.sizes[0] != o.sizes[1]]
    return ObjectScore(
        **_figures(same, ''), **_figures(scales, '_scales'),
        uniformity=_mean([uniformity(o.feats[0])[None] for o in found if len(o.rows) > 1]),
        spread=float(torch.tensor([o.spread for o in found]).mean()),
        num_photos=len(torch.cat([o.rows for o in found]).unique()),
        num_objects=sum(len(o.rows) for o in found))


def _figures(found: list[ViewObjects], suffix: str) -> dict[str, float | None]:
    """Return the scores of one kind of view pairs, keyed by their names in `ObjectScore`."""
    names = ('top1', 'top5', 'top1_same_photo', 'chance', 'chance_same_photo', 'alignment')
    values: dict[str, list[Tensor]] = {name: [] for name in names}
    for objects in found:
        first, other = objects.feats
        values['top1'].append(found_again(first, other, 1))
        values['top5'].append(found_again(first, other, 5))
        counts = same_photo_counts(objects.rows)
        values['top1_same_photo'].append(found_again(first, other, 1, objects.rows)[counts > 1])
        values['chance'].append(torch.full((len(first), ), 1 / len(first)))
        values['chance_same_photo'].append(1 / counts[counts > 1])
        values['alignment'].append((first - other).square().sum(dim=1))
    return {f'{name}{suffix}': _mean(parts) for name, parts in values.items()}


def _mean(parts: list[Tensor]) -> float | None:
    values = torch.cat(parts) if parts else torch.zeros(0)
    return float(values.double().mean()) if len(values) else None


def same_photo_counts(rows: Tensor) -> Tensor:
    """Return, for each object (n,), the number of objects of its photo, itself included."""
    _, index, counts = rows.unique(return_inverse=True, return_counts=True)
    return counts[index]


def found_again(first: Tensor, other: Tensor, k: int, rows: Tensor | None = None) -> Tensor:
    """Compute whether each object is among its own k nearest neighbours in another view.

    Objects at the same distance share the remaining places: the value is the probability of a random
    tie-break. Features that are all equal, or all zero, score as random guessing does.

    Args:
        first (Tensor): (n, D) unit features in one view.
        other (Tensor): (n, D) unit features in the other view; row i is the same object.
        k (int): Number of nearest neighbours, >= 1.
        rows (Tensor, optional): (n,) photos, to compare objects of the same photo only. Defaults to
            None: compare all objects.

    Returns:
        Tensor: (n,) within [0, 1].
    """
    chances = []
    for index in torch.arange(len(first)).split(CHUNK):
        similarity = first[index] @ other.T
        mine = similarity.gather(1, index[:, None])
        if rows is not None:
            similarity = similarity.masked_fill(rows[index, None] != rows, -math.inf)
        nearer, as_near = (similarity > mine).sum(dim=1), (similarity == mine).sum(dim=1)
        chances.append(((k - nearer) / as_near).clamp(0, 1))
    return torch.cat(chances)


def uniformity(features: Tensor) -> Tensor:
    """Return log mean exp(-2 d^2) over the distances d of n > 1 unit features (n, D), a scalar."""
    n, total = len(features), features.new_zeros((), dtype=torch.float64)
    for index in torch.arange(n).split(CHUNK):
        similarity = features[index] @ features.T
        terms = torch.exp(-2 * (2 - 2 * similarity).clamp_min(0).double())
        total += terms.sum() - terms.gather(1, index[:, None]).sum()
    return (total / (n * (n - 1))).log()
