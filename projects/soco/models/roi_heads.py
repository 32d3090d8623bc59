"""From feature maps and boxes to one feature vector per object."""
from typing import Optional, Sequence, Tuple

import torch
from mmcv.cnn import ConvModule
from mmdet.models.backbones.resnet import BasicBlock, Bottleneck
from mmdet.models.roi_heads.roi_extractors import SingleRoIExtractor
from mmengine.model import BaseModule
from mmselfsup.registry import MODELS
from torch import Tensor, nn


@MODELS.register_module()
class SoCoRoIExtractor(SingleRoIExtractor):
    """Pool each box from one pyramid level, chosen by its size in the view (paper, section 3.2).

    A box whose sqrt(w * h) is at most `level_sizes[i]` pixels, and above the one before, is pooled
    from level i; larger ones from the last. RoIAlign always runs in float32.

    Args:
        level_sizes (Sequence[float]): Largest box size of every level but the last, in pixels of
            the view. Defaults to (48, 96, 192), the official ones.
        **kwargs: See `mmdet.models.roi_heads.SingleRoIExtractor`.
    """

    def __init__(self, *args, level_sizes: Sequence[float] = (48, 96, 192), **kwargs) -> None:
        super().__init__(*args, **kwargs)
        if len(level_sizes) != self.num_inputs - 1 or list(level_sizes) != sorted(level_sizes):
            raise ValueError(f'level_sizes must hold {self.num_inputs - 1} rising sizes, one for '
                             f'every level but the last, not {tuple(level_sizes)}.')
        self.register_buffer('level_sizes', torch.tensor(level_sizes, dtype=torch.float32), False)

    def map_roi_levels(self, rois: Tensor, num_levels: int) -> Tensor:
        """Return the level (k,) of each RoI (k, 5), 0 the finest."""
        size = ((rois[:, 3] - rois[:, 1]) * (rois[:, 4] - rois[:, 2])).clamp_min(0).sqrt()
        return torch.bucketize(size, self.level_sizes)

    def forward(self, feats: Tuple[Tensor], rois: Tensor,
                roi_scale_factor: Optional[float] = None) -> Tensor:
        """Return (k, C, h, w) float32 features of RoIs (k, 5)."""
        with torch.autocast(rois.device.type, enabled=False):
            return super().forward(tuple(f.float() for f in feats), rois.float(), roi_scale_factor)


@MODELS.register_module()
class SoCoBBoxHead(BaseModule):
    """The shared part of mmdet's `Shared4Conv1FCBBoxHead`, key for key.

    mmdet's own class cannot be built without a classifier or a regressor.

    Args:
        in_channels (int): Channels of the RoI features. Defaults to 256.
        num_convs (int): 3x3 convs. Defaults to 4.
        conv_out_channels (int): Their channels. Defaults to 256.
        fc_out_channels (int): Length of the object features. Defaults to 1024.
        roi_feat_size (int): Side of the RoI features. Defaults to 7.
        norm_cfg (dict): Norm after each conv. Defaults to `dict(type='BN')`.
        init_cfg (dict): Defaults to mmdet's: Xavier for the linear layer.
    """

    def __init__(self, in_channels: int = 256, num_convs: int = 4, conv_out_channels: int = 256,
                 fc_out_channels: int = 1024, roi_feat_size: int = 7,
                 norm_cfg: dict = dict(type='BN'),
                 init_cfg: dict = dict(type='Xavier', distribution='uniform', layer='Linear'),
                 ) -> None:
        super().__init__(init_cfg)
        self.shared_convs = nn.ModuleList()
        for _ in range(num_convs):
            self.shared_convs.append(
                ConvModule(in_channels, conv_out_channels, 3, padding=1, norm_cfg=norm_cfg))
            in_channels = conv_out_channels
        self.shared_fcs = nn.ModuleList([nn.Linear(in_channels * roi_feat_size**2,
                                                   fc_out_channels)])

    def forward(self, roi_feats: Tensor) -> Tensor:
        """Turn RoI features (n, C, h, w) into object features (n, D)."""
        for conv in self.shared_convs:
            roi_feats = conv(roi_feats)
        return self.shared_fcs[0](roi_feats.flatten(1)).relu()


def bboxes_to_rois(bboxes: Tensor) -> Tensor:
    """Prefix boxes (N, M, 4) with the index of their image: (N * M, 5)."""
    n, m, _ = bboxes.shape
    index = torch.arange(n, device=bboxes.device, dtype=bboxes.dtype).view(n, 1, 1).expand(n, m, 1)
    return torch.cat([index, bboxes], dim=2).flatten(0, 1)


@MODELS.register_module()
class SoCoRoIHead(BaseModule):
    """Object features from a pyramid: RoIAlign on each box's own level, then the box head.

    Args:
        bbox_roi_extractor (dict): A `SoCoRoIExtractor`.
        bbox_head (dict, optional): A `SoCoBBoxHead`; None takes the average of the RoI features
            (ablations). Defaults to None.
        init_cfg (dict, optional): Initialisation.
    """

    def __init__(self, bbox_roi_extractor: dict, bbox_head: Optional[dict] = None,
                 init_cfg: Optional[dict] = None) -> None:
        super().__init__(init_cfg)
        self.bbox_roi_extractor = MODELS.build(bbox_roi_extractor)
        self.bbox_head = MODELS.build(bbox_head) if bbox_head else None

    def forward(self, feats: Tuple[Tensor], bboxes: Tensor) -> Tensor:
        """Return object features (N * M, D), image by image, of boxes (N, M, 4) in view pixels."""
        roi_feats = self.bbox_roi_extractor(feats, bboxes_to_rois(bboxes))
        return self.bbox_head(roi_feats) if self.bbox_head else roi_feats.mean(dim=(2, 3))


@MODELS.register_module()
class SoCoC4RoIHead(BaseModule):
    """Object features without a pyramid: RoIAlign on C4, the backbone's last stage, average pool.

    The last stage bears the name it has in mmdet's C4 detectors, `shared_head.layer4`.

    Args:
        bbox_roi_extractor (dict): mmdet's `SingleRoIExtractor` on stride 16, 14x14.
        shared_head (dict): mmdet's `ResLayer`.
        init_cfg (dict, optional): Initialisation.
    """

    def __init__(self, bbox_roi_extractor: dict, shared_head: dict,
                 init_cfg: Optional[dict] = None) -> None:
        super().__init__(init_cfg)
        self.bbox_roi_extractor = MODELS.build(bbox_roi_extractor)
        self.shared_head = MODELS.build(shared_head)

    def init_weights(self) -> None:
        """Initialise; the last BN of each block starts at zero, as in the backbone's own stages."""
        super().init_weights()
        for block in self.shared_head.modules():
            if isinstance(block, (BasicBlock, Bottleneck)):
                nn.init.zeros_((block.norm3 if isinstance(block, Bottleneck) else block.norm2).weight)

    def forward(self, feats: Tuple[Tensor], bboxes: Tensor) -> Tensor:
        """Return object features (N * M, D), image by image, of boxes (N, M, 4) in view pixels."""
        rois = bboxes_to_rois(bboxes)
        with torch.autocast(rois.device.type, enabled=False):
            roi_feats = self.bbox_roi_extractor((feats[-1].float(), ), rois.float())
        return self.shared_head(roi_feats).mean(dim=(2, 3))
