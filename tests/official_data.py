"""SoCo's data pipeline in the style of the official release: PIL and torchvision, one photo at a time.

The worker decodes each photo with PIL, crops and resizes it once per view, applies the colour
transforms, converts it to a tensor and normalises it. The code is independent of
``projects.soco.datasets``. Only the proposal store is read through the project, because reading it is
not part of the comparison.

Crop windows are drawn before pixels are touched, until the views share enough proposals.
"""
import io
import random
from collections.abc import Sequence

import numpy as np
import torch
import torchvision.transforms as T
import torchvision.transforms.functional as TF
from mmengine.config import Config
from PIL import Image, ImageFilter, ImageOps
from torch import Tensor
from torch.utils.data import Dataset

from projects.soco.datasets.transforms import GEOMETRY
from projects.soco.proposals.sources import open_source
from projects.soco.proposals.store import ProposalStore

Box = tuple[float, float, float, float]


class Blur:
    """PIL's Gaussian blur with a random sigma per image."""

    def __init__(self, sigma: Sequence[float]) -> None:
        self.sigma = sigma

    def __call__(self, image: Image.Image) -> Image.Image:
        return image.filter(ImageFilter.GaussianBlur(radius=random.uniform(*self.sigma)))


class Solarize:
    """Invert pixel values of at least 128 with a given probability."""

    def __init__(self, prob: float) -> None:
        self.prob = prob

    def __call__(self, image: Image.Image) -> Image.Image:
        return ImageOps.solarize(image, threshold=128) if random.random() < self.prob else image


def colour_transform(brightness: float = 0.4, contrast: float = 0.4, saturation: float = 0.2,
                     hue: float = 0.1, jitter_prob: float = 0.8, grey_prob: float = 0.2,
                     blur_prob: float = 1.0, blur_sigma: Sequence[float] = (0.1, 2.0),
                     solarize_prob: float = 0.0) -> T.Compose:
    """Return the colour transforms of one view, for PIL images."""
    return T.Compose([
        T.RandomApply([T.ColorJitter(brightness, contrast, saturation, hue)], p=jitter_prob),
        T.RandomGrayscale(p=grey_prob),
        T.RandomApply([Blur(blur_sigma)], p=blur_prob),
        Solarize(solarize_prob),
    ])


class OfficialData(Dataset):
    """Data set of photos, proposals and views in the official style.

    Args:
        data_root (str): See ``SoCoDataset``.
        proposals (str): See ``SoCoDataset``.
        views (list[dict]): As in ``ProposalViews``: ``size``, and ``area`` or ``same_window_as``.
        colours (list[dict]): Arguments of ``colour_transform``, one dict per view.
        mean (Sequence[float]): Per channel, RGB, 0 to 255.
        std (Sequence[float]): Per channel, RGB, 0 to 255.
        num_proposals (int): See ``ProposalViews``. Defaults to 4.
        jitter_prob (float): See ``ProposalViews``. Defaults to 0.5.
        jitter_ratio (float): See ``ProposalViews``. Defaults to 0.1.
        flip_prob (float): See ``ProposalViews``. Defaults to 0.5.
        cutout_prob (float): ``prob`` of ``ProposalCutout``. Defaults to 0.0.
        cutout_area (Sequence[float]): ``area`` of ``ProposalCutout``. Defaults to (0.1, 0.3).
    """

    def __init__(self, data_root: str, proposals: str, views: list[dict], colours: list[dict],
                 mean: Sequence[float], std: Sequence[float], num_proposals: int = 4,
                 jitter_prob: float = 0.5, jitter_ratio: float = 0.1, flip_prob: float = 0.5,
                 cutout_prob: float = 0.0, cutout_area: Sequence[float] = (0.1, 0.3)) -> None:
        self.source, self.store = open_source(data_root), ProposalStore.open(proposals)
        self.views = views
        self.colours = [colour_transform(**settings) for settings in colours]
        self.mean, self.std = [m / 255 for m in mean], [s / 255 for s in std]
        self.num_proposals = num_proposals
        self.jitter_prob, self.jitter_ratio, self.flip_prob = jitter_prob, jitter_ratio, flip_prob
        self.cutout_prob, self.cutout_area = cutout_prob, cutout_area

    def __len__(self) -> int:
        return len(self.store)

    def __getitem__(self, index: int) -> tuple[list[Tensor], Tensor]:
        """Return normalised views (3, H, W) and the boxes (P, 2, K, 4) of the view pairs."""
        row = self.store[index]
        image = Image.open(io.BytesIO(self.source.read_bytes(row.image))).convert('RGB')
        windows, picks = self.draw_windows(image, row.boxes)
        views, flips = [], []
        for view, window, colours in zip(self.views, windows, self.colours):
            left, top, width, height = window
            picture = TF.resized_crop(image, top, left, height, width, [view['size']] * 2)
            flips.append(random.random() < self.flip_prob)
            picture = TF.hflip(picture) if flips[-1] else picture
            views.append(TF.normalize(TF.to_tensor(colours(picture)), self.mean, self.std))
        bboxes = []
        for v, chosen in enumerate(picks, start=1):
            moved = [self.jitter(box) for box in chosen]
            pair = []
            for number, boxes in ((0, moved), (v, chosen)):
                size = self.views[number]['size']
                boxes = [to_view(box, windows[number], size) for box in boxes]
                pair.append([flip_box(box, size) if flips[number] else box for box in boxes]
                            or [(0., 0., size, size)] * self.num_proposals)
            for box in pair[1]:
                if random.random() < self.cutout_prob:
                    erase(views[v], box, self.cutout_area)
            bboxes.append(pair)
        return views, torch.tensor(bboxes)

    def draw_windows(self, image: Image.Image,
                     proposals: np.ndarray) -> tuple[list[tuple[int, ...]], list[list[Box]]]:
        """Draw crops, up to five times, until each pair shares two proposals, and choose K of these."""
        wanted = 2
        for _ in range(5):
            windows: list[tuple[int, ...]] = []
            for view in self.views:
                if 'same_window_as' in view:
                    windows.append(windows[view['same_window_as']])
                elif 'area' in view:
                    top, left, height, width = T.RandomResizedCrop.get_params(
                        image, list(view['area']), list(view.get('ratio', (3 / 4, 4 / 3))))
                    windows.append((left, top, width, height))
                else:
                    windows.append((0, 0, *image.size))
            shared = [[tuple(box) for box in proposals.tolist()
                       if meets(box, windows[0]) and meets(box, window)] for window in windows[1:]]
            if min(len(boxes) for boxes in shared) >= wanted:
                break
            wanted = 1
        picks = []
        for view, boxes in zip(self.views[1:], shared):
            if 'same_window_as' in view:
                picks.append(picks[view['same_window_as'] - 1])
                continue
            chosen = random.sample(boxes, min(self.num_proposals, len(boxes)))
            if chosen:
                chosen += random.choices(chosen, k=self.num_proposals - len(chosen))
            picks.append(chosen)
        return windows, picks

    def jitter(self, box: Box) -> Box:
        """Move and scale a box at random."""
        if random.random() >= self.jitter_prob:
            return box
        x1, y1, x2, y2 = box
        dx, dy, dw, dh = (random.uniform(-self.jitter_ratio, self.jitter_ratio) for _ in range(4))
        w, h = x2 - x1, y2 - y1
        x1, y1 = x1 + dx * w, y1 + dy * h
        return x1, y1, x1 + w * (1 + dw), y1 + h * (1 + dh)


def meets(box: Sequence[float], window: Sequence[int]) -> bool:
    """Return whether a box overlaps a window (left, top, width, height)."""
    x, y, w, h = window
    return min(box[2], x + w) > max(box[0], x) and min(box[3], y + h) > max(box[1], y)


def to_view(box: Box, window: Sequence[int], size: int) -> Box:
    """Clip a box to a window and convert it to pixels of the view."""
    x, y, w, h = window
    return (min(max(box[0] - x, 0), w) * size / w, min(max(box[1] - y, 0), h) * size / h,
            min(max(box[2] - x, 0), w) * size / w, min(max(box[3] - y, 0), h) * size / h)


def flip_box(box: Box, size: int) -> Box:
    """Flip a box horizontally in a view."""
    return size - box[2], box[1], size - box[0], box[3]


def erase(view: Tensor, box: Box, area: Sequence[float]) -> None:
    """Zero a square around a random point in a box; ``area`` is its range relative to the box."""
    w, h = box[2] - box[0], box[3] - box[1]
    side = round((random.uniform(*area) * w * h)**0.5)
    x, y = box[0] + random.random() * w, box[1] + random.random() * h
    x1, y1 = max(int(x) - side // 2, 0), max(int(y) - side // 2, 0)
    view[:, y1:int(y) + side // 2 + 1, x1:int(x) + side // 2 + 1] = 0


def official_data(cfg: Config) -> OfficialData:
    """Build the data set with the settings of a pretraining config."""
    data, model = cfg.train_dataloader.dataset, cfg.model.data_preprocessor
    steps = {step['type']: {k: v for k, v in step.items() if k != 'type'} for step in data.pipeline}
    cutout = {f'cutout_{key}': value for key, value in steps.get('ProposalCutout', {}).items()}
    views = steps['ProposalViews'].pop('views')
    return OfficialData(
        data.data_root, data.proposals, views=views, mean=model.mean, std=model.std,
        colours=[{key: value for key, value in view.items() if key not in GEOMETRY} for view in views],
        **steps['ProposalViews'], **cutout)
