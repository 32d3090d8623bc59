"""The memory format of convolutions."""
import torch
from torch import nn

BLOCK = 16  # channels that oneDNN computes at once with AVX-512; 8 with AVX2


def use_channels_last(network: nn.Module) -> torch.memory_format:
    """Convert a network to channels_last, unless the CPU's convolutions have a fault there.

    In channels_last, oneDNN's gradient of a strided 1 x 1 convolution with fewer input channels than
    `BLOCK` writes beyond its memory (oneDNN issue 6035; seen with torch 2.14.1: a crash). Networks with
    such a layer stay as they are. A ResNet of full width has none.

    Args:
        network (nn.Module): The network; its weights are converted in place.

    Returns:
        torch.memory_format: The format of its weights.
    """
    if any(has_the_fault(module) for module in network.modules()):
        return torch.contiguous_format
    network.to(memory_format=torch.channels_last)
    return torch.channels_last


def has_the_fault(module: nn.Module) -> bool:
    """Return whether a module is a convolution that `use_channels_last` avoids."""
    return (isinstance(module, nn.Conv2d) and set(module.kernel_size) == {1}
            and max(module.stride) > 1 and module.in_channels // module.groups < BLOCK)
