"""The colour changes of `photometric.augment` before the blur, compiled into a few kernels."""
import logging
from collections.abc import Callable

import torch
from mmengine.logging import print_log
from torch import Tensor

from .photometric import Plan, adjust_hue, blend, mix

TOLERANCE = 1e-3  # a quarter of a grey level; rounding differs by about 1e-6


def mix_all(images: Tensor, weights: Tensor, shifts: Tensor) -> Tensor:
    """Apply every operation of a plan, also those that change no image: a compiler fuses them.

    Args:
        images (Tensor): (N, 3, H, W), changed in place.
        weights (Tensor): (N, 7, 3, 1, 1, 1), see `Plan`.
        shifts (Tensor): (N, 1, 1), see `Plan`.

    Returns:
        Tensor: `images`.
    """
    places = weights.shape[1]
    for place in range(places):
        if place == 3:
            adjust_hue(images, shifts)
        blend(images, weights[:, place], means=place < places - 1)  # the last one only turns grey
    return images


class FusedColours:
    """Compiles `mix_all` with torch.compile, and replaces it with `mix` where that does not work.

    Plain torch runs about 140 kernels per view, each of which reads and writes all images. The first
    result of each shape is compared with plain torch's. After an error or a difference, plain torch is
    used for the rest of the run, with a warning.

    Args:
        backend (str): Backend of torch.compile. Defaults to 'inductor'.
    """

    def __init__(self, backend: str = 'inductor') -> None:
        self.backend = backend
        self.compiled: Callable | None = None
        self.checked: set[torch.Size] = set()
        self.failed = False

    def __call__(self, images: Tensor, plan: Plan) -> Tensor:
        """Apply a plan to images (N, 3, H, W) in place and return them, see `photometric.mix`."""
        if self.failed:
            return mix(images, plan)
        if images.shape in self.checked:
            return self.compiled(images, plan.weights, plan.shifts)
        before = images.clone()
        try:
            if self.compiled is None:
                self.compiled = torch.compile(mix_all, backend=self.backend, dynamic=False)
            mixed = self.compiled(images, plan.weights, plan.shifts)
        except torch.cuda.OutOfMemoryError:
            raise
        except Exception as error:  # whatever a compiler, or the lack of one, raises
            return self._give_up(images.copy_(before), plan, f'{type(error).__name__}: {error}')
        gap = float((mixed - mix(before.clone(), plan)).abs().max())
        if not gap <= TOLERANCE:
            return self._give_up(images.copy_(before), plan,
                                 f'the result differs by {gap:.2g} of the range of values')
        self.checked.add(images.shape)
        return mixed

    def _give_up(self, images: Tensor, plan: Plan, reason: str) -> Tensor:
        self.failed = True
        print_log('The colours could not be compiled, so this run uses plain torch, which is slower: '
                  f'{reason.splitlines()[0]}. To compile no colours, set '
                  'model.data_preprocessor.compile_colours=False.', 'current', logging.WARNING)
        return mix(images, plan)
