"""RoI heads, which compute one feature vector per object from feature maps and boxes."""
from collections.abc import Sequence
from typing import Any

import torch
from mmcv.cnn import ConvModule
from mmcv.ops import RoIAlign
from mmdet.models.backbones.resnet import BasicBlock, Bottleneck
from mmdet.models.roi_heads.roi_extractors import SingleRoIExtractor
from mmengine.model import BaseModule
from mmselfsup.registry import MODELS
from torch import Tensor, nn

from ..weights.names import SHARED_LAYERS


def level_name(stride: int) -> str:
    """Return the name of a pyramid level, P2 for stride 4, P3 for stride 8 and so on."""
    return f'P{stride.bit_length() - 1}'


@MODELS.register_module()
class SoCoRoIExtractor(SingleRoIExtractor):
    """Pool each box from one pyramid level, chosen by its size in the view (paper, section 3.2).

    A box is pooled from the finest level i whose `level_sizes[i]` is at least sqrt(w * h) pixels, and
    larger boxes from the last level. RoIAlign always runs in float32.

    Args:
        level_sizes (Sequence[float]): Largest box size of every level but the last, in pixels of
            the view. Defaults to (48, 96, 192), the official values.
        **kwargs: See `mmdet.models.roi_heads.SingleRoIExtractor`.
    """

    def __init__(self, *args: Any, level_sizes: Sequence[float] = (48, 96, 192),
                 **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if len(level_sizes) != self.num_inputs - 1 or list(level_sizes) != sorted(level_sizes):
            raise ValueError(f'level_sizes must contain {self.num_inputs - 1} increasing sizes, one '
                             f'for every level but the last, not {tuple(level_sizes)}.')
        self.level_sizes = tuple(level_sizes)
        use_torchvision(self.roi_layers)

    def map_roi_levels(self, rois: Tensor, num_levels: int) -> Tensor:
        """Return the level (k,) of each RoI (k, 5) among the `num_levels` coarsest, finest = 0."""
        size = ((rois[:, 3] - rois[:, 1]) * (rois[:, 4] - rois[:, 2])).clamp_min(0).sqrt()
        levels = torch.zeros_like(size, dtype=torch.long)
        for border in self.level_sizes:
            levels += size > border
        return (levels - (self.num_inputs - num_levels)).clamp_min(0)

    def forward(self, feats: Sequence[Tensor], rois: Tensor) -> Tensor:
        """Pool each box from its own level, or from the finest level that is available.

        Args:
            feats (Sequence[Tensor]): All maps of the pyramid, or only the coarsest ones.
            rois (Tensor): (k, 5). If they are on the CPU, where the data preprocessor leaves boxes,
                their levels are known before anything is sent to the device, so the host does not
                wait.

        Returns:
            Tensor: (k, C, h, w) float32, on the device of the maps, in the order of the RoIs.
        """
        levels = self.map_roi_levels(rois, len(feats))
        order = levels.argsort()
        counts = torch.bincount(levels, minlength=len(feats)).tolist()
        rois = rois[order].float()  # a copy
        # Few images have a box on the finest levels, which have most of the pixels: only those images
        # are converted to float32, and only their gradients are written.
        used = []
        for part in rois.split(counts):
            images, part[:, 0] = part[:, 0].unique(return_inverse=True)
            used.append(images.long())
        by_level = send(rois, feats[0].device).split(counts)
        images_by_level = send(torch.cat(used), feats[0].device).split([len(i) for i in used])
        layers = self.roi_layers[self.num_inputs - len(feats):]
        with torch.autocast(feats[0].device.type, enabled=False):
            # A level without boxes stays in the graph, so that all ranks have the same gradients.
            pooled = torch.cat([
                layer(feat.index_select(0, images).float(), part)
                for layer, feat, images, part in zip(layers, feats, images_by_level, by_level)])
        return pooled[send(order.argsort(), pooled.device)]


def use_torchvision(roi_layers: nn.ModuleList) -> None:
    """Let RoIAlign layers call torchvision directly.

    The operator is the same. Through MMCV's function, output and gradient are first filled with zeros
    and then copied.
    """
    for layer in roi_layers:
        if isinstance(layer, RoIAlign) and layer.pool_mode == 'avg':
            layer.use_torchvision = True


def send(tensor: Tensor, device: torch.device) -> Tensor:
    """Copy a tensor to a device without making the host wait."""
    if device.type == 'cuda' and tensor.device.type == 'cpu':
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)


def keep_shared_layers(head: nn.Module) -> nn.Module:
    """Reduce a detector's box head to its shared convs and linear layers.

    mmdet cannot build a box head without a classifier or a regressor. Here both, and all branches, are
    removed after building: every parameter that is left gets a gradient, and the first output of the
    head is the object feature (n, D).

    Args:
        head (nn.Module): One of mmdet's `ConvFCBBoxHead` or of a class that inherits from it; it is
            changed in place.

    Returns:
        nn.Module: The head.

    Raises:
        ValueError: If the head has no shared layers.
    """
    if not any(len(getattr(head, name, ())) for name in SHARED_LAYERS):
        raise ValueError(f'{type(head).__name__} has no shared layers (shared_convs, shared_fcs) that '
                         'all objects pass through. Choose another box head for pretraining, such as '
                         'SoCoBBoxHead; it is then not part of the detector.')
    for name, child in list(head.named_children()):
        if name in SHARED_LAYERS:
            continue
        if isinstance(child, nn.ModuleList):
            setattr(head, name, nn.ModuleList())
        elif child.state_dict():
            setattr(head, name, nn.Identity())
    vars(head).update(with_cls=True, with_reg=False)
    return head


@MODELS.register_module()
class SoCoBBoxHead(BaseModule):
    """Four convs and a linear layer, with the keys of mmdet's `Shared4Conv1FCBBoxHead`.

    Args:
        in_channels (int): Channels of the RoI features. Defaults to 256.
        num_convs (int): Number of 3x3 convs. Defaults to 4.
        conv_out_channels (int): Channels of the convs. Defaults to 256.
        fc_out_channels (int): Length of the object features. Defaults to 1024.
        roi_feat_size (int): Side of the RoI features. Defaults to 7.
        norm_cfg (dict): Config of the norm after each conv. Defaults to `dict(type='BN')`.
        init_cfg (dict): Config of the initialisation. Defaults to mmdet's: Xavier for the linear layer.
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
        """Convert RoI features (n, C, h, w) to object features (n, D)."""
        for conv in self.shared_convs:
            roi_feats = conv(roi_feats)
        return self.shared_fcs[0](roi_feats.flatten(1)).relu()


def bboxes_to_rois(bboxes: Tensor) -> Tensor:
    """Prepend the image index to boxes (N, M, 4) and return RoIs (N * M, 5)."""
    n, m, _ = bboxes.shape
    index = torch.arange(n, device=bboxes.device, dtype=bboxes.dtype).view(n, 1, 1).expand(n, m, 1)
    return torch.cat([index, bboxes], dim=2).flatten(0, 1)


@MODELS.register_module()
class SoCoRoIHead(BaseModule):
    """Compute object features from a pyramid: RoIAlign on each box's own level, then the box head.

    Args:
        bbox_roi_extractor (dict): Config of a `SoCoRoIExtractor`.
        bbox_head (dict, optional): Config of a `SoCoBBoxHead`, or of a box head of mmdet, of which the
            shared layers are used (`keep_shared_layers`). Defaults to None: the RoI features are
            averaged (ablations).
        levels (Sequence[int], optional): Indices of the maps to pool from, finest first. Defaults to
            None: all maps.
        level_channels (Sequence[int], optional): Channels of each of these maps, if they differ. A 1x1
            conv with norm, which is not part of the detector, then brings each to the channels of the
            extractor. Defaults to None.
        init_cfg (dict, optional): Config of the initialisation. Defaults to None.
    """

    def __init__(self, bbox_roi_extractor: dict, bbox_head: dict | None = None,
                 levels: Sequence[int] | None = None,
                 level_channels: Sequence[int] | None = None,
                 init_cfg: dict | None = None) -> None:
        super().__init__(init_cfg)
        self.bbox_roi_extractor = MODELS.build(bbox_roi_extractor)
        self.bbox_head = MODELS.build(bbox_head) if bbox_head else None
        if hasattr(self.bbox_head, 'fc_cls'):
            self.bbox_head = keep_shared_layers(self.bbox_head)
        self.levels = None if levels is None else tuple(levels)
        self.level_convs = nn.ModuleList(
            ConvModule(channels, self.bbox_roi_extractor.out_channels, 1, norm_cfg=dict(type='BN'))
            for channels in level_channels or ())

    def forward(self, feats: tuple[Tensor], bboxes: Tensor) -> Tensor:
        """Return object features (N * M, D), image by image, of boxes (N, M, 4) in view pixels."""
        return self.embed(feats, bboxes_to_rois(bboxes))

    def embed(self, feats: tuple[Tensor, ...], rois: Tensor) -> Tensor:
        """Return object features (k, D) of RoIs (k, 5), any number per image."""
        if self.levels is not None:
            feats = tuple(feats[level] for level in self.levels)
        if self.level_convs:
            feats = tuple(conv(feat) for conv, feat in zip(self.level_convs, feats, strict=True))
        roi_feats = self.bbox_roi_extractor(feats, rois)
        if self.bbox_head is None:
            return roi_feats.mean(dim=(2, 3))
        features = self.bbox_head(roi_feats)
        return features[0] if isinstance(features, tuple) else features


@MODELS.register_module()
class SoCoC4RoIHead(BaseModule):
    """Compute object features without a pyramid: RoIAlign on C4, last ResNet stage, average pool.

    The last stage has the same name as in mmdet's C4 detectors, `shared_head.layer4`.

    Args:
        bbox_roi_extractor (dict): Config of mmdet's `SingleRoIExtractor` on stride 16, 14x14.
        shared_head (dict): Config of mmdet's `ResLayer`, or of another shared head.
        init_cfg (dict, optional): Config of the initialisation. Defaults to None.
    """

    def __init__(self, bbox_roi_extractor: dict, shared_head: dict,
                 init_cfg: dict | None = None) -> None:
        super().__init__(init_cfg)
        self.bbox_roi_extractor = MODELS.build(bbox_roi_extractor)
        use_torchvision(self.bbox_roi_extractor.roi_layers)
        self.shared_head = MODELS.build(shared_head)

    def init_weights(self) -> None:
        """Initialise the weights; the last BN of each block starts at zero, as in the backbone."""
        super().init_weights()
        for block in self.shared_head.modules():
            if isinstance(block, (BasicBlock, Bottleneck)):
                nn.init.zeros_((block.norm3 if isinstance(block, Bottleneck) else block.norm2).weight)

    def forward(self, feats: tuple[Tensor], bboxes: Tensor) -> Tensor:
        """Return object features (N * M, D), image by image, of boxes (N, M, 4) in view pixels."""
        return self.embed(feats, bboxes_to_rois(bboxes))

    def embed(self, feats: tuple[Tensor], rois: Tensor) -> Tensor:
        """Return object features (k, D) of RoIs (k, 5), any number per image."""
        rois = send(rois.float(), feats[-1].device)
        with torch.autocast(rois.device.type, enabled=False):
            roi_feats = self.bbox_roi_extractor((feats[-1].float(), ), rois)
        return self.shared_head(roi_feats).mean(dim=(2, 3))
