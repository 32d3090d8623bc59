"""Compare the project's model with numbers from the official code.

    python tests/parity.py tests/data/parity/fpn_r18.json ...

Weights and views are generated as in `tests/reference.py`. The weights are loaded through the converter
for official checkpoints. Then losses and features are compared one by one.
"""
import argparse
import sys
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
for folder in (ROOT, ROOT / 'tests'):
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))

import torch  # noqa: E402
from mmengine.config import Config  # noqa: E402
from mmengine.registry import init_default_scope  # noqa: E402

import reference  # noqa: E402
from projects.soco.compat.cpu import cpu_config  # noqa: E402
from projects.soco.weights.convert import from_official  # noqa: E402

LOSS_TOLERANCE = 1e-4  # absolute
FEATURE_TOLERANCE = 1e-4  # relative to the mean magnitude of the level
GRADIENT_TOLERANCE = 1e-3  # relative
ROUNDING = 5  # times larger in channels_last, in which BN sums in another order


class Difference(NamedTuple):
    what: str
    official: float
    ours: float
    difference: float
    tolerance: float


RECIPES = {
    'SoCo_FPN': 'soco_r50_fpn_400e.py',
    'SoCo_FPN_Star': 'soco_r50_fpn_star_400e.py',
    'SoCo_C4': 'soco_r50_c4_100e.py',
}


def build_model(kind: str, arch: str) -> torch.nn.Module:
    """Build the project's model for the kind and architecture of a parity file."""
    init_default_scope('mmselfsup')
    cfg = cpu_config(Config.fromfile(ROOT / 'configs' / RECIPES[kind], import_custom_modules=False))
    from mmselfsup.registry import MODELS

    import projects.soco.models  # noqa: F401
    cfg.model.backbone.depth = int(arch[len('resnet'):])
    if cfg.model.backbone.depth < 50:
        cfg.model.neck.in_channels = [64, 128, 256, 512]
    return MODELS.build(cfg.model)


def load_official(model: torch.nn.Module, data: dict) -> None:
    """Load the parity weights through the converter and check that every key is used."""
    weights = {name: reference.fill_value(name, data['seed'], shape)
               for name, shape in data['keys'].items()
               if not name.endswith('num_batches_tracked') and not name.startswith('queue')}
    missing, unexpected = model.load_state_dict(from_official(weights), strict=False)
    missing = [key for key in missing if not key.endswith('num_batches_tracked')]
    if missing or unexpected:
        raise ValueError('The official keys do not match the model: '
                         f'missing {missing[:5]}, extra {unexpected[:5]}')


def compare(path: Path, channels_last: bool = False) -> list[Difference]:
    """Run the comparison for one parity file and return all differences."""
    data = reference.load_parity(path)
    model = build_model(data['kind'], data['arch'])
    model.memory_format = torch.channels_last if channels_last else torch.contiguous_format
    model.to(memory_format=model.memory_format)
    load_official(model, data)
    views = reference.fill_views(data['sizes'], data['batch'], data['seed'])
    model.eval()
    with torch.no_grad():
        losses = model.loss(views, data['boxes'])
    rows = []
    for pair, official in ((k, v['loss']) for k, v in data['pairs'].items() if 'loss' in v):
        ours = float(losses[f'loss_{pair}'])
        rows.append(Difference(f'loss {pair}', official, ours, abs(ours - official),
                               LOSS_TOLERANCE))
    total = float(sum(v for k, v in losses.items() if k.startswith('loss')))
    rows.append(Difference('loss', data['loss'], total, abs(total - data['loss']), LOSS_TOLERANCE))
    if 'fpn_view1' in data:
        rows += compare_levels(model, views[0], data['fpn_view1'])
    if 'train_mode' in data:
        rows += compare_training(model, views, data)
    return rows


def compare_levels(model: torch.nn.Module, view: torch.Tensor, levels: list) -> list[Difference]:
    """Compare the FPN features of view 1: shape, means and sampled values of each level."""
    with torch.no_grad():
        feats = model.neck(model.backbone(view))
    rows = []
    feats = feats[:len(levels)]  # the FPN of a detector adds P6
    for i, (feat, official) in enumerate(zip(feats, levels, strict=True)):
        if list(feat.shape) != official['shape']:
            raise ValueError(f'P{i + 2} has shape {list(feat.shape)}; the official shape is '
                             f'{official["shape"]}')
        probes = feat.flatten()[::feat.numel() // 8][:8].tolist()
        ours = [float(feat.mean()), float(feat.abs().mean()), *probes]
        theirs = [official['mean'], official['absmean'], *official['probe']]
        names = ['mean', 'mean |x|'] + [f'probe {n}' for n in range(8)]
        for name, a, b in zip(names, theirs, ours, strict=True):
            rows.append(Difference(f'P{i + 2} {name}', a, b, abs(a - b) / official['absmean'],
                                   FEATURE_TOLERANCE))
    return rows


def compare_training(model: torch.nn.Module, views: list[torch.Tensor],
                     data: dict) -> list[Difference]:
    """Compare loss and gradients in training mode, with BN using batch statistics."""
    official = data['train_mode']
    model.train()
    model.zero_grad()
    losses = model.loss(views, data['boxes'])
    loss = sum(v for k, v in losses.items() if k.startswith('loss'))
    loss.backward()
    loss = float(loss.detach())
    rows = [Difference('train loss', official['loss'], loss,
                       abs(loss - official['loss']), LOSS_TOLERANCE)]
    params = dict(model.named_parameters())
    for name, norm in official['grad_norms'].items():
        (ours_name, ) = from_official({name: torch.empty(0)})
        ours = float(params[ours_name].grad.norm())
        rounding = ROUNDING if model.memory_format == torch.channels_last else 1
        rows.append(Difference(f'|grad {name}|', norm, ours, abs(ours - norm) / norm,
                               rounding * GRADIENT_TOLERANCE))
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('files', nargs='+', type=Path, help='parity files (JSON)')
    parser.add_argument('--channels-last', action='store_true', help='compare in the memory format of '
                        "the recipes, with a wider tolerance of gradients (default: torch's)")
    args = parser.parse_args()
    failed = 0
    for path in args.files:
        rows = compare(path, args.channels_last)
        print(f'{path}\n  {"":32}{"official":>14}{"ours":>14}{"difference":>12}{"allowed":>10}')
        for row in rows:
            bad = not row.difference <= row.tolerance
            failed += bad
            print(f'  {row.what:32}{row.official:14.7f}{row.ours:14.7f}{row.difference:12.1e}'
                  f'{row.tolerance:10.0e}{"  EXCEEDED" if bad else ""}')
        print(f'  largest difference of the losses: '
              f'{max(r.difference for r in rows if "loss" in r.what):.1e}')
    return 1 if failed else 0


if __name__ == '__main__':
    sys.exit(main())
