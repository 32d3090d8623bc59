"""Colour augmentation of a batch, with separate parameters for each image.

Images are (N, 3, H, W) float, RGB, in [0, 1], and are changed in place. The operations and their
order are those of torchvision and PIL, which the official recipe applies to one photo at a time;
results are clipped to [0, 1] after each operation. The parameters come with the batch
(`datasets.colours`), so that nothing here waits for a device.
"""
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..datasets.colours import UNCHANGED
from .photometric_cpu import paint

LUMA = (0.299, 0.587, 0.114)  # ITU-R 601
SMALLEST_TAP = 5e-4  # of a blur kernel; smaller taps add up to less than half a grey level


def _grey(images: Tensor) -> Tensor:
    """Return the luma, (N, 1, H, W)."""
    r, g, b = images.split(1, dim=1)
    return (r * LUMA[0]).add_(g, alpha=LUMA[1]).add_(b, alpha=LUMA[2])


class Plan(NamedTuple):
    """Operations on N images: factors on their device, decisions on the CPU."""

    weights: Tensor  # (N, 7, 3, 1, 1, 1) for `blend`: 0 to 2 before the hue, 3 to 5 after, 6 to grey
    shifts: Tensor  # (N, 1, 1), hue shifts in turns
    mixes: np.ndarray  # (N, 7, 3) bool, weights that differ from UNCHANGED
    hue: np.ndarray  # (N,) bool, like the next two
    blur: np.ndarray
    solarize: np.ndarray
    sigmas: np.ndarray  # (N,), blur sigmas in pixels

    @classmethod
    def from_colours(cls, colours: Mapping[str, Tensor], device: str | torch.device = 'cpu') -> 'Plan':
        """Build the plan from the output of `PhotometricPolicy.colours` for N images.

        Args:
            colours (Mapping[str, Tensor]): `weights` (N, 7, 3), `shifts`, `sigmas` and `solarize`
                (N,), on the CPU.
            device (str | torch.device): Device of the images. Defaults to 'cpu'.

        Returns:
            Plan: The operations on the N images.
        """
        weights, shifts, sigmas, solarize = (
            colours[name].numpy() for name in ('weights', 'shifts', 'sigmas', 'solarize'))
        return cls(_to_device(weights[..., None, None, None], device),
                   _to_device(shifts[:, None, None], device), weights != UNCHANGED, shifts != 0,
                   sigmas > 0, solarize, sigmas)

    def part(self, rows: slice) -> 'Plan':
        """Return the plan for some of the images."""
        return Plan(*(values[rows] for values in self))


def blend(images: Tensor, weights: Tensor, greys: bool = True, means: bool = True) -> Tensor:
    """Mix each image with its grey version and its mean grey value, and clip the result.

    One formula covers brightness (f, 0, 0), saturation (f, 1 - f, 0), contrast (f, 0, 1 - f), grey
    (0, 1, 0) and no change (1, 0, 0), so that a batch with all of these needs one operation.

    Args:
        images (Tensor): (N, 3, H, W), changed in place.
        weights (Tensor): (N, 3, 1, 1, 1), weights of the image, its grey version and its mean grey.
        greys (bool): Whether any weight of a grey version is not 0. Defaults to True.
        means (bool): Whether any weight of a mean grey is not 0. Defaults to True.

    Returns:
        Tensor: `images`.
    """
    own, grey, mean = weights.unbind(dim=1)
    # computed before the images change
    parts = [_grey(images).mul_(grey)] if greys else []
    if means:
        parts.append(_grey(images.mean(dim=(2, 3), keepdim=True)).mul_(mean))
    images.mul_(own)
    for part in parts:
        images.add_(part)
    return images.clamp_(0, 1)


def adjust_hue(images: Tensor, shifts: Tensor) -> Tensor:
    """Shift the hue of each image; `shifts` (N, 1, 1) are in turns, within [-0.5, 0.5]."""
    r, g, b = images.unbind(dim=1)
    value = torch.maximum(r, g).maximum(b)
    low = torch.minimum(r, g).minimum(b)
    chroma = value - low
    # sixths of the circle, counted from the brightest channel
    sixths = torch.where(value == r, g - b, torch.where(
        value == g, b - r + 2 * chroma, r - g + 4 * chroma))
    sixths.div_(chroma.clamp_min(1e-8)).add_(shifts, alpha=6)
    sixths.sub_(sixths.div(6).floor_(), alpha=6)  # into [0, 6)
    # Smith's hexcone without branches: red falls and rises around 3 sixths, green and blue rise and
    # fall around 2 and 4
    for channel, (centre, base, slope) in enumerate([(3, low, 1), (2, value, -1), (4, value, -1)]):
        share = (sixths - centre).abs_().sub_(1).clamp_(0, 1)
        images[:, channel] = torch.addcmul(base, chroma, share, value=slope)
    return images


def gaussian_blur(images: Tensor, sigmas: np.ndarray) -> Tensor:
    """Blur each image with its own sigma (N,) in pixels; borders are replicated."""
    n, c, h, w = images.shape
    kernels = blur_kernels(sigmas)
    weights = _to_device(kernels, images.device).repeat_interleave(c, dim=0)  # (N * 3, taps)
    planes = F.pad(images.reshape(1, n * c, h, w), (kernels.shape[1] // 2, ) * 4, mode='replicate')
    planes = F.conv2d(planes, weights.view(n * c, 1, 1, -1), groups=n * c)
    planes = F.conv2d(planes, weights.view(n * c, 1, -1, 1), groups=n * c)
    return images.copy_(planes.view(n, c, h, w))


def blur_kernels(sigmas: np.ndarray) -> np.ndarray:
    """Return Gaussian kernels (N, 2 r + 1) float32 of sigmas (N,), truncated below `SMALLEST_TAP`."""
    radius = max(1, int(np.ceil(4 * sigmas.max())))
    kernels = np.exp(-0.5 * (np.arange(radius + 1) / sigmas[:, None])**2)  # centre and one half
    kernels /= 2 * kernels.sum(axis=1, keepdims=True) - 1
    kernels[kernels < SMALLEST_TAP] = 0
    kernels = kernels[:, :max(2, kernels.any(axis=0).sum())]
    kernels /= 2 * kernels.sum(axis=1, keepdims=True) - kernels[:, :1]
    return np.concatenate([kernels[:, :0:-1], kernels], axis=1).astype(np.float32)


def solarize(images: Tensor) -> Tensor:
    """Invert all values of at least 128 / 255."""
    return images.copy_(torch.where(images < 128 / 255, images, 1 - images))


def _to_device(values: np.ndarray, device: str | torch.device) -> Tensor:
    return torch.from_numpy(values).to(device, non_blocking=True)


def mix(images: Tensor, plan: Plan) -> Tensor:
    """Apply the operations of a plan before the blur to images (N, 3, H, W), in place; return them."""
    for place, (own, grey, mean) in enumerate(plan.mixes.any(axis=0).tolist()):
        if place == 3 and plan.hue.any():
            adjust_hue(images, plan.shifts)
        if own or grey or mean:
            blend(images, plan.weights[:, place], grey, mean)
    return images


def augment(images: Tensor, plan: Plan,
            mixer: Callable[[Tensor, Plan], Tensor] = mix) -> Tensor:
    """Apply a plan to images in place and return them.

    Args:
        images (Tensor): (N, 3, H, W) float.
        plan (Plan): Operations on the images.
        mixer (Callable): What applies the operations before the blur. Defaults to `mix`.

    Returns:
        Tensor: `images`, (N, 3, H, W).
    """
    images = mixer(images, plan)
    _change(images, plan.blur, gaussian_blur, plan.sigmas)
    return _change(images, plan.solarize, solarize)


def paint_on_cpu(images: Tensor, plan: Plan, mean: Tensor, scale: Tensor, painted: Tensor) -> None:
    """Apply a plan to uint8 images on a CPU with a compiled kernel, then `(image - mean) * scale`.

    Args:
        images (Tensor): (N, 3, H, W) uint8, RGB.
        plan (Plan): Operations on the images.
        mean (Tensor): Mean of each channel, three values.
        scale (Tensor): Factor of each channel, three values.
        painted (Tensor): (N, 3, H, W) float32; receives the result.
    """
    weights, shifts = plan.weights.numpy()[..., 0, 0, 0], plan.shifts.numpy()[:, 0, 0]
    mean, scale = mean.flatten().numpy(), scale.flatten().numpy()  # type: ignore[assignment]
    none = np.empty(0, dtype=np.float32)
    for i, (pixels, image) in enumerate(zip(images.numpy(), painted.numpy())):
        taps = blur_kernels(plan.sigmas[i:i + 1])[0] if plan.blur[i] else none
        paint(pixels, image, weights[i], shifts[i], taps, plan.solarize[i], mean, scale)


def _change(images: Tensor, mask: np.ndarray, adjust: Callable, *amounts: np.ndarray) -> Tensor:
    """Apply `adjust` to the images that `mask` (N,) selects, with their amounts."""
    rows = np.flatnonzero(mask)
    if len(rows) == len(images):
        return adjust(images, *amounts)
    if len(rows):
        index = _to_device(rows, images.device)
        images[index] = adjust(images[index], *(values[rows] for values in amounts))
    return images
