"""Print on which pyramid levels a data set's boxes fall in each view, and which of them move.

    python tools/count_levels.py configs/soco_r50_fpn_without_p2_400e.py
"""
import argparse

from mmengine.config import DictAction
from rich.console import Console
from rich.table import Table

import projects.soco.compat  # noqa: F401  (before anything of OpenMMLab)
from projects.soco.evaluation.levels import count_levels
from projects.soco.launch import load_config, run_tool


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('config', help='pretraining config with a pyramid')
    parser.add_argument('--samples', type=int, default=1000, help='samples to draw (default 1000)')
    parser.add_argument('--cfg-options', nargs='+', action=DictAction, default={}, metavar='KEY=VALUE',
                        help='change keys of the config, such as '
                        'train_dataloader.dataset.proposals=FILE')
    args = parser.parse_args()
    if args.samples < 1:
        raise ValueError('--samples must be at least 1.')
    return args


def main() -> None:
    args = parse_args()
    cfg = load_config(args.config, args.cfg_options)
    counts = count_levels(cfg, args.samples)
    shares = 100 * counts / counts.sum(dim=1, keepdim=True)
    finest = cfg.model.get('finest_levels') or [0] * len(counts)
    table = Table(title='% of the boxes, by size', box=None)
    for column in ('view', *(f'P{level + 2}' for level in range(counts.shape[1])), 'moved'):
        table.add_column(column, justify='right')
    for v, (row, first) in enumerate(zip(shares, finest, strict=True)):
        moved = f'{row[:first].sum():.2f} to P{first + 2}' if first else '0'
        table.add_row(f'{v + 1}', *(f'{share:.2f}' for share in row), moved)
    console = Console()
    console.print(table)
    console.print(f'{int(counts.sum())} boxes of {args.samples} samples')


if __name__ == '__main__':
    run_tool(main)
