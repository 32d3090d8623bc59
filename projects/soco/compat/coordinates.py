"""Keep coordinates of mmdet's detectors in float32 under mixed precision, by importing this module.

mmdet 3.3 converts RoIs, anchors and points to the type of the feature maps. In bfloat16, coordinates
are then multiples of 2 pixels above 256 and of 4 above 512; in float16, areas above 65,504 (256 × 256
pixels) are infinite, and their RoIs are pooled from the last level in training, but not in testing.
Here RoIs are pooled in float32 (our choice, as in this project's own extractor; Detectron2 does the
same), and anchors and points are float32. `engine.autocast` imports this module when a Runner has
built a detector.
"""
import functools
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from .. import compat  # noqa: F401  (provides mmcv's ops; must precede mmdet)

# isort: split
from mmdet.models.roi_heads.roi_extractors import GenericRoIExtractor, SingleRoIExtractor
from mmdet.models.task_modules.prior_generators import AnchorGenerator, MlvlPointGenerator


def _pooled_in_float32(forward: Callable) -> Callable:
    """Return an extractor's `forward` that pools in float32; its result has the type of the maps."""
    @functools.wraps(forward)
    def pool(self: Any, feats: Sequence[Tensor], rois: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        if not torch.is_autocast_enabled(feats[0].device.type):
            return forward(self, feats, rois, *args, **kwargs)
        pooled = forward(self, tuple(feat.float() for feat in feats), rois.float(), *args, **kwargs)
        return pooled.to(feats[0].dtype)

    return pool


def _in_float32(priors: Callable) -> Callable:
    """Return a generator's `grid_priors` that gives float32, or a wider type, whatever is asked for."""
    @functools.wraps(priors)
    def grid(self: Any, featmap_sizes: Sequence[tuple], dtype: torch.dtype = torch.float32,
             **kwargs: Any) -> list[Tensor]:
        return priors(self, featmap_sizes, dtype=torch.promote_types(dtype, torch.float32), **kwargs)

    return grid


for _extractor in (SingleRoIExtractor, GenericRoIExtractor):
    _extractor.forward = _pooled_in_float32(_extractor.forward)
for _generator in (AnchorGenerator, MlvlPointGenerator):
    _generator.grid_priors = _in_float32(_generator.grid_priors)
