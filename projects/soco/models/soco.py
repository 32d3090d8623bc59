"""SoCo: Selective Object COntrastive learning (arXiv 2106.02637).

Letters used in shapes: N images, K proposals a pair, V views, P = V - 1 pairs (the first view with
each other one), C channels.
"""
import copy
from typing import Dict, List, Optional, Sequence, Tuple

import torch
import torch.nn.functional as F
from mmselfsup.models import BaseModel
from mmselfsup.registry import MODELS
from torch import Tensor, nn

ONLINE_PARTS = ('backbone', 'neck', 'roi_head', 'projector')  # what the target is a copy of


@MODELS.register_module()
class SoCo(BaseModel):
    """Learn backbone, neck and RoI head by predicting an object's features in another view.

    The online modules bear the names that they have in an mmdet detector, so that handing them over
    is a filter and not a renaming. The target network is a moving average of them; *when* it moves
    is `MomentumUpdateHook`'s business.

    Args:
        backbone (dict): An mmdet backbone.
        roi_head (dict): `SoCoRoIHead` or `SoCoC4RoIHead`.
        projector (dict): From object features to projections: `NonLinearNeck`.
        head (dict): Predictor and loss: `LatentPredictHead`.
        neck (dict, optional): `SoCoFPN`. Defaults to None (C4).
        data_preprocessor (dict, optional): `SoCoDataPreprocessor`.
        finest_levels (Sequence[int], optional): For each view the finest pyramid level that is made
            of it, 0 being P2; boxes of finer levels are pooled from that one. It says what is
            computed, whatever boxes a batch has, so all ranks do the same. Defaults to None: all
            levels of every view.
        channels_last (bool): Keep weights and views in channels_last memory, in which convolutions
            are quicker; BN adds up in another order, so numbers differ by rounding. Defaults to
            False.
        init_cfg (dict, optional): Initialisation.

    Raises:
        ValueError: `finest_levels` is not one level per view, or leaves out a level everywhere.
    """

    def __init__(self, backbone: dict, roi_head: dict, projector: dict, head: dict,
                 neck: Optional[dict] = None, data_preprocessor: Optional[dict] = None,
                 finest_levels: Optional[Sequence[int]] = None, channels_last: bool = False,
                 init_cfg: Optional[dict] = None) -> None:
        super().__init__(backbone=backbone, neck=neck, head=head,
                         data_preprocessor=data_preprocessor, init_cfg=init_cfg)
        self.roi_head = MODELS.build(roi_head)
        self.projector = MODELS.build(projector)
        if finest_levels is not None:
            views, levels = data_preprocessor['views'], neck['in_channels'] if neck else []
            if (len(finest_levels) != len(views) or min(finest_levels) != 0
                    or max(finest_levels) >= len(levels)):
                raise ValueError(
                    f'finest_levels = {list(finest_levels)} must hold one of the {len(levels)} levels '
                    f'of the neck for each of the {len(views)} views, and 0 for at least one, or the '
                    'finest level would never be trained.')
        self.finest_levels = finest_levels
        self.target = nn.ModuleDict(
            {part: copy.deepcopy(getattr(self, part)) for part in ONLINE_PARTS if hasattr(self, part)})
        self.target.requires_grad_(False)
        self.memory_format = torch.channels_last if channels_last else torch.contiguous_format
        self.to(memory_format=self.memory_format)
        self._register_load_state_dict_pre_hook(self._fill_target)

    def init_weights(self) -> None:
        """Initialise the online network and copy it to the target."""
        super().init_weights()
        self.copy_to_target()

    def copy_to_target(self) -> None:
        """Make the target a copy of the online network, BN statistics included."""
        for part, module in self.target.items():
            module.load_state_dict(getattr(self, part).state_dict())

    def _fill_target(self, state_dict: Dict[str, Tensor], prefix: str, *args) -> None:
        """Let weights that hold no target start it as a copy of the online network."""
        if any(key.startswith(f'{prefix}target.') for key in state_dict):
            return
        for part in self.target:
            for key in [k for k in state_dict if k.startswith(f'{prefix}{part}.')]:
                state_dict[f'{prefix}target.{key[len(prefix):]}'] = state_dict[key]

    @torch.no_grad()
    def momentum_update(self, momentum: float) -> None:
        """Move the target's parameters: `target = momentum * target + (1 - momentum) * online`.

        Buffers stay: the target keeps its own BN statistics (official behaviour).

        Args:
            momentum (float): Share of the target that is kept, within [0, 1].
        """
        online = [p for part in self.target for p in getattr(self, part).parameters()]
        torch._foreach_lerp_(list(self.target.parameters()), online, 1 - momentum)

    def forward(self, inputs: List[Tensor], bboxes: Tensor, mode: str = 'tensor'):
        """Run the model on a prepared batch.

        Args:
            inputs (list[Tensor]): V views (N, 3, H_v, W_v).
            bboxes (Tensor): (N, P, 2, K, 4), x1 y1 x2 y2 in pixels of the view; row i of
                `bboxes[n, p, 0]` (first view) and of `bboxes[n, p, 1]` (view p + 2) are one object.
                Best on the CPU, see `SoCoRoIExtractor`.
            mode (str): 'loss' for the losses; 'tensor' for the online object features.
        """
        if mode == 'loss':
            return self.loss(inputs, bboxes)
        if mode == 'tensor':
            return self.extract_feat(inputs, bboxes)[0]
        raise ValueError(f"SoCo has the modes 'loss' and 'tensor', not {mode!r}.")

    def extract_feat(self, inputs: List[Tensor], bboxes: Tensor,
                     target: bool = False) -> Tuple[List[Tensor], List[Tensor]]:
        """Return the object features and the projections of each view's boxes.

        Args:
            inputs (list[Tensor]): V views (N, 3, H_v, W_v).
            bboxes (Tensor): (N, P, 2, K, 4) in pixels of the view.
            target (bool): Run the target network. Defaults to False.

        Returns:
            tuple: Two lists over the views: object features (B, N, K, D) and projections
            (B, N, K, C), where B = P for the first view, whose boxes of all pairs go through the
            RoI head together, and B = 1 for the others.
        """
        net = self.target if target else self
        obj_feats, projs = [], []
        for v, view in enumerate(inputs):
            boxes = bboxes[:, :, 0] if v == 0 else bboxes[:, v - 1:v, 1]  # (N, B, K, 4)
            n, b, k, _ = boxes.shape
            feats = net.backbone(view.contiguous(memory_format=self.memory_format))
            if self.finest_levels is not None:
                feats = net.neck(feats, self.finest_levels[v])
            elif self.with_neck:
                feats = net.neck(feats)
            obj = net.roi_head(feats, boxes.flatten(1, 2))  # (N * B * K, D)
            proj = net.projector([obj])[0]
            obj_feats.append(obj.view(n, b, k, -1).transpose(0, 1))
            projs.append(proj.view(n, b, k, -1).transpose(0, 1))
        return obj_feats, projs

    def box_levels(self, bboxes: Tensor) -> Optional[Tensor]:
        """Tell from which level each box (..., P, 2, K, 4) is pooled; None without a pyramid."""
        if not self.with_neck:
            return None
        return assign_levels(self.roi_head.bbox_roi_extractor, bboxes, self.finest_levels)

    def loss(self, inputs: List[Tensor], bboxes: Tensor) -> Dict[str, Tensor]:
        """Compare each object's prediction with its projection in the other view, both ways.

        Returns:
            dict: `loss_12`, `loss_13`, ...: one per pair, each within [-4, 4]; and the spread of the
            first view's object features (see `feature_spread`): `obj_std` of the online network,
            `obj_std_target` of the target.
        """
        obj_feats, online = self.extract_feat(inputs, bboxes)
        with torch.no_grad():
            target_feats, target = self.extract_feat(inputs, bboxes, target=True)
        losses = {}
        for p in range(bboxes.shape[1]):
            first, other = online[0][p].flatten(0, 1), online[p + 1][0].flatten(0, 1)  # (N * K, C)
            losses[f'loss_1{p + 2}'] = (
                self.head(first, target[p + 1][0].flatten(0, 1)) +
                self.head(other, target[0][p].flatten(0, 1)))
        losses['obj_std'] = feature_spread(obj_feats[0].detach().flatten(0, 2))
        losses['obj_std_target'] = feature_spread(target_feats[0].flatten(0, 2))
        return losses


def assign_levels(extractor: nn.Module, bboxes: Tensor,
                  finest_levels: Optional[Sequence[int]] = None) -> Tensor:
    """Tell from which pyramid level each box of a batch is pooled.

    Args:
        extractor (nn.Module): A `SoCoRoIExtractor`.
        bboxes (Tensor): (..., P, 2, K, 4), x1 y1 x2 y2 in pixels of the view.
        finest_levels (Sequence[int], optional): As `SoCo` takes them. Defaults to None.

    Returns:
        Tensor: (..., P, 2, K) int64, 0 being the finest level, P2.
    """
    rois = F.pad(bboxes.reshape(-1, 4), (1, 0))
    levels = extractor.map_roi_levels(rois, extractor.num_inputs).view(bboxes.shape[:-1])
    if finest_levels is not None:
        for pair, finest in enumerate(finest_levels[1:]):
            levels[..., pair, 0, :].clamp_min_(finest_levels[0])
            levels[..., pair, 1, :].clamp_min_(finest)
    return levels


def feature_spread(features: Tensor) -> Tensor:
    """Measure how far normalised features (n, D) lie apart: the collapse alarm.

    Returns:
        Tensor: The root of the mean squared distance of the unit vectors to their mean, a scalar
        within [0, 1]: 0 when all point the same way (collapse), near 1 when they point everywhere.
    """
    unit = F.normalize(features.float(), dim=1)
    # not 1 - ..., or dead features, which are all zero, would seem to point everywhere
    spread = unit.square().sum(dim=1).mean() - unit.mean(dim=0).square().sum()
    return spread.clamp_min(0).sqrt()
