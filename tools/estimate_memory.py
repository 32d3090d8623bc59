"""Compute the GPU memory of pretraining configs without a GPU, and the batches that fit.

python tools/estimate_memory.py configs/soco_r50_fpn_400e.py
"""
from __future__ import annotations

import argparse
from pathlib import Path

from projects.soco.launch.errors import run_tool

SIZES = (24, 40, 48, 80)  # GB of common GPUs


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('configs', nargs='+', metavar='CONFIG', help='pretraining configs')
    parser.add_argument('--amp', choices=['no', 'fp16', 'bf16'], default='fp16',
                        help='precision (default: fp16, as in the recipes)')
    parser.add_argument('--batch', type=int, help="images per GPU, even (default: the config's)")
    args = parser.parse_args()
    if args.batch is not None and (args.batch < 2 or args.batch % 2):
        parser.error('--batch must be an even number of at least 2')
    return args


def main() -> None:
    args = parse_args()
    from projects.soco.launch.configs import load_config, register_modules
    configs = {Path(path).stem: load_config(path, {}, register=False) for path in args.configs}

    from rich.console import Console
    from rich.table import Table

    import projects.soco.compat  # noqa: F401  (before anything of OpenMMLab)
    from projects.soco.evaluation.rehearsal import rehearse
    table = Table(box=None, caption=f'GiB, computed, {args.amp}; last columns: batches that fit a GPU')
    for name in ('', 'batch', 'weights', 'DDP', 'saved for backward', 'sum',
                 *(f'{size} GB' for size in SIZES)):
        table.add_column(name, justify='right' if name else 'left', overflow='fold')
    for name, cfg in configs.items():
        register_modules(cfg)
        found = rehearse(cfg, args.amp, args.batch)
        table.add_row(name, str(found.batch_size), *(
            f'{count / 2**30:.1f}'
            for count in (found.weights, found.buckets, found.saved, found.total)),
            *(str(found.largest_batch(size * 1e9)) for size in SIZES))
    Console(markup=False).print(table)


if __name__ == '__main__':
    run_tool(main)
