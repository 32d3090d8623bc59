"""MMSelfSup's BYOL with a target network whose update does not make the host wait for the device."""
from math import cos, pi

import torch
from mmengine.logging import MessageHub
from mmselfsup.models import BYOL
from mmselfsup.models.utils import CosineEMA
from mmselfsup.registry import MODELS
from torch import nn


class ForeachCosineEMA(CosineEMA):
    """The moving average of MMSelfSup, for all tensors at once.

    MMSelfSup counts the updates in a tensor on the device and reads it for every parameter. Here the
    Runner's iteration is used, which is the same number. The names of the tensors are the same.
    """

    @torch.no_grad()
    def update_parameters(self, model: nn.Module) -> None:
        """Copy the online network in the first iteration, and average the parameters afterwards.

        Args:
            model (nn.Module): The online network. Its buffers are always copied.
        """
        hub = MessageHub.get_current_instance()
        step = hub.get_info('iter', 0)
        averages, online = list(self.module.parameters()), list(model.parameters())
        if step == 0:
            torch._foreach_copy_(averages, online)
        else:
            momentum = self.end_momentum - (self.end_momentum - self.momentum) * (
                cos(pi * step / float(hub.get_info('max_iters'))) + 1) / 2
            torch._foreach_mul_(averages, momentum)
            torch._foreach_add_(averages, online, alpha=1 - momentum)
        torch._foreach_copy_(list(self.module.buffers()), list(model.buffers()))
        self.steps += 1


@MODELS.register_module()
class ForeachBYOL(BYOL):
    """MMSelfSup's BYOL with `ForeachCosineEMA`; arguments, losses and names of tensors are the same."""

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        momentum: float = self.target_net.momentum  # type: ignore[has-type]
        self.target_net = ForeachCosineEMA(nn.Sequential(self.backbone, self.neck), momentum=momentum)
