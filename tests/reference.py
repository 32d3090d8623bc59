"""A slow and simple reference implementation of SoCo in plain torch and torchvision.

The code is independent of ``projects.soco`` and does not import OpenMMLab. Modules have the names
of the official checkpoints (``encoder``, ``neck``, ``head``, ``projector``, ``predictor`` and the
target's copies ``*_k``), so the ``keys`` of a parity file are the keys of this model.

Letters: N images, V views, P = V - 1 view pairs, K boxes per image and pair, C channels.
"""
import copy
import json
import math
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn
from torchvision.ops import roi_align

NUM_VIEWS = {'SoCo_FPN': 3, 'SoCo_FPN_Star': 4, 'SoCo_C4': 2}
FPN_STRIDES = (4, 8, 16, 32)
LEVEL_BORDERS = (48., 96., 192.)


class Encoder(nn.Module):
    """ResNet of torchvision without classifier; returns C2, C3, C4, C5 (or stops at C4)."""

    def __init__(self, arch: str) -> None:
        super().__init__()
        resnet = getattr(torchvision.models, arch)(weights=None, zero_init_residual=True)
        self.channels = [stage[-1].conv2.out_channels if arch in ('resnet18', 'resnet34') else
                         stage[-1].conv3.out_channels for stage in
                         (resnet.layer1, resnet.layer2, resnet.layer3, resnet.layer4)]
        for name in ('conv1', 'bn1', 'layer1', 'layer2', 'layer3', 'layer4'):
            setattr(self, name, getattr(resnet, name))

    def forward(self, x: Tensor, stages: int = 4) -> list[Tensor]:
        x = F.max_pool2d(F.relu(self.bn1(self.conv1(x))), 3, stride=2, padding=1)
        outs = []
        for layer in (self.layer1, self.layer2, self.layer3, self.layer4)[:stages]:
            x = layer(x)
            outs.append(x)
        return outs


class ConvBN(nn.Module):

    def __init__(self, in_channels: int, out_channels: int, kernel: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, kernel, padding=kernel // 2, bias=False)
        self.bn = nn.BatchNorm2d(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.bn(self.conv(x))


class FPN(nn.Module):
    """P2 to P5: lateral 1x1, nearest upsampling, sum, 3x3 output; BN after every conv, no ReLU."""

    def __init__(self, in_channels: Sequence[int], channels: int) -> None:
        super().__init__()
        self.lateral_convs = nn.ModuleList([ConvBN(c, channels, 1) for c in in_channels])
        self.fpn_convs = nn.ModuleList([ConvBN(channels, channels, 3) for _ in in_channels])

    def forward(self, feats: list[Tensor]) -> list[Tensor]:
        merged = [lateral(x) for lateral, x in zip(self.lateral_convs, feats)]
        for i in (2, 1, 0):
            up = F.interpolate(merged[i + 1], size=merged[i].shape[-2:], mode='nearest')
            merged[i] = merged[i] + up
        return [conv(x) for conv, x in zip(self.fpn_convs, merged)]


class Head(nn.Module):
    """Four 3x3 conv + BN + ReLU, then FC + ReLU; (R, C, 7, 7) to (R, fc)."""

    def __init__(self, in_channels: int, channels: int, fc_channels: int) -> None:
        super().__init__()
        for i in (1, 2, 3, 4):
            in_width = in_channels if i == 1 else channels
            setattr(self, f'conv{i}', nn.Conv2d(in_width, channels, 3, padding=1, bias=False))
            setattr(self, f'bn{i}', nn.BatchNorm2d(channels))
        self.fc1 = nn.Linear(channels * 7 * 7, fc_channels)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.conv1(x)))
        x = F.relu(self.bn2(self.conv2(x)))
        x = F.relu(self.bn3(self.conv3(x)))
        x = F.relu(self.bn4(self.conv4(x)))
        return F.relu(self.fc1(x.flatten(1)))


class MLP(nn.Module):
    """Projector or predictor: linear, BN, ReLU, linear."""

    def __init__(self, in_channels: int, hidden: int, out_channels: int) -> None:
        super().__init__()
        self.linear1 = nn.Linear(in_channels, hidden)
        self.bn1 = nn.BatchNorm1d(hidden)
        self.linear2 = nn.Linear(hidden, out_channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear2(F.relu(self.bn1(self.linear1(x))))


def assign_levels(boxes: Tensor) -> Tensor:
    """Assign levels: (R, 4) half-open xyxy pixels of the view -> (R,), 0 = P2 ... 3 = P5."""
    levels = []
    for x1, y1, x2, y2 in boxes.tolist():
        size = math.sqrt((x2 - x1) * (y2 - y1))
        levels.append(sum(size > border for border in LEVEL_BORDERS))
    return torch.tensor(levels, dtype=torch.long)


def pool(feat: Tensor, boxes: Tensor, stride: int, size: int) -> Tensor:
    """Apply RoIAlign in float32: (N, C, h, w) and (N, K, 4) pixels -> (N*K, C, size, size)."""
    return roi_align(feat.float(), list(boxes.float()), output_size=size,
                     spatial_scale=1. / stride, sampling_ratio=0, aligned=True)


def cosine_loss(pred_a: Tensor, proj_b: Tensor, pred_b: Tensor, proj_a: Tensor) -> Tensor:
    """Return -2 * mean cos(pred_a, proj_b) plus the same with a and b exchanged; rows are objects."""

    def mean_cos(x: Tensor, y: Tensor) -> Tensor:
        return (F.normalize(x, dim=1) * F.normalize(y, dim=1)).sum(1).mean()

    return -2 * mean_cos(pred_a, proj_b) - 2 * mean_cos(pred_b, proj_a)


class SoCo(nn.Module):
    """Online and target networks; see :func:`build` and :meth:`forward`."""

    def __init__(self, kind: str, arch: str, fpn_channels: int, head_channels: int,
                 fc_channels: int, hidden: int, projection: int) -> None:
        super().__init__()
        self.kind = kind
        self.is_c4 = kind == 'SoCo_C4'
        self.encoder = Encoder(arch)
        obj_channels = self.encoder.channels[-1]
        if not self.is_c4:
            self.neck = FPN(self.encoder.channels, fpn_channels)
            self.head = Head(fpn_channels, head_channels, fc_channels)
            obj_channels = fc_channels
        self.projector = MLP(obj_channels, hidden, projection)
        self.predictor = MLP(projection, hidden, projection)
        for name in self.target_names():
            setattr(self, name + '_k', copy.deepcopy(getattr(self, name)).requires_grad_(False))

    def target_names(self) -> list[str]:
        return ['encoder', 'projector'] if self.is_c4 else ['encoder', 'neck', 'head', 'projector']

    @torch.no_grad()
    def update_target(self, momentum: float) -> None:
        """Set target = momentum * target + (1 - momentum) * online, for parameters only."""
        for name in self.target_names():
            online, target = getattr(self, name), getattr(self, name + '_k')
            for p, q in zip(online.parameters(), target.parameters()):
                q.copy_(momentum * q + (1 - momentum) * p)

    def features(self, view: Tensor, suffix: str = '') -> list[Tensor]:
        """Return the feature maps for RoI pooling: [C4], or [P2, P3, P4, P5]."""
        encoder = getattr(self, 'encoder' + suffix)
        if self.is_c4:
            return encoder(view, stages=3)[-1:]
        return getattr(self, 'neck' + suffix)(encoder(view))

    def roi_features(self, feats: list[Tensor], boxes: Tensor,
                     level: int | None = None) -> Tensor:
        """Pool RoI features: (N, K, 4) boxes -> (N*K, C, 7, 7), 14 for C4, in the order of the boxes.

        Each box is pooled from its own level, or from ``level`` if given.
        """
        if self.is_c4:
            return pool(feats[0], boxes, stride=16, size=14)
        if level is not None:
            return pool(feats[level], boxes, FPN_STRIDES[level], size=7)
        everywhere = [pool(x, boxes, s, size=7) for x, s in zip(feats, FPN_STRIDES)]
        own = assign_levels(boxes.reshape(-1, 4)).tolist()
        return torch.stack([everywhere[lvl][row] for row, lvl in enumerate(own)])

    def project(self, roi_feats: Tensor, suffix: str) -> Tensor:
        """Apply RoI head and projector: (R, C, s, s) -> (R, projection)."""
        if self.is_c4:
            obj = getattr(self, 'encoder' + suffix).layer4(roi_feats).mean(dim=(2, 3))
        else:
            obj = getattr(self, 'head' + suffix)(roi_feats)
        return getattr(self, 'projector' + suffix)(obj)

    def project_assigned(self, view: Tensor, pair_boxes: list[Tensor], suffix: str
                         ) -> list[Tensor]:
        """Project the boxes of all pairs of a view in one pass -> per pair (N*K, projection)."""
        feats = self.features(view, suffix)
        rois = [self.roi_features(feats, boxes) for boxes in pair_boxes]
        return list(self.project(torch.cat(rois), suffix).split([len(r) for r in rois]))

    def project_all_levels(self, view: Tensor, pair_boxes: list[Tensor], suffix: str
                           ) -> list[list[Tensor]]:
        """Project with one pass per pair and level -> per pair, per level (N*K, projection)."""
        feats = self.features(view, suffix)
        levels = range(len(feats))
        return [[self.project(self.roi_features(feats, boxes, level=lvl), suffix)
                 for lvl in levels] for boxes in pair_boxes]

    def keep_own_level(self, of_level: list[Tensor], boxes: Tensor) -> Tensor:
        """Select each row from its box's level: (R, C) per level, boxes (N, K, 4) -> (R, C)."""
        if self.is_c4:
            return of_level[0]
        own = assign_levels(boxes.reshape(-1, 4)).tolist()
        return torch.stack([of_level[lvl][row] for row, lvl in enumerate(own)])

    def forward(self, views: list[Tensor], boxes: Tensor, mode: str = 'assigned'
                ) -> dict[str, Tensor]:
        """Return the loss of every view pair (1, v) and their sum, without updating the target.

        Args:
            views (list[Tensor]): V tensors (N, 3, H_v, W_v), normalised.
            boxes (Tensor): (N, P, 2, K, 4), x1 y1 x2 y2 in pixels of view 1 (index 0) and view v (1).
            mode (str): 'assigned' pools each box from its own level. 'all_levels' has the structure of
                the official code: each box is pooled from every level, and the loss keeps the
                assigned level. Defaults to 'assigned'.

        Returns:
            dict[str, Tensor]: ``loss_1v`` of every pair, and their sum ``loss``.
        """
        assert len(views) == NUM_VIEWS[self.kind] and boxes.shape[1] == len(views) - 1
        # Boxes per view: view 1 is part of all pairs, view v of one pair.
        of_view = [[boxes[:, p, 0] for p in range(boxes.shape[1])]]
        of_view += [[boxes[:, p, 1]] for p in range(boxes.shape[1])]
        project = {'assigned': self.project_assigned, 'all_levels': self.project_all_levels}[mode]
        online = [project(view, b, '') for view, b in zip(views, of_view)]
        with torch.no_grad():
            target = [project(view, b, '_k') for view, b in zip(views, of_view)]

        losses = {}
        for pair in range(boxes.shape[1]):
            ends = []
            for view, index in ((0, pair), (pair + 1, 0)):
                pred, proj = online[view][index], target[view][index]
                if mode == 'assigned':
                    ends.append((self.predictor(pred), proj))
                else:
                    pred = [self.predictor(p) for p in pred]
                    ends.append([self.keep_own_level(x, of_view[view][index])
                                 for x in (pred, proj)])
            (pred_a, proj_a), (pred_b, proj_b) = ends
            losses[f'loss_1{pair + 2}'] = cosine_loss(pred_a, proj_b, pred_b, proj_a)
        losses['loss'] = sum(losses.values())
        return losses


def build(kind: str, arch: str = 'resnet50', fpn_channels: int = 256, head_channels: int = 256,
          fc_channels: int = 1024, hidden: int = 4096, projection: int = 256) -> SoCo:
    """Build a model of ``kind`` SoCo_FPN, SoCo_FPN_Star or SoCo_C4.

    The target is a copy of the online network. The defaults are the official widths. ``arch`` is
    torchvision's name.
    """
    return SoCo(kind, arch, fpn_channels, head_channels, fc_channels, hidden, projection)


def pseudo_random(name: str, seed: int, shape: Sequence[int]) -> np.ndarray:
    """Return float64 numbers in [-1, 1) that depend only on name, seed and index."""
    c = zlib.crc32(f'{seed}:{name}'.encode()) % 100003
    i = np.arange(math.prod(shape), dtype=np.float64)
    x = np.sin(12.9898 * i + 78.233 * c) * 43758.5453
    return (2 * (x - np.floor(x)) - 1).reshape(shape)


def fill_value(name: str, seed: int, shape: Sequence[int]) -> Tensor:
    """Return the float32 parity value of the tensor ``name`` of a state dict."""
    u = pseudo_random(name, seed, shape)
    if len(shape) >= 2:
        u = u * math.sqrt(3 / math.prod(shape[1:])) * math.sqrt(2)
    elif name.endswith('running_var'):
        u = 1 + 0.2 * u
    elif name.endswith('weight'):
        u = 1 + 0.1 * u
    else:
        u = 0.05 * u
    return torch.from_numpy(u).float()


@torch.no_grad()
def fill(module: nn.Module, seed: int) -> nn.Module:
    """Set every tensor of the state dict except ``num_batches_tracked`` to its parity value."""
    for name, tensor in module.state_dict().items():
        if not name.endswith('num_batches_tracked'):
            tensor.copy_(fill_value(name, seed, tensor.shape))
    return module


def fill_views(sizes: Sequence[int], batch: int, seed: int) -> list[Tensor]:
    """Return views of the given sizes, (batch, 3, s, s), values in [-1, 1)."""
    return [torch.from_numpy(pseudo_random(f'view{v}', seed, (batch, 3, s, s))).float()
            for v, s in enumerate(sizes, start=1)]


def load_parity(path: Path) -> dict:
    """Load a parity file and stack its boxes as ``boxes``: (N, P, 2, K, 4) pixels of the view."""
    data = json.loads(Path(path).read_text())
    pairs = []
    for key in sorted(data['pairs']):
        first, second = data['pairs'][key]['boxes1'], data['pairs'][key]['boxes2']
        pairs.append(torch.stack([torch.tensor(first) * data['sizes'][0],
                                  torch.tensor(second) * data['sizes'][int(key[1]) - 1]], dim=1))
    data['boxes'] = torch.stack(pairs, dim=1)
    return data


def lars_step(params: dict[str, Tensor], grads: dict[str, Tensor], buffers: dict[str, Tensor],
              lr: float, momentum: float = 0.9, weight_decay: float = 1e-5,
              trust_coefficient: float = 0.001, eps: float = 1e-8) -> None:
    """Perform one LARS step in place, in the official order; ``buffers`` is empty at first."""
    for name, p in params.items():
        g = grads[name].clone()
        if p.ndim > 1:
            g += weight_decay * p
            p_norm, g_norm = p.norm(), g.norm()
            if p_norm > 0 and g_norm > 0:
                g *= trust_coefficient * p_norm / (g_norm + eps)
        buffers[name] = momentum * buffers[name] + g if name in buffers else g
        p -= lr * buffers[name]


def learning_rate(iteration: int, peak: float, warmup_iters: int, max_iters: int,
                  multiplier: float = 100., eta_min: float = 1e-6) -> float:
    """Return the rate at ``iteration`` (from 0): linear from peak/multiplier, cosine to eta_min."""
    if iteration < warmup_iters:
        start = peak / multiplier
        return start + (peak - start) * iteration / warmup_iters
    done = (iteration - warmup_iters) / (max_iters - warmup_iters)
    return eta_min + (peak - eta_min) * (1 + math.cos(math.pi * done)) / 2


def target_momentum(k: int, total: int, base: float = 0.99) -> float:
    """Return the EMA momentum after k of ``total`` optimizer steps."""
    return 1 - (1 - base) * (math.cos(math.pi * k / total) + 1) / 2
