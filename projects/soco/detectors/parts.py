"""What of a detector can be pretrained, found by building and running its own modules.

Letters used in shapes: N images, C channels, D length of an object feature.
"""
import contextlib
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.registry import MODELS, DefaultScope
from torch import Tensor, nn

from ..compat.cpu import cpu_config
from ..models.roi_heads import SHARED_LAYERS, keep_shared_layers
from .read import lifted, plain

# The paper's borders between levels: boxes of 48 pixels for stride 4 in views of 224 pixels.
BORDER_PER_STRIDE = 48 / 4 / 224
FALLBACK_CHANNELS = 256  # where the levels differ in channels
LARGER_VIEWS = (256, 320, 512)  # sides to try if a detector does not run on the recipe's views
ROI_SIZE = 7
SHARED_HEAD_SIZE = 14


class ViewSizeError(ValueError):
    """Backbone and neck do not run on views of a size."""


@dataclass
class Parts:
    """What of a detector is pretrained, and how.

    Attributes:
        backbone (dict): Config of the backbone, with nothing frozen.
        neck (dict | list, optional): Config of the neck or the necks, with nothing frozen.
        roi_head (dict): Config of a `SoCoRoIHead` or `SoCoC4RoIHead`.
        sizes (tuple[int, ...]): Side of each view in pixels.
        feature_length (int): D.
        strides (tuple[int, ...]): Strides of the levels that boxes are pooled from, finest first.
        prefixes (dict[str, tuple[str, ...]]): For each prefix of keys in `SoCo`, those in the
            detector. One has several: the box heads of a cascade.
        frozen (list[str]): Modules of backbone and neck that no box reaches.
        reasons (dict[str, str]): For a prefix of keys in the detector, why it is not pretrained.
        notes (list[str]): A sentence for each setting that differs from the detector's.
    """

    backbone: dict
    neck: dict | list | None
    roi_head: dict
    sizes: tuple[int, ...]
    feature_length: int
    strides: tuple[int, ...]
    prefixes: dict[str, tuple[str, ...]]
    frozen: list[str]
    reasons: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def find_parts(detector: Config, sizes: Sequence[int]) -> Parts:
    """Build and run the shared parts of a detector, on the CPU, and describe them.

    Args:
        detector (Config): The output of `read_detector`.
        sizes (Sequence[int]): Side of each view in pixels; the first is the whole photo. They are
            enlarged if backbone and neck do not run on such small views.

    Returns:
        Parts: What is pretrained.

    Raises:
        ValueError: If backbone and neck cannot be built, do not run, or do not return maps.
    """
    with torch.random.fork_rng(devices=[]):  # keep the caller's random state
        return _find_parts(detector, sizes)


def _find_parts(detector: Config, sizes: Sequence[int]) -> Parts:
    model = detector.model
    backbone, notes = lifted(model['backbone'], 'backbone')
    neck, of_neck = lifted(model['neck'], 'neck') if model.get('neck') else (None, [])
    body = nn.ModuleDict({'backbone': build(backbone, 'backbone')})
    if neck is not None:
        body['neck'] = build(neck, 'neck')
    sizes, maps = _run_on_fitting_views(body, tuple(sizes), notes)
    detectors_head = plain(model.get('roi_head') or {})
    indices, strides = choose_levels(
        [max(sizes) / m.shape[3] for m in maps], sizes, detectors_head.get('bbox_roi_extractor'))
    channels = [maps[i].shape[1] for i in indices]
    prefixes: dict[str, tuple[str, ...]] = {f'{name}.': (f'{name}.', ) for name in body}
    reasons: dict[str, str] = {}
    if detectors_head.get('shared_head'):
        roi_head, of_head = _shared_head(detectors_head, indices, strides, channels, reasons)
        notes += of_head
        prefixes['roi_head.shared_head.'] = ('roi_head.shared_head.', )
    else:
        roi_head = dict(type='SoCoRoIHead', bbox_roi_extractor=_extractor(
            detectors_head, strides, channels, sizes), bbox_head=None)
        if indices != list(range(len(maps))):
            roi_head['levels'] = indices
        if len(set(channels)) > 1:
            roi_head['level_channels'] = channels
        heads = _box_heads(detectors_head, reasons)
        roi_head['bbox_head'] = heads[0][1] if heads else _thrown_away_head(roi_head)
        if heads:
            prefixes['roi_head.bbox_head.'] = tuple(prefix for prefix, _ in heads)
    try:
        length, frozen = run_head(body, maps, roi_head)
    except ValueError as error:
        if 'roi_head.bbox_head.' not in prefixes:
            raise
        for prefix in prefixes.pop('roi_head.bbox_head.'):
            reasons[prefix] = f'its shared layers do not run alone ({error})'
        roi_head['bbox_head'] = _thrown_away_head(roi_head)
        length, frozen = run_head(body, maps, roi_head)
    return Parts(backbone, neck, roi_head, sizes, length, tuple(strides), prefixes, frozen, reasons,
                 notes + of_neck)


def build(cfg: Any, name: str) -> nn.Module:
    """Build a module on the CPU; an error becomes a sentence for the user.

    Args:
        cfg (Any): Config of a module, or a list of configs of modules that run one after the other.
        name (str): Name of the part, for the sentence.

    Returns:
        nn.Module: The module.

    Raises:
        ValueError: If it cannot be built.
    """
    cfg = cpu_config(Config(dict(part=cfg))).part
    try:
        with DefaultScope.overwrite_default_scope('mmselfsup'), quiet():
            return MODELS.build(cfg)
    except Exception as error:
        missing = isinstance(error, ImportError) or 'install' in str(error)
        way = ('Install the package that it names' if missing else
               'Check this part of the config; does the detector train with MMDetection')
        raise ValueError(f'The {name} of the detector cannot be built: {error} '
                         f'({type(error).__name__}). {way}{"." if missing else "?"}') from error


def _run_on_fitting_views(body: nn.ModuleDict, sizes: tuple[int, ...],
                          notes: list[str]) -> tuple[tuple[int, ...], tuple[Tensor, ...]]:
    """Run backbone and neck; if they do not run on views of these sizes, try larger ones."""
    larger = [(max(sizes), ) * len(sizes), *((side, ) * len(sizes) for side in LARGER_VIEWS)]
    first: ValueError | None = None
    for candidate in [sizes, *larger]:
        try:
            maps = run_body(body, candidate)
        except ViewSizeError as error:
            first = first or error
            continue
        if candidate != sizes:
            notes.append(f'Views of {", ".join(map(str, candidate))} pixels instead of '
                         f'{", ".join(map(str, sizes))}: backbone and neck do not run on smaller ones.')
        return candidate, maps
    raise first


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Leave out what modules log while they are built, such as the channels of a timm backbone."""
    logger = MMLogger.get_current_instance()
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(level)


def run_body(body: nn.ModuleDict, sizes: Sequence[int]) -> tuple[Tensor, ...]:
    """Run backbone and neck on two views of each size, and return the maps of the largest.

    Args:
        body (nn.ModuleDict): `backbone` and, if the detector has one, `neck`.
        sizes (Sequence[int]): Sides of the views in pixels.

    Returns:
        tuple[Tensor, ...]: Maps (2, C, H, W), in the order in which the detector has them.

    Raises:
        ValueError: If they do not run, or do not return one map or several maps for each photo.
    """
    kind = type(body['neck' if 'neck' in body else 'backbone']).__name__
    for size in sorted(set(sizes)):
        try:
            maps = body['backbone'](torch.randn(2, 3, size, size))
            maps = body['neck'](maps) if 'neck' in body else maps
        except NotImplementedError as error:
            raise ValueError(f'The detector cannot be run: {error}') from error
        except Exception as error:
            raise ViewSizeError(
                f'Backbone and neck of the detector do not run on views of {size} pixels: {error} '
                f'({type(error).__name__}).') from error
        maps = (maps, ) if isinstance(maps, Tensor) else maps
        if not isinstance(maps, (list, tuple)) or not maps or any(
                not isinstance(m, Tensor) or m.dim() != 4 for m in maps):
            shapes = [list(m.shape) if isinstance(m, Tensor) else type(m).__name__ for m in maps]
            raise ValueError(
                f'{kind} returns no feature maps (N, C, H, W) for photos but {shapes}, so there is '
                'no level to pool boxes from. For a backbone of timm, set features_only=True; for a '
                'classifier, set out_indices to several stages.')
        if any(len(m) != 2 for m in maps):
            raise ValueError(
                f'{kind} returns {len(maps[0])} maps for 2 photos while it is trained, as branches '
                'that only its own head can separate. Use a detector with an ordinary backbone.')
    return tuple(maps)


def choose_levels(strides: Sequence[float], sizes: Sequence[int],
                  extractor: dict | list | None = None) -> tuple[list[int], list[int]]:
    """Choose the maps that boxes are pooled from: those of the detector's RoI head that boxes reach.

    Args:
        strides (Sequence[float]): Stride of each map, in the detector's order.
        sizes (Sequence[int]): Sides of the views in pixels; the first is the whole photo.
        extractor (dict | list, optional): Config of the detector's RoI extractor. Defaults to None:
            boxes may be pooled from all maps.

    Returns:
        tuple[list[int], list[int]]: Indices of the maps, finest first, and their strides.
    """
    extractor = extractor[0] if isinstance(extractor, list) else extractor or {}
    count = len(extractor.get('featmap_strides') or strides)
    by_stride = {round(stride): i for i, stride in enumerate(strides[:count])}  # the last of equals
    chosen: list[int] = []
    for stride in sorted(by_stride):
        if chosen and level_sizes(chosen, sizes)[-1] >= max(sizes):
            break
        chosen.append(stride)
    return [by_stride[stride] for stride in chosen], chosen


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


def _extractor(roi_head: dict, strides: list[int], channels: list[int],
               sizes: Sequence[int]) -> dict:
    return dict(
        type='SoCoRoIExtractor', roi_layer=_roi_layer(roi_head, ROI_SIZE),
        out_channels=channels[0] if len(set(channels)) == 1 else FALLBACK_CHANNELS,
        featmap_strides=strides, level_sizes=level_sizes(strides, sizes)[:-1])


def _shared_head(roi_head: dict, indices: list[int], strides: list[int], channels: list[int],
                 reasons: dict[str, str]) -> tuple[dict, list[str]]:
    """Return the RoI head of a detector whose RoIs go through the last stage of the backbone."""
    if len(indices) > 1 or indices != [0]:
        raise ValueError('The RoI head of the detector has a shared_head behind several pyramid '
                         'levels, which is not supported. Use a C4 detector, with one level.')
    shared, notes = lifted(roi_head['shared_head'], 'roi_head.shared_head')
    reasons['roi_head.bbox_head.'] = 'classifier and regressor learn the classes'
    return dict(
        type='SoCoC4RoIHead',
        bbox_roi_extractor=dict(
            type='mmdet.SingleRoIExtractor', roi_layer=_roi_layer(roi_head, SHARED_HEAD_SIZE),
            out_channels=channels[0], featmap_strides=strides),
        shared_head=shared), notes


def _box_heads(roi_head: dict, reasons: dict[str, str]) -> list[tuple[str, dict]]:
    """Return the prefix and config of each box head that shares the first one's shared layers."""
    heads = roi_head.get('bbox_head')
    if not heads:
        return []
    listed = isinstance(heads, list)
    configs = [dict(lifted(head, 'roi_head.bbox_head')[0]) for head in (heads if listed else [heads])]
    prefixes = [f'roi_head.bbox_head.{i}.' if listed else 'roi_head.bbox_head.'
                for i in range(len(configs))]
    found: list[tuple[str, dict]] = []
    first = None
    for prefix, cfg in zip(prefixes, configs):
        with torch.device('meta'):
            head = build(cfg, 'box head')
        try:
            layers = str([getattr(keep_shared_layers(head), name) for name in SHARED_LAYERS])
        except ValueError:
            reasons[prefix] = (f'{cfg["type"]} has no convs or linear layers that all its outputs '
                               'share')
            continue
        first = first or layers
        if layers == first:
            found.append((prefix, cfg))
        else:
            reasons[prefix] = 'its shared layers differ from those of the first stage'
    return found


def _thrown_away_head(roi_head: dict) -> dict:
    """Return a box head for a detector that has none: the paper's, in the width of the levels."""
    extractor = roi_head['bbox_roi_extractor']
    channels, size = extractor['out_channels'], extractor['roi_layer']['output_size']
    return dict(type='SoCoBBoxHead', in_channels=channels,
                conv_out_channels=min(channels, FALLBACK_CHANNELS), fc_out_channels=1024,
                roi_feat_size=size, norm_cfg=dict(type='BN'))


def run_head(body: nn.ModuleDict, maps: Sequence[Tensor], roi_head: dict) -> tuple[int, list[str]]:
    """Run the RoI head on one box per photo and level, and follow the gradients back.

    Args:
        body (nn.ModuleDict): Backbone and neck.
        maps (Sequence[Tensor]): Their output for two photos.
        roi_head (dict): Config of the RoI head of `SoCo`.

    Returns:
        tuple[int, list[str]]: The length of an object feature, and the modules of backbone and neck
        without a gradient.

    Raises:
        ValueError: If the RoI head cannot be built or does not run.
    """
    head = build(roi_head, 'RoI head')
    border = [0, *getattr(head.bbox_roi_extractor, 'level_sizes', ())]
    boxes = torch.tensor([[0, 0, side + 1, side + 1] for side in border], dtype=torch.float32)
    try:
        features = head(maps, boxes.expand(2, -1, -1))
    except Exception as error:
        raise ValueError(f'{type(error).__name__}: {error}') from error
    features.sum().backward()
    untrained = [name for name, p in head.named_parameters() if p.grad is None]
    if untrained:
        raise ValueError(f'{len(untrained)} of its tensors, such as {untrained[0]}, get no gradient')
    return features.shape[-1], without_gradient(body)


def without_gradient(module: nn.Module, name: str = '') -> list[str]:
    """Return the names of the largest modules and of parameters that no gradient has reached."""
    parameters = list(module.parameters())
    if not parameters or all(p.grad is not None for p in parameters):
        return []
    if name and all(p.grad is None for p in parameters):
        return [name]
    prefix = f'{name}.' if name else ''
    own = [prefix + key for key, p in module.named_parameters(recurse=False) if p.grad is None]
    return own + [found for key, child in module.named_children()
                  for found in without_gradient(child, prefix + key)]
