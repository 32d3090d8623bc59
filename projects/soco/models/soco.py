"""SoCo: Selective Object COntrastive learning (arXiv 2106.02637).

Letters used in shapes: N images, K proposals per pair, V views, P = V - 1 pairs (the first view with
each other view), C channels.
"""
import copy
import inspect
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from mmselfsup.models import BaseModel
from mmselfsup.registry import MODELS
from torch import Tensor, nn

from ..compat.memory_format import use_channels_last
from .roi_heads import level_name

ONLINE_PARTS = ('backbone', 'neck', 'roi_head', 'projector')  # modules that the target copies


@MODELS.register_module()
class SoCo(BaseModel):
    """Pretrain backbone, neck and RoI head by predicting an object's features in another view.

    The online modules have the same names as in an mmdet detector, so that exporting them selects keys
    but renames none. The target network is their moving average; `MomentumUpdateHook` decides when it
    is updated.

    Args:
        backbone (dict): Config of an mmdet backbone.
        roi_head (dict): Config of a `SoCoRoIHead` or `SoCoC4RoIHead`.
        projector (dict): Config of the projector from object features to projections, a
            `NonLinearNeck`.
        head (dict): Config of predictor and loss, a `LatentPredictHead`.
        neck (dict | list, optional): Config of a `SoCoFPN`, or of a neck of mmdet or a list of them.
            Defaults to None (C4).
        data_preprocessor (dict, optional): Config of a `SoCoDataPreprocessor`. Defaults to None.
        regulariser (dict, optional): A term on the online projections of each view that keeps them
            from collapsing into a few directions, such as `VarianceCovariance`. Defaults to None:
            the paper's loss alone.
        channels_last (bool): Whether to keep weights and views in channels_last memory, in which
            convolutions are faster. BN sums in another order, so results differ by rounding. Networks
            for which it is not safe stay as they are (`use_channels_last`). Defaults to False.
        compile_features (bool): Whether to compile backbone and neck with torch.compile, once for each
            size of the views. Its gain on a GPU is not measured. Defaults to False.
        frozen (Sequence[str]): Names of modules and parameters that are not trained, such as
            'backbone.layer1', a stage that stays as it is loaded, or 'neck.fpn_convs.3', a level that
            no box reaches. They get no gradient and stay in eval mode, in the target too, so that
            norms keep their statistics. Defaults to none.
        init_cfg (dict, optional): Config of the initialisation. Defaults to None.

    Raises:
        ValueError: If a name in `frozen` is not one of a module or parameter with weights.
    """

    def __init__(self, backbone: dict, roi_head: dict, projector: dict, head: dict,
                 neck: dict | list | None = None, data_preprocessor: dict | None = None,
                 regulariser: dict | None = None, channels_last: bool = False,
                 compile_features: bool = False, frozen: Sequence[str] = (),
                 init_cfg: dict | None = None) -> None:
        super().__init__(backbone=backbone, neck=neck, head=head,
                         data_preprocessor=data_preprocessor, init_cfg=init_cfg)
        self.roi_head = MODELS.build(roi_head)
        self.projector = MODELS.build(projector)
        self.regulariser = MODELS.build(regulariser) if regulariser else None
        self._freeze(frozen)
        self.target = nn.ModuleDict(
            {part: copy.deepcopy(getattr(self, part)) for part in ONLINE_PARTS if hasattr(self, part)})
        self.target.requires_grad_(False)
        self.memory_format = use_channels_last(self) if channels_last else torch.contiguous_format
        if compile_features:
            for net in (self, self.target):
                for part in ('backbone', 'neck'):
                    if part in self.target:
                        getattr(net, part).compile(dynamic=False)  # names and tensors stay
        self._register_load_state_dict_pre_hook(self.fill_target)

    def _freeze(self, names: Sequence[str]) -> None:
        self.frozen = tuple(names)
        for name in names:
            found = [p for key, p in self.named_parameters() if _is_inside(key, [name])]
            if not found:
                raise ValueError(f'model.frozen names {name!r}, which is no module or parameter of '
                                 'this model.')
            for parameter in found:
                parameter.requires_grad_(False)

    def train(self, mode: bool = True) -> 'SoCo':
        """Set the mode of all modules but the frozen ones, which stay in eval mode."""
        super().train(mode)
        for name, module in self.named_modules() if self.frozen else ():
            if module.training and _is_inside(name.removeprefix('target.'), self.frozen):
                module.eval()
        return self

    def init_weights(self) -> None:
        """Initialise the online network and copy it to the target."""
        super().init_weights()
        self.copy_to_target()

    def copy_to_target(self) -> None:
        """Copy the online network, including BN statistics, to the target."""
        for part, module in self.target.items():
            module.load_state_dict(getattr(self, part).state_dict())

    def fill_target(self, state_dict: dict[str, Tensor], prefix: str = '',
                    *args: Any) -> None:
        """Add the online network's weights as the target's, unless there are weights of a target.

        The target of a frozen module is always the module itself.

        Args:
            state_dict (dict[str, Tensor]): Weights by name; it is changed in place.
            prefix (str): What comes before this model's names. Defaults to ''.
            *args (Any): What PyTorch passes to a hook before it loads a state dict.
        """
        has_target = any(key.startswith(f'{prefix}target.') for key in state_dict)
        for part in self.target:
            for key in [k for k in state_dict if k.startswith(f'{prefix}{part}.')]:
                name = key[len(prefix):]
                if not has_target or _is_inside(name, self.frozen):
                    state_dict[f'{prefix}target.{name}'] = state_dict[key]

    @torch.no_grad()
    def momentum_update(self, momentum: float) -> None:
        """Update the target's parameters: `target = momentum * target + (1 - momentum) * online`.

        Buffers are not changed: the target keeps its own BN statistics (official behaviour).

        Args:
            momentum (float): Share of the target that is kept, within [0, 1].
        """
        online = [p for part in self.target for p in getattr(self, part).parameters()]
        torch._foreach_lerp_(list(self.target.parameters()), online, 1 - momentum)

    def forward(self, inputs: list[Tensor], bboxes: Tensor,
                finest_levels: Sequence[int] | None = None,
                mode: str = 'tensor') -> dict[str, Tensor] | list[Tensor]:
        """Run the model on a prepared batch.

        Args:
            inputs (list[Tensor]): V views (N, 3, H_v, W_v).
            bboxes (Tensor): (N, P, 2, K, 4), x1 y1 x2 y2 in pixels of the view; row i of
                `bboxes[n, p, 0]` (first view) and of `bboxes[n, p, 1]` (view p + 2) are the same
                object. Best kept on the CPU, see `SoCoRoIExtractor`.
            finest_levels (Sequence[int], optional): Index of the finest pyramid level to compute for
                each view, 0 being the neck's finest; smaller boxes are pooled from this level. The
                batch contains the values that the config sets (`finest_level` in the views of
                `ProposalViews`), so that all ranks compute the same levels, whatever boxes a batch
                has. Defaults to None: all levels of every view.
            mode (str): 'loss' for the losses; 'tensor' for the online object features. Defaults to
                'tensor'.

        Returns:
            dict[str, Tensor] | list[Tensor]: The output of `loss`, or the object features of each
                view, see `extract_feat`.

        Raises:
            ValueError: If `mode` is neither of the two.
        """
        if mode == 'loss':
            return self.loss(inputs, bboxes, finest_levels)
        if mode == 'tensor':
            return self.extract_feat(inputs, bboxes, finest_levels)[0]
        raise ValueError(f"SoCo has the modes 'loss' and 'tensor', not {mode!r}.")

    def extract_feat(self, inputs: list[Tensor], bboxes: Tensor,
                     finest_levels: Sequence[int] | None = None,
                     target: bool = False) -> tuple[list[Tensor], list[Tensor]]:
        """Return the object features and the projections of each view's boxes.

        Args:
            inputs (list[Tensor]): V views (N, 3, H_v, W_v).
            bboxes (Tensor): (N, P, 2, K, 4) in pixels of the view.
            finest_levels (Sequence[int], optional): See `forward`. Defaults to None.
            target (bool): Whether to run the target network. Defaults to False.

        Returns:
            tuple: Two lists over the views: object features (B, N, K, D) and projections
            (B, N, K, C), where B = P for the first view, whose boxes of all pairs go through the
            RoI head together, and B = 1 for the others.

        Raises:
            ValueError: If `finest_levels` does not fit the views or the neck.
        """
        finest_levels = self._checked(finest_levels, len(inputs))
        net = self.target if target else self
        obj_feats, projs = [], []
        for v, view in enumerate(inputs):
            boxes = bboxes[:, :, 0] if v == 0 else bboxes[:, v - 1:v, 1]  # (N, B, K, 4)
            n, b, k, _ = boxes.shape
            feats = net.backbone(view.contiguous(memory_format=self.memory_format))
            if self.with_neck:
                feats = net.neck(feats, finest_levels[v]) if finest_levels[v] else net.neck(feats)
            obj = net.roi_head(feats, boxes.flatten(1, 2))  # (N * B * K, D)
            proj = net.projector([obj])[0]
            obj_feats.append(obj.view(n, b, k, -1).transpose(0, 1))
            projs.append(proj.view(n, b, k, -1).transpose(0, 1))
        return obj_feats, projs

    def _checked(self, finest_levels: Sequence[int] | None, num_views: int) -> Sequence[int]:
        """Check that the neck has these levels and that one view has level 0, and return them."""
        levels = self.num_levels
        finest_levels = [0] * num_views if finest_levels is None else finest_levels
        if len(finest_levels) != num_views or min(finest_levels) or max(finest_levels) >= levels:
            raise ValueError(
                f'The views have finest_level = {list(finest_levels)}: each of the {num_views} views '
                f'needs one of the {levels} levels of this model, and at least one view needs 0, or '
                'the finest level would never be trained.')
        neck = self.neck if self.with_neck else None
        if max(finest_levels) and (
                neck is None or 'finest' not in inspect.signature(neck.forward).parameters):
            raise ValueError(
                f'The views have finest_level = {list(finest_levels)}, but '
                f'{type(neck or self.backbone).__name__} always computes all of its levels; SoCoFPN '
                'can leave some out. Remove finest_level from the views of ProposalViews.')
        return finest_levels

    @property
    def num_levels(self) -> int:
        """Number of levels from which boxes are pooled."""
        return self.roi_head.bbox_roi_extractor.num_inputs

    @property
    def level_names(self) -> list[str]:
        """Names of the pyramid levels by their strides, finest first; see `level_name`."""
        return [level_name(stride) for stride in self.roi_head.bbox_roi_extractor.featmap_strides]

    def box_levels(self, bboxes: Tensor, finest_levels: Sequence[int] | None = None) -> Tensor | None:
        """Return the level from which each box (..., P, 2, K, 4) is pooled; None without a pyramid."""
        if not self.with_neck and self.num_levels == 1:
            return None
        return assign_levels(self.roi_head.bbox_roi_extractor, bboxes, finest_levels)

    def loss(self, inputs: list[Tensor], bboxes: Tensor,
             finest_levels: Sequence[int] | None = None) -> dict[str, Tensor]:
        """Compare each object's prediction with its projection in the other view, both ways.

        Args:
            inputs (list[Tensor]): V views (N, 3, H_v, W_v).
            bboxes (Tensor): (N, P, 2, K, 4) in pixels of the view.
            finest_levels (Sequence[int], optional): See `forward`. Defaults to None.

        Returns:
            dict[str, Tensor]: `loss_12`, `loss_13`, ...: one per pair, each within [-4, 4];
            `loss_regulariser`, the sum over the views, where the model has a regulariser; and the
            spread of the first view's object features (see `feature_spread`): `obj_std` of the online
            network, `obj_std_target` of the target.
        """
        obj_feats, online = self.extract_feat(inputs, bboxes, finest_levels)
        with torch.no_grad():
            target_feats, target = self.extract_feat(inputs, bboxes, finest_levels, target=True)
        losses = {}
        for p in range(bboxes.shape[1]):
            first, other = online[0][p].flatten(0, 1), online[p + 1][0].flatten(0, 1)  # (N * K, C)
            losses[f'loss_1{p + 2}'] = (
                self.head(first, target[p + 1][0].flatten(0, 1)) +
                self.head(other, target[0][p].flatten(0, 1)))
        if self.regulariser is not None:
            losses['loss_regulariser'] = sum(
                self.regulariser(projections.flatten(0, 2)) for projections in online)
        losses['obj_std'] = feature_spread(obj_feats[0].detach().flatten(0, 2))
        losses['obj_std_target'] = feature_spread(target_feats[0].flatten(0, 2))
        return losses


def _is_inside(name: str, modules: Sequence[str]) -> bool:
    """Return whether a name is that of one of these modules or parameters, or of a part of it."""
    return any(f'{name}.'.startswith(f'{module}.') for module in modules)


def assign_levels(extractor: nn.Module, bboxes: Tensor,
                  finest_levels: Sequence[int] | None = None) -> Tensor:
    """Return the pyramid level from which each box of a batch is pooled.

    Args:
        extractor (nn.Module): A `SoCoRoIExtractor`.
        bboxes (Tensor): (..., P, 2, K, 4), x1 y1 x2 y2 in pixels of the view.
        finest_levels (Sequence[int], optional): See `SoCo.forward`. Defaults to None.

    Returns:
        Tensor: (..., P, 2, K) int64, 0 being the finest level.
    """
    rois = F.pad(bboxes.reshape(-1, 4), (1, 0))
    levels = extractor.map_roi_levels(rois, extractor.num_inputs).view(bboxes.shape[:-1])
    if finest_levels is not None:
        for pair, finest in enumerate(finest_levels[1:]):
            levels[..., pair, 0, :].clamp_min_(finest_levels[0])
            levels[..., pair, 1, :].clamp_min_(finest)
    return levels


def feature_spread(features: Tensor) -> Tensor:
    """Measure the spread of normalised features (n, D), to detect collapse.

    Args:
        features (Tensor): (n, D), not normalised.

    Returns:
        Tensor: The root of the mean squared distance of the unit vectors to their mean, a scalar
        within [0, 1]: 0 if all have the same direction (collapse), near 1 if they have all directions.
    """
    unit = F.normalize(features.float(), dim=1)
    # not 1 - ..., which would give dead features (all zero) a spread of 1
    spread = unit.square().sum(dim=1).mean() - unit.mean(dim=0).square().sum()
    return spread.clamp_min(0).sqrt()
