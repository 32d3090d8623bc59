"""The feature pyramid that SoCo pretrains, with the same keys as a detector's."""

import torch
import torch.nn.functional as F
from mmdet.models.necks import FPN
from mmengine.config import ConfigDict
from mmselfsup.registry import MODELS
from torch import Tensor


@MODELS.register_module()
class SoCoFPN(FPN):
    """mmdet's FPN, P2 to P5, with a norm after each lateral and output conv (official behaviour).

    A detector's FPN adds P6 by pooling. This level has no parameters and no proposal is assigned to
    it, so it is omitted here, and all keys match the detector's.

    Args:
        in_channels (list[int]): Channels of the backbone's stages, finest first.
        out_channels (int): Channels of every level. Defaults to 256.
        norm_cfg (dict): Config of the norm after each conv. Defaults to
            `dict(type='BN', requires_grad=True)`.
    """

    def __init__(self, in_channels: list[int], out_channels: int = 256,
                 norm_cfg: dict = ConfigDict(type='BN', requires_grad=True)) -> None:
        super().__init__(in_channels=in_channels, out_channels=out_channels,
                         num_outs=len(in_channels), norm_cfg=norm_cfg)

    def forward(self, inputs: tuple[Tensor, ...], finest: int = 0) -> tuple[Tensor, ...]:
        """Compute the pyramid, or its coarser levels only.

        Args:
            inputs (tuple[Tensor, ...]): Outputs of the backbone's stages, finest first.
            finest (int): Index of the finest level to compute; 0 computes all. Defaults to 0.

        Returns:
            tuple[Tensor, ...]: Levels `finest` to the last, (N, C, h, w) each.
        """
        level, levels = None, []
        for i in range(self.num_ins - 1, finest - 1, -1):
            lateral = self.lateral_convs[i](inputs[i])
            level = lateral if level is None else self.merge(level, lateral)
            levels.append(self.fpn_convs[i](level))
        return tuple(reversed(levels))

    def merge(self, coarse: Tensor, lateral: Tensor) -> Tensor:
        """Return the sum of the upsampled coarser level and a lateral map, in their precision.

        Autocast would upsample in float32, and each finer level would be merged in float32.
        """
        with torch.autocast(lateral.device.type, enabled=False):
            return lateral + F.interpolate(coarse, size=lateral.shape[2:], **self.upsample_cfg)
