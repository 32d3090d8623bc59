"""What object features are worth, measured without labels."""
import copy
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import default_collate
from torchvision.ops import nms

from ..datasets.dataset import SampleKey, SoCoDataset
from ..models.soco import SoCo, feature_spread

HELD_OUT_EPOCH = 2**31  # no training run gets there: its augmentations were never seen


class ObjectScore(NamedTuple):
    """How well objects are found again.

    Args:
        top1 (float): Share of objects whose nearest neighbour in another view, among all objects of
            all photos, is themselves.
        top1_same_photo (float): The same among the objects of their own photo, the harder part:
            they share its colours and light.
        chance (float): What guessing would give for `top1`.
        spread (float): `feature_spread` of the object features; 0 is collapse.
        num_objects (int): Objects looked for, over all pairs of views.
    """
    top1: float
    top1_same_photo: float
    chance: float
    spread: float
    num_objects: int


@torch.no_grad()
def score_objects(model: SoCo, dataset: SoCoDataset, num_photos: int = 64, repeats: int = 2,
                  batch_size: int = 8, seed: int = 0) -> ObjectScore:
    """Look for each object of a view among the objects of another view of the same photos.

    Features are the target network's object features, compared by cosine. Views are drawn as in
    training, with augmentations that training never draws. Of proposals that overlap by more than
    half (IoU) only the first counts: nobody could tell them apart. BatchNorm uses the statistics
    of the batch, as in training: a random initialisation has none of its own, and would be
    compared as a network without normalisation.

    Args:
        model (SoCo): The model; left as it was.
        dataset (SoCoDataset): Photos and proposals, with the views of the training pipeline.
        num_photos (int): Photos to use, evenly spread over the data set.
        repeats (int): Draws of views per photo.
        batch_size (int): Photos at a time.
        seed (int): Seed of the views.

    Returns:
        ObjectScore: Means over pairs of views and repeats; the same for the same seed.
    """
    model = copy.deepcopy(model).train()  # a copy: running statistics move
    rows = torch.linspace(0, len(dataset.store) - 1, min(num_photos, len(dataset.store))).long()
    found, found_same, chances, spreads, total = [], [], [], [], 0
    for repeat in range(repeats):
        views = _embed(model, dataset, rows.tolist(), HELD_OUT_EPOCH + repeat, batch_size, seed)
        for first, other, photo in views:
            similarity = first @ other.T
            mine = torch.arange(len(first), device=first.device)
            found.append((similarity.argmax(1) == mine).float().mean())
            similarity = similarity.masked_fill(photo[:, None] != photo, -2)
            found_same.append((similarity.argmax(1) == mine).float().mean())
            chances.append(1 / len(first))
            spreads.append(feature_spread(first))
            total += len(first)

    def mean(values: list) -> float:
        return float(torch.tensor([float(v) for v in values]).mean())

    return ObjectScore(mean(found), mean(found_same), mean(chances), mean(spreads), total)


def _embed(model: SoCo, dataset: SoCoDataset, rows: list[int], epoch: int, batch_size: int,
           seed: int) -> list[tuple[Tensor, Tensor, Tensor]]:
    """For each pair of views: unit features (n, D) in both, and the photo (n,) of each object."""
    firsts, others, photos = {}, {}, {}
    for start in range(0, len(rows), batch_size):
        batch = default_collate([dataset[SampleKey(row, epoch, seed)]
                                 for row in rows[start:start + batch_size]])
        prepared = model.data_preprocessor(batch, True)
        feats, _ = model.extract_feat(**prepared, target=True)
        bboxes = prepared['bboxes'].to(feats[0].device)
        for p in range(bboxes.shape[1]):
            keep = torch.stack([_distinct(boxes) for boxes in bboxes[:, p, 0]])  # (N, K)
            index = torch.arange(start, start + len(keep), device=keep.device)
            firsts.setdefault(p, []).append(F.normalize(feats[0][p][keep], dim=1))
            others.setdefault(p, []).append(F.normalize(feats[p + 1][0][keep], dim=1))
            photos.setdefault(p, []).append(index[:, None].expand_as(keep)[keep])
    return [(torch.cat(firsts[p]), torch.cat(others[p]), torch.cat(photos[p])) for p in firsts]


def _distinct(boxes: Tensor) -> Tensor:
    """Mark boxes (K, 4) that overlap no earlier one by more than half, as a (K,) bool tensor."""
    order = torch.arange(len(boxes), 0, -1, device=boxes.device, dtype=boxes.dtype)
    keep = torch.zeros(len(boxes), dtype=torch.bool, device=boxes.device)
    return keep.index_fill(0, nms(boxes, order, iou_threshold=0.5), True)
