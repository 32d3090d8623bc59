"""A training step in the structure of the official release, for `tools/benchmark_step.py --reference`.

The model is `reference.SoCo` in mode 'all_levels': every box is pooled from all four levels and passes
through head, projector and predictor, with one pass per pair and level. The loss masks out three
quarters of the results. The moving average is a loop over the tensors that allocates memory. LARS is a
loop that waits for the device before it scales a tensor. General PyTorch features (its SGD, mixed
precision, channels_last) are used by the reference as well.
"""

import torch
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope
from torch import Tensor

import reference
from projects.soco.datasets.transforms import transform_in
from projects.soco.evaluation.step import Contender, with_precision


class OfficialSoCo(reference.SoCo):
    """The reference with the official loss, which masks rows instead of selecting them.

    Args:
        level_sizes (tuple): Largest box size of every level but the last, in pixels of the view.
        **kwargs: See `reference.SoCo`.
    """

    def __init__(self, level_sizes: tuple = reference.LEVEL_BORDERS, **kwargs) -> None:
        super().__init__(**kwargs)
        self.register_buffer('level_sizes', torch.tensor(level_sizes), persistent=False)
        self.memory_format = torch.contiguous_format

    def keep_own_level(self, of_level: list[Tensor], boxes: Tensor) -> Tensor:
        """Select by a mask: (R, C) of every level and boxes (N, K, 4) -> (R, C)."""
        if self.is_c4:
            return of_level[0]
        size = (boxes[..., 2:] - boxes[..., :2]).prod(dim=-1).sqrt().flatten()
        own = torch.bucketize(size, self.level_sizes)
        mask = torch.arange(len(of_level), device=own.device)[:, None] == own  # (levels, R)
        return (torch.stack(of_level) * mask[..., None]).sum(dim=0)

    def loss(self, inputs: list[Tensor], bboxes: Tensor,
             finest_levels: object = None) -> dict[str, Tensor]:
        """Return the losses per view pair, like the project's model."""
        bboxes = bboxes.to(inputs[0].device, non_blocking=True)
        inputs = [view.contiguous(memory_format=self.memory_format) for view in inputs]
        losses = self(inputs, bboxes, mode='all_levels')
        return {key: value for key, value in losses.items() if key != 'loss'}


class OfficialLARS(torch.optim.SGD):
    """LARS scaling tensor by tensor, followed by PyTorch's SGD.

    Args:
        params (Iterable): Parameters or parameter groups.
        lr (float): Learning rate.
        momentum (float): Momentum of SGD. Defaults to 0.9.
        weight_decay (float): Weight decay of tensors with two or more dimensions. Defaults to 1e-5.
        trust_coefficient (float): Ratio of the scaled gradient's norm to the tensor's norm. Defaults to
            0.001.
        eps (float): Added to the gradient's norm. Defaults to 1e-8.
    """

    def __init__(self, params, lr: float, momentum: float = 0.9, weight_decay: float = 1e-5,
                 trust_coefficient: float = 0.001, eps: float = 1e-8) -> None:
        super().__init__(params, lr=lr, momentum=momentum)
        self.decay, self.trust_coefficient, self.eps = weight_decay, trust_coefficient, eps

    @torch.no_grad()
    def step(self) -> None:
        """Perform one optimizer step."""
        for group in self.param_groups:
            for p in group['params']:
                if p.grad is None or p.ndim <= 1:
                    continue
                p.grad = p.grad + self.decay * p
                p_norm, g_norm = torch.norm(p), torch.norm(p.grad)
                if p_norm > 0 and g_norm > 0:  # the host waits for the device, twice
                    p.grad = p.grad * (self.trust_coefficient * p_norm / (g_norm + self.eps))
        super().step()


def build_official(cfg: Config) -> OfficialSoCo:
    """Build the reference with the widths of a pretraining config.

    Raises:
        ValueError: If the official code has no such model (an ablation without box head).
    """
    model, views = cfg.model, len(transform_in(cfg, 'ProposalViews').views)
    arch, mlp = f'resnet{model.backbone.depth}', model.projector
    widths = dict(arch=arch, hidden=mlp.hid_channels, projection=mlp.out_channels)
    if model.roi_head.type == 'SoCoC4RoIHead':
        return OfficialSoCo(kind='SoCo_C4', fpn_channels=0, head_channels=0, fc_channels=0, **widths)
    kind = {3: 'SoCo_FPN', 4: 'SoCo_FPN_Star'}.get(views)
    if kind is None or not model.get('neck') or not model.roi_head.get('bbox_head'):
        raise ValueError('This config is not the official SoCo-FPN, SoCo* or SoCo-C4, so there is no '
                         'reference for it. Leave out --reference.')
    extractor, head = model.roi_head.bbox_roi_extractor, model.roi_head.bbox_head
    return OfficialSoCo(
        kind=kind, fpn_channels=model.neck.out_channels, head_channels=head.conv_out_channels,
        fc_channels=head.fc_out_channels,
        level_sizes=tuple(float(size) for size in extractor.level_sizes), **widths)


def official_contender(cfg: Config, device: torch.device, amp: str,
                       channels_last: bool = False) -> Contender:
    """Build the reference and its optimiser for the recipe of a pretraining config.

    The views come from the project's preprocessor.

    Args:
        cfg (Config): A pretraining config with `SoCoLARS`.
        device (torch.device): The device to run on.
        amp (str): 'no', 'fp16' or 'bf16'.
        channels_last (bool): Memory format of weights and views. Defaults to False.

    Raises:
        ValueError: If the config is not an official recipe.
    """
    settings = dict(cfg.optim_wrapper.optimizer)
    if settings.pop('type') != 'SoCoLARS':
        raise ValueError('This config does not train with LARS, but the reference does. Use one of the '
                         'recipes, or leave out --reference.')
    model = build_official(cfg).to(device).train()
    model.memory_format = torch.channels_last if channels_last else torch.contiguous_format
    model.to(memory_format=model.memory_format)
    optimizer = OfficialLARS([p for p in model.parameters() if p.requires_grad], **settings)
    head = ['encoder.layer4', 'encoder_k.layer4'] if model.is_c4 else ['head', 'head_k']
    stages = {'backbone': ['encoder', 'encoder_k'], 'neck': ['neck', 'neck_k'],
              'roi_head': ['roi_features', *head], 'projector': ['projector', 'projector_k'],
              'loss': ['loss', 'predictor']}
    if model.is_c4:
        del stages['neck']
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        preprocess = MODELS.build(cfg.model.data_preprocessor).to(device)
    return Contender(model, preprocess, with_precision(optimizer, device, amp), 'update_target', stages)
