"""The cost of a recipe: parameters, and floating-point operations of a training step."""
from collections.abc import Mapping
from typing import NamedTuple

import torch
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from ..compat.cpu import cpu_config
from ..datasets.transforms import transform_in
from ..launch.configs import find_hook
from ..models.soco import SoCo
from ..weights.convert import for_detector
from ..weights.match import WeightsReport, fit_names, match_weights


class Cost(NamedTuple):
    """The cost of a recipe; see `measure_cost`.

    Args:
        parameters (int): Parameters of the online network, predictor included.
        gflop (float): GFLOP per image and step.
        state (dict[str, Tensor]): The model's state dict.
    """

    parameters: int
    gflop: float
    state: dict[str, Tensor]


def made_up_batch(cfg: Config, batch_size: int) -> tuple[list[Tensor], Tensor]:
    """Make noise views and random boxes with the sizes of a recipe's pipeline.

    Args:
        cfg (Config): A pretraining config.
        batch_size (int): Number of images, N.

    Returns:
        tuple[list[Tensor], Tensor]: V views (N, 3, H_v, W_v), and boxes (N, P, 2, K, 4) in pixels of
        the view, with sides of 0.3 to 0.8 of the view.
    """
    transform = transform_in(cfg, 'ProposalViews')
    sizes = [view['size'] for view in transform.views]
    generator = torch.Generator().manual_seed(0)
    views = [torch.randn(batch_size, 3, s, s, generator=generator) for s in sizes]
    shape = (batch_size, len(sizes) - 1, 1, transform.num_proposals, 2)
    side = 0.3 + 0.5 * torch.rand(shape, generator=generator)
    corner = torch.rand(shape, generator=generator) * (1 - side)
    boxes = torch.cat([corner, corner + side], dim=-1).expand(-1, -1, 2, -1, -1)
    scale = torch.tensor([[sizes[0], size] for size in sizes[1:]], dtype=torch.float32)
    return views, boxes * scale.view(1, -1, 2, 1, 1)


def measure_cost(cfg: Config, batch_size: int = 2) -> Cost:
    """Count the operations of one training step on the CPU: forward, target's forward, backward.

    Torch's `FlopCounterMode` counts convolutions and matrix products. A multiply-add counts as two
    operations. Norms, RoIAlign and the optimiser are not counted.

    Args:
        cfg (Config): A pretraining config, of SoCo or of a method of MMSelfSup on the views of
            `SoCoDataset`.
        batch_size (int): Images in the batch; the result is per image. Defaults to 2.

    Returns:
        Cost: Parameters, GFLOP per image and step, and the model's state dict.
    """
    cfg = cpu_config(cfg)
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        model = MODELS.build(cfg.model)
    model.train()
    views, boxes = made_up_batch(cfg, batch_size)
    levels = {}
    if isinstance(model, SoCo):
        levels['finest_levels'] = [
            view.get('finest_level', 0) for view in transform_in(cfg, 'ProposalViews').views]
    with FlopCounterMode(display=False) as counter:
        losses = model(views, boxes, mode='loss', **levels)  # a method without boxes ignores them
        sum(value for key, value in losses.items() if key.startswith('loss')).backward()
    parameters = sum(p.numel() for p in model.parameters() if p.requires_grad)
    return Cost(parameters, counter.get_total_flops() / batch_size / 1e9, model.state_dict())


def match_detector(detector: Config, state: dict[str, Tensor],
                   hand_over: Mapping[str, list[str]] | None = None) -> WeightsReport:
    """Match a recipe's weights with a detector's, without training either.

    Args:
        detector (Config): A config of `configs/benchmarks/mmdetection`, or the detector that the recipe
            was derived from.
        state (dict[str, Tensor]): State dict of a SoCo model.
        hand_over (Mapping[str, list[str]], optional): The value of this key in a derived recipe; see
            `for_detector`. Defaults to None: the recipe was not derived.

    Returns:
        WeightsReport: The report that the detector's `PretrainedWeightsHook` would make. For a derived
        recipe, all modules that are handed over are required.
    """
    detector = cpu_config(detector)
    with DefaultScope.overwrite_default_scope(detector.default_scope), torch.device('meta'):
        model_state = MODELS.build(detector.model).state_dict()
    if hand_over:
        weights = for_detector(state, hand_over).state_dict
        return match_weights(model_state, weights, sorted({key.rpartition('.')[0] for key in weights}))
    names = fit_names(model_state, state)
    hook = find_hook(detector, 'PretrainedWeightsHook')
    return match_weights(model_state, {names[k]: v for k, v in state.items()}, hook['require'])
