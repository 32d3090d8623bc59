"""Colour augmentation of a whole batch, each image with parameters of its own.

Images are (N, 3, H, W) float, RGB, in [0, 1]. The operations and their order are torchvision's and
PIL's, as the official recipe applies them one photo at a time; results are clipped to [0, 1] after
each. Indices are made on the CPU, so that nothing here waits for the device.
"""
from functools import partial
from typing import Callable, Dict, List, Optional

import torch
import torch.nn.functional as F
from torch import Tensor


def _grey(images: Tensor) -> Tensor:
    """Luma (ITU-R 601), (N, 1, H, W)."""
    weights = images.new_tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)
    return (images * weights).sum(dim=1, keepdim=True)


def _per_image(values: Tensor) -> Tensor:
    return values.view(-1, 1, 1, 1)


def adjust_brightness(images: Tensor, factors: Tensor) -> Tensor:
    """Multiply each image by its factor (N,), 1 changes nothing."""
    return (images * _per_image(factors)).clamp(0, 1)


def adjust_contrast(images: Tensor, factors: Tensor) -> Tensor:
    """Blend each image with its mean grey by its factor (N,), 1 changes nothing."""
    mean = _grey(images).mean(dim=(2, 3), keepdim=True)
    return torch.lerp(mean.expand_as(images), images, _per_image(factors)).clamp(0, 1)


def adjust_saturation(images: Tensor, factors: Tensor) -> Tensor:
    """Blend each image with its grey version by its factor (N,), 1 changes nothing."""
    return torch.lerp(_grey(images).expand_as(images), images, _per_image(factors)).clamp(0, 1)


def adjust_hue(images: Tensor, shifts: Tensor) -> Tensor:
    """Turn the hue of each image by its shift (N,), in turns of the colour circle, [-0.5, 0.5]."""
    value, brightest = images.max(dim=1)
    chroma = value - images.amin(dim=1)
    r, g, b = images.unbind(dim=1)
    safe = chroma.clamp_min(1e-8)
    sixths = torch.where(brightest == 0, (g - b) / safe,
                         torch.where(brightest == 1, 2 + (b - r) / safe, 4 + (r - g) / safe))
    sixths = sixths + 6 * shifts.view(-1, 1, 1)
    # Smith's hexcone without branches: channel = value - chroma * clamp(min(k, 4 - k), 0, 1)
    offsets = images.new_tensor([5.0, 3.0, 1.0]).view(1, 3, 1, 1)
    k = (offsets + sixths.unsqueeze(1)) % 6
    return value.unsqueeze(1) - chroma.unsqueeze(1) * torch.minimum(k, 4 - k).clamp(0, 1)


def to_grey(images: Tensor) -> Tensor:
    """Replace each image by its grey version, still with three channels."""
    return _grey(images).expand_as(images)


def gaussian_blur(images: Tensor, sigmas: Tensor, max_sigma: float) -> Tensor:
    """Blur each image with its own sigma (N,), in pixels, up to `max_sigma`.

    The kernel is cut at 3 `max_sigma`; borders are repeated, as PIL does.
    """
    n, c, h, w = images.shape
    radius = max(1, round(3 * max_sigma))
    taps = torch.arange(-radius, radius + 1, device=images.device, dtype=images.dtype)
    kernel = torch.exp(-0.5 * (taps / sigmas.view(-1, 1))**2)
    kernel = (kernel / kernel.sum(dim=1, keepdim=True)).repeat_interleave(c, dim=0)  # (N * 3, taps)
    planes = F.pad(images.reshape(1, n * c, h, w), (radius, ) * 4, mode='replicate')
    planes = F.conv2d(planes, kernel.view(n * c, 1, 1, -1), groups=n * c)
    return F.conv2d(planes, kernel.view(n * c, 1, -1, 1), groups=n * c).view(n, c, h, w)


def solarize(images: Tensor) -> Tensor:
    """Invert every value from 128 / 255 up."""
    return torch.where(images < 128 / 255, images, 1 - images)


class PhotometricPolicy:
    """The colour augmentation of one view, from uniform draws to pixels.

    Args:
        brightness, contrast, saturation (float): Factors are drawn from `[1 - x, 1 + x]`.
        hue (float): Shifts are drawn from `[-hue, hue]` turns, at most 0.5.
        jitter_prob (float): Chance of the four above, applied in a random order.
        grey_prob (float): Chance to lose colour.
        blur_prob (float): Chance to be blurred.
        blur_sigma (tuple): Range of the blur's sigma in pixels.
        solarize_prob (float): Chance of solarisation.

    The defaults are the first view's of the official recipe; the others differ in `blur_prob=0.1`
    and `solarize_prob=0.2`.
    """

    _steps = (adjust_brightness, adjust_contrast, adjust_saturation, adjust_hue)

    def __init__(self, brightness: float = 0.4, contrast: float = 0.4, saturation: float = 0.2,
                 hue: float = 0.1, jitter_prob: float = 0.8, grey_prob: float = 0.2,
                 blur_prob: float = 1.0, blur_sigma: tuple = (0.1, 2.0),
                 solarize_prob: float = 0.0) -> None:
        if not 0 <= hue <= 0.5:
            raise ValueError(f'hue must lie in [0, 0.5] turns, not {hue}.')
        self.widths = torch.tensor([brightness, contrast, saturation, hue])
        self.jitter_prob = jitter_prob
        self.grey_prob = grey_prob
        self.blur_prob = blur_prob
        self.blur_sigma = blur_sigma
        self.solarize_prob = solarize_prob

    def draw(self, uniforms: Tensor) -> Dict[str, Tensor]:
        """Turn uniform draws (N, 13) in [0, 1), on the CPU, into parameters.

        Returns:
            dict: `amounts` (N, 4: three factors and the hue's shift), `order` (N, 4: which of the
            four comes at which place), `sigma` (N,), and bool masks (N,) `jitter`, `grey`, `blur`,
            `solarize`.
        """
        u = uniforms
        centre = torch.tensor([1.0, 1.0, 1.0, 0.0])
        low, high = self.blur_sigma
        return dict(
            jitter=u[:, 0] < self.jitter_prob,
            amounts=(centre + self.widths * (2 * u[:, 1:5] - 1)).clamp_min(
                torch.tensor([0.0, 0.0, 0.0, -0.5])),
            order=u[:, 5:9].argsort(dim=1),
            grey=u[:, 9] < self.grey_prob,
            blur=u[:, 10] < self.blur_prob,
            sigma=low + (high - low) * u[:, 11],
            solarize=u[:, 12] < self.solarize_prob)

    def __call__(self, images: Tensor, uniforms: Tensor) -> Tensor:
        """Augment (N, 3, H, W) images in [0, 1] with the draws (N, 13) of their samples."""
        params = self.draw(uniforms)

        def move(values: Tensor) -> Tensor:
            return values.to(images.device, non_blocking=True)

        def change(mask: Tensor, adjust: Callable, amounts: Optional[Tensor] = None) -> None:
            picked = mask.nonzero().squeeze(1)
            if len(picked):
                index = move(picked)
                more = () if amounts is None else (move(amounts[picked]), )
                images[index] = adjust(images[index], *more)

        images = images.clone()
        for place in range(len(self._steps)):
            for step, adjust in enumerate(self._steps):
                change(params['jitter'] & (params['order'][:, place] == step), adjust,
                       params['amounts'][:, step])
        change(params['grey'], to_grey)
        change(params['blur'], partial(gaussian_blur, max_sigma=self.blur_sigma[1]),
               params['sigma'])
        change(params['solarize'], solarize)
        return images


def build_policies(views: List[Dict]) -> List[PhotometricPolicy]:
    """Make one policy per view; an unknown key is an error that names the view."""
    policies = []
    for v, settings in enumerate(views):
        try:
            policies.append(PhotometricPolicy(**settings))
        except TypeError as error:
            raise ValueError(f'data_preprocessor.views[{v}]: {error}.') from error
    return policies
