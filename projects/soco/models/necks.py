"""The feature pyramid that SoCo pretrains, key for key the detector's."""
from typing import List

from mmdet.models.necks import FPN
from mmengine.config import ConfigDict
from mmselfsup.registry import MODELS


@MODELS.register_module()
class SoCoFPN(FPN):
    """mmdet's FPN, P2 to P5, with a norm after each lateral and output conv (official behaviour).

    A detector's FPN adds P6 by pooling; that level has no parameter and no proposal falls on it, so
    it is left out here and every key meets its twin in the detector.

    Args:
        in_channels (list[int]): Channels of the backbone's stages, finest first.
        out_channels (int): Channels of every level.
        norm_cfg (dict): Norm after each conv. Defaults to `dict(type='BN')`.
        **kwargs: See `mmdet.models.necks.FPN`.
    """

    def __init__(self, in_channels: List[int], out_channels: int = 256,
                 norm_cfg: dict = ConfigDict(type='BN', requires_grad=True), **kwargs) -> None:
        super().__init__(in_channels=in_channels, out_channels=out_channels,
                         num_outs=len(in_channels), norm_cfg=norm_cfg, **kwargs)
