"""Time whole training steps: images/s, memory, GFLOP, and the time of each stage.

python tools/benchmark_step.py configs/soco_r50_fpn_400e.py --batch 4 --reference
"""
from __future__ import annotations

import argparse
import functools
import json
import platform
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from projects.soco.launch.arguments import hide_devices
from projects.soco.launch.errors import run_tool

if TYPE_CHECKING:
    import torch

    from projects.soco.evaluation.step import Timing

ROOT = Path(__file__).resolve().parents[1]
REFERENCE = 'reference'


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('configs', nargs='*', metavar='CONFIG', help='pretraining configs, timed '
                        'alternately (default: configs/soco_r50_fpn_400e.py)')
    parser.add_argument('--reference', action='store_true', help='also time the recipe of the first '
                        'config in the structure of the official release, alternating each step, and '
                        'print the ratios (needs tests/ of a checkout)')
    parser.add_argument('--device', choices=['cpu', 'cuda'], help='default: cuda if available')
    parser.add_argument('--batch', type=int, default=4, help='images per step (default 4)')
    parser.add_argument('--amp', choices=['no', 'fp16', 'bf16'], help='precision of all contenders '
                        '(default: fp16 on CUDA, as in the configs; no on a CPU)')
    parser.add_argument('--channels-last', choices=['yes', 'no', 'both'], help='memory format of '
                        'weights and views of all contenders; both times each in the two formats '
                        '(default: that of the first config)')
    parser.add_argument('--compile', choices=['yes', 'no'], help="whether the configs' backbone and "
                        'neck are compiled (default: as in the first config)')
    parser.add_argument('--steps', type=int, default=7, help='timed steps (default 7)')
    parser.add_argument('--warmup', type=int, default=3, help='warm-up steps, at least 2 (default 3)')
    parser.add_argument('--json', type=Path, metavar='OUT', help='also write all figures to this file')
    args = parser.parse_args()
    if args.device == 'cpu':
        hide_devices()
    args.configs = args.configs or [str(ROOT / 'configs/soco_r50_fpn_400e.py')]
    if args.batch < 2 or args.steps < 1 or args.warmup < 2:
        raise ValueError('--batch and --warmup must be at least 2 (BN needs two rows), --steps at '
                         'least 1.')
    return args


def set_device(args: argparse.Namespace) -> None:
    """Set the defaults that depend on the machine."""
    import torch
    args.device = args.device or ('cuda' if torch.cuda.is_available() else 'cpu')
    args.amp = args.amp or ('fp16' if args.device == 'cuda' else 'no')
    if args.device == 'cuda' and not torch.cuda.is_available():
        raise ValueError('There is no CUDA device here. Use --device cpu.')


def gather_builders(args: argparse.Namespace, configs: dict, device: torch.device) -> dict:
    from projects.soco.evaluation.step import project_contender
    makers = {name: lambda last, cfg=cfg: project_contender(cfg, device, args.amp, last, args.compile)
              for name, cfg in configs.items()}
    if args.reference:
        if not (ROOT / 'tests/official_step.py').is_file():
            raise FileNotFoundError(f'--reference needs {ROOT / "tests/official_step.py"}. Run this '
                                    'tool from a checkout of the repository.')
        sys.path.insert(0, str(ROOT / 'tests'))
        from official_step import official_contender
        cfg = next(iter(configs.values()))
        makers[REFERENCE] = lambda last: official_contender(cfg, device, args.amp, last)
    if args.channels_last == 'both':
        return {f'{name}{label}': functools.partial(make, last) for name, make in makers.items()
                for label, last in (('', False), (', channels_last', True))}
    return {name: functools.partial(make, args.channels_last == 'yes') for name, make in makers.items()}


def print_table(console: Console, found: dict[str, Timing], batch: int,
                peak: float | None) -> None:
    table = Table(box=None, caption='medians; backbone to projector: online and target network')
    table.add_column('')
    for name in found:
        table.add_column(name, justify='right', overflow='fold')
    reference = found.get(REFERENCE)

    def row(label: str, text) -> None:
        table.add_row(label, *(text(timing) for timing in found.values()))

    row('images/s', lambda t: f'{1000 * batch / t.step:.2f}')
    row('ms per step', lambda t: f'{t.step:.1f}')
    if reference:
        row('times the reference', lambda t: f'{reference.step / t.step:.2f}')
    row('GFLOP per image and step', lambda t: f'{t.gflop:.1f}')
    if peak:
        row('% of the measured matrix peak',
            lambda t: f'{100 * t.gflop * 1e9 * batch / (t.step / 1000) / peak:.0f}')
    row('peak memory (MiB)', lambda t: f'{t.memory / 2**20:.0f}')
    if all(t.syncs is not None for t in found.values()):
        row('host syncs per step', lambda t: f'{t.syncs}')
    table.add_section()
    stages = dict.fromkeys(stage for t in found.values() for stage in t.stages if stage)
    for stage in [*sorted(stages, key=list(STAGES).index), '']:
        row(STAGES[stage], lambda t, stage=stage: f'{t.stages[stage]:.1f} ms' if stage in t.stages
            else '')
    console.print(table)


STAGES = dict(
    preprocessor='preprocessor', backbone='backbone', neck='neck', roi_head='RoIAlign and box head',
    projector='projector', loss='predictor and loss', backward='backward', optimiser='optimiser',
    EMA='EMA')
STAGES[''] = 'the rest'


def main() -> None:
    args = parse_args()
    from projects.soco.launch.configs import load_config, register_modules
    stems = [Path(path).stem for path in args.configs]
    configs = {path if stems.count(stem) > 1 else stem: load_config(path, {}, register=False)
               for path, stem in zip(args.configs, stems, strict=True)}
    set_device(args)

    import torch

    import projects.soco.compat  # noqa: F401  (before anything of OpenMMLab)
    from projects.soco.evaluation.step import made_up_data, matrix_peak, measure_steps
    for cfg in configs.values():
        register_modules(cfg)
    device = torch.device(args.device)
    first = next(iter(configs.values()))
    torch.backends.cudnn.benchmark = first.env_cfg.cudnn_benchmark
    torch.manual_seed(0)
    data = made_up_data(first, args.batch, pin=args.device == 'cuda')
    args.channels_last = args.channels_last or (
        'yes' if first.model.get('channels_last', False) else 'no')
    args.compile = (first.model.get('compile_features', False) if args.compile is None else
                    args.compile == 'yes')
    builders = gather_builders(args, configs, device)
    console = Console(markup=False)
    name = torch.cuda.get_device_name() if args.device == 'cuda' else platform.processor()
    console.print(f'{name or "CPU"}, {torch.get_num_threads()} CPU threads, torch '
                  f'{torch.__version__}, batch {args.batch}, precision: {args.amp}'
                  f'{", channels_last" if args.channels_last == "yes" else ""}'
                  f'{", compiled" if args.compile else ""}')
    with Progress(console=console, transient=True) as progress:
        bar = progress.add_task('steps', total=len(builders) * (args.steps + 1))
        found = measure_steps(builders, data, device, args.steps, args.warmup,
                              lambda: progress.advance(bar))
    peak = matrix_peak(device, args.amp) if args.device == 'cuda' else None
    print_table(console, found, args.batch, peak)
    if args.json:
        figures = dict(vars(args), json=None, threads=torch.get_num_threads(), matrix_flops=peak,
                       found={name: timing._asdict() for name, timing in found.items()})
        args.json.write_text(json.dumps(figures, indent=1) + '\n')
        console.print(f'All figures are in {args.json}')


if __name__ == '__main__':
    run_tool(main)
