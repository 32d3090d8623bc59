"""Counts of the boxes of a data set by pyramid level."""

import torch
import torch.nn.functional as F
from mmengine.config import Config
from mmengine.registry import DATASETS, MODELS, DefaultScope
from torch import Tensor

from ..datasets import SampleKey


def count_levels(cfg: Config, samples: int, seed: int = 0) -> Tensor:
    """Draw views as in training, and count each view's boxes by pyramid level.

    Args:
        cfg (Config): A pretraining config with a feature pyramid.
        samples (int): Samples to draw: the data set's images in turn, each epoch with new crops.
        seed (int): Seed of the draws. Defaults to 0.

    Returns:
        Tensor: (V, levels) int64, finest level first. Levels are assigned by box size only
        (`finest_level` is not applied).

    Raises:
        ValueError: If the config has no feature pyramid.
    """
    if not cfg.model.get('neck'):
        raise ValueError('This config has no pyramid: all boxes are on one level.')
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        dataset = DATASETS.build(cfg.train_dataloader.dataset)
        extractor = MODELS.build(cfg.model.roi_head.bbox_roi_extractor)
    levels = extractor.num_inputs
    counts: list[Tensor] = []
    for i in range(samples):
        bboxes = dataset[SampleKey(i % len(dataset), i // len(dataset), seed)]['bboxes']  # (P, 2, K, 4)
        of_views = [bboxes[:, 0].flatten(0, 1), *bboxes[:, 1]]
        counts.append(torch.stack([torch.bincount(
            extractor.map_roi_levels(F.pad(boxes, (1, 0)), levels), minlength=levels)
            for boxes in of_views]))
    return torch.stack(counts).sum(dim=0)
