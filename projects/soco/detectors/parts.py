"""What of a detector can be pretrained, found by building and running its own modules.

Letters used in shapes: N images, C channels, D length of an object feature.
"""
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from mmengine.config import Config
from torch import Tensor, nn

from .build import build
from .heads import choose_head, level_sizes, run_head, without_own_layers
from .read import lifted, plain

LARGER_VIEWS = (256, 320, 512)  # sides to try if a detector does not run on the recipe's views


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
        kept (list[str]): Modules of the backbone that stay as they are loaded.
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
    kept: list[str] = field(default_factory=list)
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
    head = choose_head(detectors_head, maps, indices, strides, sizes)
    try:
        length = run_head(head.config, maps)
    except ValueError as error:
        head = without_own_layers(head, str(error))
        length = run_head(head.config, maps)
    return Parts(
        backbone=backbone, neck=neck, roi_head=head.config, sizes=sizes, feature_length=length,
        strides=tuple(strides), prefixes={**{f'{name}.': (f'{name}.', ) for name in body},
                                          **head.prefixes},
        frozen=without_gradient(body), reasons=head.reasons, notes=[*notes, *of_neck, *head.notes])


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


def without_gradient(module: nn.Module) -> list[str]:
    """Return the names of the largest modules and of parameters that no gradient has reached."""
    return modules_where(module, lambda parameter: parameter.grad is None)


def modules_where(module: nn.Module, holds: Callable[[nn.Parameter], bool],
                  name: str = '') -> list[str]:
    """Return the names of the largest modules of which something holds for all parameters.

    Args:
        module (nn.Module): A network.
        holds (Callable[[nn.Parameter], bool]): What holds for a parameter or not.
        name (str): Name of the module itself. Defaults to '': it is not named, only its children.

    Returns:
        list[str]: The names, also those of single parameters of a module for which it does not hold
        as a whole.
    """
    parameters = list(module.parameters())
    if not any(map(holds, parameters)):
        return []
    if name and all(map(holds, parameters)):
        return [name]
    prefix = f'{name}.' if name else ''
    own = [prefix + key for key, p in module.named_parameters(recurse=False) if holds(p)]
    return own + [found for key, child in module.named_children()
                  for found in modules_where(child, holds, prefix + key)]
