"""uint8 views in, augmented and normalised views out, batched on the model's device."""
from typing import Dict, List, Sequence

import torch
from mmengine.model import BaseDataPreprocessor
from mmselfsup.registry import MODELS
from torch import Tensor

from .photometric import build_policies


@MODELS.register_module()
class SoCoDataPreprocessor(BaseDataPreprocessor):
    """Augment the colours of each view, normalise it, erase the cutouts.

    Args:
        mean (Sequence[float]): Mean per channel, RGB, in 0 to 255.
        std (Sequence[float]): Standard deviation per channel, RGB, in 0 to 255.
        views (list[dict]): For each view the arguments of `PhotometricPolicy`.
        bgr_to_rgb (bool): Swap the channels first. Defaults to True: photos are read as BGR.
        non_blocking (bool): Copy to the device without waiting. Defaults to True.

    Raises:
        ValueError: A batch has another number of views than `views`.
    """

    def __init__(self, mean: Sequence[float], std: Sequence[float], views: List[Dict],
                 bgr_to_rgb: bool = True, non_blocking: bool = True) -> None:
        super().__init__(non_blocking=non_blocking)
        self.register_buffer('mean', torch.tensor(mean).view(1, 3, 1, 1) / 255, False)
        self.register_buffer('std', torch.tensor(std).view(1, 3, 1, 1) / 255, False)
        self.policies = build_policies(views)
        self.bgr_to_rgb = bgr_to_rgb

    def forward(self, data: Dict, training: bool = False) -> Dict:
        """Prepare a batch for `SoCo.forward`.

        Args:
            data (dict): `inputs` (V tensors (N, 3, H_v, W_v) uint8), `bboxes` ((N, P, 2, K, 4)),
                and for training `uniforms` ((N, V, 13)) and `cutouts` ((N, V, K, 4) int16).
            training (bool): Augment and erase. Otherwise views are normalised only.

        Returns:
            dict: `inputs` (V tensors (N, 3, H_v, W_v) float, normalised) and `bboxes`.
        """
        if len(data['inputs']) != len(self.policies):
            raise ValueError(
                f'The pipeline makes {len(data["inputs"])} views, but data_preprocessor.views '
                f'describes {len(self.policies)}: give one dict per view.')
        moved = self.cast_data({key: data[key] for key in ('inputs', 'bboxes')})
        views = []
        # Runners prepare batches inside autocast; colours are computed in float32 all the same.
        with torch.autocast(self.device.type, enabled=False):
            for v, images in enumerate(moved['inputs']):
                images = self.to_float(images)
                if training:
                    images = self.policies[v](images, data['uniforms'][:, v])
                images = (images - self.mean) / self.std
                if training:
                    images = self.erase(images, data['cutouts'][:, v])
                views.append(images)
        return dict(inputs=views, bboxes=moved['bboxes'])

    def to_float(self, images: Tensor) -> Tensor:
        """Turn uint8 (N, 3, H, W) into float RGB in [0, 1]."""
        if self.bgr_to_rgb:
            images = images.flip(1)
        return images.float() / 255

    @staticmethod
    def erase(images: Tensor, cutouts: Tensor) -> Tensor:
        """Set the rectangles (N, K, 4), x1 y1 x2 y2 half-open, of (N, 3, H, W) images to 0."""
        if not cutouts.any():  # on the CPU: nothing waits for the device
            return images
        corners = cutouts.to(images.device, non_blocking=True)
        x = torch.arange(images.shape[3], device=images.device)
        y = torch.arange(images.shape[2], device=images.device)
        for k in range(corners.shape[1]):
            x1, y1, x2, y2 = corners[:, k].unsqueeze(-1).unbind(dim=1)  # (N, 1) each
            inside = (((x >= x1) & (x < x2)).unsqueeze(1) & ((y >= y1) & (y < y2)).unsqueeze(2))
            images = images.masked_fill(inside.unsqueeze(1), 0.0)
        return images
