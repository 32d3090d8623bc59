"""Data preprocessors, which augment and normalise batches of views on the model's device."""
from collections.abc import Sequence

import torch
from mmengine.model import BaseDataPreprocessor
from mmselfsup.registry import MODELS
from torch import Tensor

from .fused_colours import FusedColours
from .photometric import Plan, augment, mix, paint_on_cpu


@MODELS.register_module()
class SoCoDataPreprocessor(BaseDataPreprocessor):
    """Augment the colours of each view, normalise it and erase the cutouts.

    Args:
        mean (Sequence[float]): Mean per channel, in 0 to 255, in the order of the network's input.
        std (Sequence[float]): Standard deviation per channel, in 0 to 255, in the same order.
        bgr_to_rgb (bool): Whether the network's input is RGB; otherwise it is BGR, as photos are
            read. Colours are changed in RGB in both cases. Defaults to True.
        compile_colours (bool): Whether the colours of a training batch on a GPU are changed by compiled
            kernels, see `FusedColours`. It takes a while in the first iteration, and its gain is not
            measured. Defaults to False.
        non_blocking (bool): Whether to copy to the device without waiting. Defaults to True.
    """

    def __init__(self, mean: Sequence[float], std: Sequence[float],
                 bgr_to_rgb: bool = True, compile_colours: bool = False,
                 non_blocking: bool = True) -> None:
        super().__init__(non_blocking=non_blocking)
        order = slice(None) if bgr_to_rgb else slice(None, None, -1)
        mean, std = list(mean)[order], list(std)[order]  # now RGB
        self.register_buffer('mean', torch.tensor(mean).view(1, 3, 1, 1) / 255, False)
        self.register_buffer('scale', 255 / torch.tensor(std).view(1, 3, 1, 1), False)
        self.bgr_to_rgb = bgr_to_rgb
        self.mixer = FusedColours() if compile_colours else mix

    def forward(self, data: dict, training: bool = False) -> dict:
        """Prepare a batch for `SoCo.forward`.

        Args:
            data (dict): Collated output of `PackSoCoInputs`: `inputs` (V tensors (N, 3, H_v, W_v)
                uint8), `bboxes` ((N, P, 2, K, 4)), `finest_levels` ((N, V), the same in all rows),
                and for training `colours` (tensors (N, V, ...), see `Plan.from_colours`) and
                `cutouts` ((N, V, K, 4) int16).
            training (bool): Whether to augment and erase. Otherwise views are only normalised.
                Defaults to False.

        Returns:
            dict: `inputs` (V tensors (N, 3, H_v, W_v) float, normalised); `bboxes`, which stay on
            the CPU, where the model sorts them by level; and `finest_levels` (V integers).
        """
        inputs = self.cast_data(data['inputs'])
        # Allocate one block for all views. On a CPU, the C library keeps a block of up to 32 MB for
        # the next batch, but frees three blocks; allocating them again takes longer than the colours.
        sizes = [images.numel() for images in inputs]
        memory = torch.empty(sum(sizes), device=self.device).split(sizes)
        views = [part.view(images.shape) for part, images in zip(memory, inputs)]
        # Runners prepare batches inside autocast, but colours are computed in float32.
        with torch.autocast(self.device.type, enabled=False):
            for v, (images, prepared) in enumerate(zip(inputs, views)):
                self.prepare(images, v, data if training else None, prepared)
                if not self.bgr_to_rgb:
                    prepared.copy_(prepared.flip(1))
        return dict(inputs=views, bboxes=data['bboxes'],
                    finest_levels=data['finest_levels'][0].tolist())

    def prepare(self, images: Tensor, view: int, data: dict | None, prepared: Tensor) -> None:
        """Normalise one view in RGB, and augment it in training.

        Args:
            images (Tensor): (N, 3, H, W) uint8.
            view (int): Index of the view.
            data (dict, optional): The batch with its `colours` and `cutouts`; None to only normalise.
            prepared (Tensor): (N, 3, H, W) float; receives the result.
        """
        if data is None:
            torch.sub(self.to_float(images), self.mean, out=prepared).mul_(self.scale)
            return
        plan = Plan.from_colours({name: values[:, view] for name, values in data['colours'].items()},
                                 images.device)
        if self.is_compiled(images):
            paint_on_cpu(images.flip(1), plan, self.mean, self.scale, prepared)
        else:
            fused = self.training and images.is_cuda
            pixels = augment(self.to_float(images), plan, self.mixer if fused else mix)
            torch.sub(pixels, self.mean, out=prepared).mul_(self.scale)
        keep = self.outside(data['cutouts'][:, view], images)
        if keep is not None:
            prepared.mul_(keep)

    def to_pixels(self, views: Tensor) -> Tensor:
        """Convert prepared views back to pictures for display.

        Args:
            views (Tensor): (N, 3, H, W) float, normalised.

        Returns:
            Tensor: (N, H, W, 3) uint8, RGB, rounded.
        """
        views = views if self.bgr_to_rgb else views.flip(1)
        pixels = (views.float() / self.scale + self.mean).clamp(0, 1) * 255
        return pixels.round().byte().permute(0, 2, 3, 1)

    @staticmethod
    def is_compiled(images: Tensor) -> bool:
        """Return whether a compiled kernel augments these images, as on a CPU."""
        return images.device.type == 'cpu'

    @staticmethod
    def to_float(images: Tensor) -> Tensor:
        """Convert uint8 BGR (N, 3, H, W) to float RGB in [0, 1]."""
        return images.flip(1).float().mul_(1 / 255)

    @staticmethod
    def outside(cutouts: Tensor, images: Tensor) -> Tensor | None:
        """Return a mask that is 0 inside the rectangles and 1 outside of all of them.

        Args:
            cutouts (Tensor): (N, K, 4), x1 y1 x2 y2, half-open, on the CPU.
            images (Tensor): (N, 3, H, W), of which only the size and the device are used.

        Returns:
            Tensor, optional: (N, 1, H, W) float, or None if every rectangle is empty.
        """
        if not cutouts.numpy().any():  # on the CPU, so that nothing waits for the device
            return None
        corners = cutouts.to(images.device, non_blocking=True)
        x1, y1, x2, y2 = corners.unsqueeze(-1).unbind(dim=2)  # (N, K, 1) each
        x = torch.arange(images.shape[3], device=images.device)
        y = torch.arange(images.shape[2], device=images.device)
        columns, rows = (x >= x1) & (x < x2), (y >= y1) & (y < y2)  # (N, K, W), (N, K, H)
        covers = torch.bmm(rows.transpose(1, 2).float(), columns.float())  # counts, (N, H, W)
        return covers.lt_(0.5).unsqueeze(1)


@MODELS.register_module()
class ImageViewsPreprocessor(SoCoDataPreprocessor):
    """Prepare views without boxes, as MMSelfSup's algorithms on whole images expect them.

    With it, BYOL, for example, trains on the photos, colours and order of `SoCoDataset` and can resume
    where it was stopped. Arguments and errors are those of `SoCoDataPreprocessor`.
    """

    def forward(self, data: dict, training: bool = False) -> dict:
        """Return the prepared `inputs` of a batch, and `data_samples`, which is None."""
        return dict(inputs=super().forward(data, training)['inputs'], data_samples=None)
