"""The RoI head of `SoCo` for a detector: the detector's own shared layers, or others in their place.

Letters used in shapes: N images, C channels, D length of an object feature.
"""
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ..models.roi_heads import keep_shared_layers
from ..weights.names import SHARED_LAYERS
from .build import build
from .read import lifted

# The paper's borders between levels: boxes of 48 pixels for stride 4 in views of 224 pixels.
BORDER_PER_STRIDE = 48 / 4 / 224
FALLBACK_CHANNELS = 256  # where the levels differ in channels
ROI_SIZE = 7
SHARED_HEAD_SIZE = 14
_BOX_HEAD = 'roi_head.bbox_head.'


@dataclass
class Head:
    """The RoI head of `SoCo` for a detector.

    Attributes:
        config (dict): Config of a `SoCoRoIHead` or `SoCoC4RoIHead`.
        prefixes (dict[str, tuple[str, ...]]): See `Parts`; empty if nothing of it is the detector's.
        reasons (dict[str, str]): See `Parts`.
        notes (list[str]): See `Parts`.
    """

    config: dict
    prefixes: dict[str, tuple[str, ...]] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def choose_head(roi_head: dict, maps: Sequence[Tensor], indices: list[int], strides: list[int],
                sizes: Sequence[int]) -> Head:
    """Choose the RoI head of `SoCo` for a detector.

    Args:
        roi_head (dict): Config of the detector's RoI head, plain; empty if it has none.
        maps (Sequence[Tensor]): All maps of the detector's backbone and neck, (2, C, H, W) each.
        indices (list[int]): Indices of the maps that boxes are pooled from, finest first.
        strides (list[int]): Their strides.
        sizes (Sequence[int]): Side of each view in pixels; the first is the whole photo.

    Returns:
        Head: Its config, and what of it is the detector's.
    """
    channels = [maps[i].shape[1] for i in indices]
    if roi_head.get('shared_head'):
        return _shared_head(roi_head, len(maps), strides, channels)
    config: dict = dict(type='SoCoRoIHead', bbox_roi_extractor=dict(
        type='SoCoRoIExtractor', roi_layer=_roi_layer(roi_head, ROI_SIZE),
        out_channels=channels[0] if len(set(channels)) == 1 else FALLBACK_CHANNELS,
        featmap_strides=strides, level_sizes=level_sizes(strides, sizes)[:-1]))
    if indices != list(range(len(maps))):
        config['levels'] = indices
    if len(set(channels)) > 1:
        config['level_channels'] = channels
    heads, reasons = _box_heads(roi_head)
    if not heads:
        return Head({**config, 'bbox_head': _thrown_away(config)}, reasons=reasons)
    return Head({**config, 'bbox_head': heads[0][1]},
                {_BOX_HEAD: tuple(prefix for prefix, _ in heads)}, reasons)


def without_own_layers(head: Head, why: str) -> Head:
    """Replace the detector's box head by one that is thrown away.

    Args:
        head (Head): A head with the detector's box head.
        why (str): Why it cannot be used.

    Returns:
        Head: The other head.

    Raises:
        ValueError: If there is no box head of the detector to replace.
    """
    if _BOX_HEAD not in head.prefixes:
        raise ValueError(why)
    reasons = {prefix: f'its shared layers do not run alone ({why})'
               for prefix in head.prefixes[_BOX_HEAD]}
    config = {**head.config, 'bbox_head': _thrown_away(head.config)}
    return Head(config, reasons={**head.reasons, **reasons}, notes=head.notes)


def level_sizes(strides: Sequence[int], sizes: Sequence[int]) -> list[int]:
    """Return the largest box of each level in pixels, by the paper's rule.

    Args:
        strides (Sequence[int]): Strides of the levels.
        sizes (Sequence[int]): Sides of the views in pixels; the first is the whole photo.

    Returns:
        list[int]: 48, 96, 192, 384 for the strides 4, 8, 16, 32 and views of 224 pixels.
    """
    return [round(BORDER_PER_STRIDE * stride * sizes[0]) for stride in strides]


def _roi_layer(roi_head: dict, size: int) -> dict:
    """Return the detector's RoIAlign; another layer is replaced by one of the same output size."""
    extractor = roi_head.get('bbox_roi_extractor') or {}
    extractor = extractor[0] if isinstance(extractor, list) else extractor
    layer = dict(extractor.get('roi_layer') or {})
    if layer.get('type') == 'RoIAlign':
        return layer
    return dict(type='RoIAlign', output_size=layer.get('output_size', size), sampling_ratio=0)


def _shared_head(roi_head: dict, num_maps: int, strides: list[int], channels: list[int]) -> Head:
    """Return the RoI head of a detector whose RoIs go through the last stage of the backbone."""
    if num_maps > 1:
        raise ValueError('The RoI head of the detector has a shared_head behind several pyramid '
                         'levels, which is not supported. Use a C4 detector, with one level.')
    shared, notes = lifted(roi_head['shared_head'], 'roi_head.shared_head')
    extractor = dict(
        type='mmdet.SingleRoIExtractor', roi_layer=_roi_layer(roi_head, SHARED_HEAD_SIZE),
        out_channels=channels[0], featmap_strides=strides)
    prefix = 'roi_head.shared_head.'
    return Head(dict(type='SoCoC4RoIHead', bbox_roi_extractor=extractor, shared_head=shared),
                {prefix: (prefix, )}, {_BOX_HEAD: 'classifier and regressor learn the classes'}, notes)


def _box_heads(roi_head: dict) -> tuple[list[tuple[str, dict]], dict[str, str]]:
    """Return prefix and config of each box head with the first one's layers, and why not of others."""
    heads = roi_head.get('bbox_head') or []
    listed = isinstance(heads, list)
    found: list[tuple[str, dict]] = []
    reasons: dict[str, str] = {}
    first = None
    for i, config in enumerate(heads if listed else [heads]):
        prefix = f'{_BOX_HEAD}{i}.' if listed else _BOX_HEAD
        config = lifted(config, 'roi_head.bbox_head')[0]
        with torch.device('meta'):
            head = build(config, 'box head')
        try:
            layers = str([getattr(keep_shared_layers(head), name) for name in SHARED_LAYERS])
        except ValueError:
            reasons[prefix] = (f'{config["type"]} has no convs or linear layers that all its outputs '
                               'share')
            continue
        first = first or layers
        if layers == first:
            found.append((prefix, config))
        else:
            reasons[prefix] = 'its shared layers differ from those of the first stage'
    return found, reasons


def _thrown_away(config: dict) -> dict:
    """Return a box head for a detector that has none: the paper's, in the width of the levels."""
    extractor = config['bbox_roi_extractor']
    channels = extractor['out_channels']
    return dict(type='SoCoBBoxHead', in_channels=channels,
                conv_out_channels=min(channels, FALLBACK_CHANNELS), fc_out_channels=1024,
                roi_feat_size=extractor['roi_layer']['output_size'], norm_cfg=dict(type='BN'))


def run_head(config: dict, maps: Sequence[Tensor]) -> int:
    """Run an RoI head on one box per photo and level, and send gradients back through the maps.

    Args:
        config (dict): Config of the RoI head of `SoCo`.
        maps (Sequence[Tensor]): Maps of backbone and neck for two photos, (2, C, H, W) each.

    Returns:
        int: D.

    Raises:
        ValueError: If it cannot be built, does not run, or a part of it gets no gradient.
    """
    head = build(config, 'RoI head')
    border = [0, *getattr(head.bbox_roi_extractor, 'level_sizes', ())]
    boxes = torch.tensor([[0, 0, side + 1, side + 1] for side in border], dtype=torch.float32)
    try:
        features = head(maps, boxes.expand(2, -1, -1))
        features.sum().backward(retain_graph=True)  # another head may be run after this one
    except Exception as error:
        raise ValueError(f'{type(error).__name__}: {error}') from error
    untrained = [name for name, p in head.named_parameters() if p.grad is None]
    if untrained:
        raise ValueError(f'{len(untrained)} of its tensors, such as {untrained[0]}, get no gradient')
    return features.shape[-1]
