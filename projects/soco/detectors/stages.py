"""The first stages of a backbone, which can stay as they are loaded."""
from itertools import pairwise

import torch

from .build import build
from .parts import modules_where
from .read import arguments_of

_NAME = 'backbone'


def first_stages(config: dict, count: int, side: int) -> list[str]:
    """Find the modules of a backbone's first stages.

    Classes with `frozen_stages` say so themselves, and count as they do in a detector's config. For
    others, such as those of timm, the stages are those of the maps that the backbone returns: stage n
    is what the n-th map is computed from and the map before is not.

    Args:
        config (dict): Config of the backbone, with nothing frozen.
        count (int): Number of stages, at least 1; the stem belongs to the first.
        side (int): Side of the photos to run the backbone on, in pixels.

    Returns:
        list[str]: Names of modules and parameters in `SoCo`, such as 'backbone.layer1'.

    Raises:
        ValueError: If the backbone has fewer stages, or no stages that follow each other.
    """
    if count < 1:
        raise ValueError(f'--freeze must be at least 1 stage of the backbone, not {count}. Omit it to '
                         'train all stages.')
    with torch.random.fork_rng(devices=[]):  # keep the caller's random state
        if 'frozen_stages' in arguments_of(config['type']):
            return _by_its_class(config, count)
        return _by_its_maps(config, count, side)


def _by_its_class(config: dict, count: int) -> list[str]:
    try:
        backbone = build({**config, 'frozen_stages': count}, _NAME)
        backbone.train()  # some classes freeze only here
    except Exception as error:
        raise ValueError(f'--freeze {count}: {config["type"]} does not have {count} stages to freeze '
                         f'({error}). Use a smaller number.') from error
    found = modules_where(backbone, lambda p: not p.requires_grad, _NAME)
    if not found:
        raise ValueError(f'--freeze {count}: {config["type"]} has a setting frozen_stages, which '
                         'freezes nothing. Omit --freeze, and use --backbone-rate instead.')
    return found


def _by_its_maps(config: dict, count: int, side: int) -> list[str]:
    backbone = build(config, _NAME)
    maps = backbone(torch.randn(2, 3, side, side))
    reached = []
    for level in maps:
        backbone.zero_grad()
        level.sum().backward(retain_graph=True)
        reached.append({id(p) for p in backbone.parameters() if p.grad is not None})
    if any(not earlier < later for earlier, later in pairwise(reached)):
        raise ValueError(
            f'--freeze {count}: the maps of {config["type"]} are not computed one after another (each '
            'depends on the branches of others), so it has no first stages. Omit --freeze, and use '
            '--backbone-rate instead.')
    if count > len(maps):
        raise ValueError(f'--freeze {count}: {config["type"]} returns {len(maps)} maps, so it has as '
                         'many stages to freeze. Use a smaller number.')
    return modules_where(backbone, lambda p: id(p) in reached[count - 1], _NAME)
