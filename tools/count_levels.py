"""Print the pyramid levels of a data set's boxes in each view, and the share that moves to another.

python tools/count_levels.py configs/soco_r50_fpn_without_p2_400e.py
"""
import argparse

from projects.soco.launch.arguments import add_options_argument
from projects.soco.launch.errors import run_tool


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('config', help='pretraining config with a feature pyramid')
    parser.add_argument('--samples', type=int, default=1000, help='samples to draw (default 1000)')
    add_options_argument(parser, 'train_dataloader.dataset.proposals=FILE')
    args = parser.parse_args()
    if args.samples < 1:
        raise ValueError('--samples must be at least 1.')
    return args


def main() -> None:
    args = parse_args()
    from projects.soco.launch.checks import check_inputs
    from projects.soco.launch.configs import load_config, register_modules
    cfg = load_config(args.config, args.cfg_options, register=False)
    check_inputs(cfg)

    from rich.console import Console
    from rich.table import Table

    import projects.soco.compat  # noqa: F401  (before any import of OpenMMLab)
    from projects.soco.datasets.transforms import transform_in
    from projects.soco.evaluation.levels import count_levels
    from projects.soco.models.roi_heads import level_name
    register_modules(cfg)
    counts = count_levels(cfg, args.samples)
    shares = 100 * counts / counts.sum(dim=1, keepdim=True)
    finest = [view.get('finest_level', 0) for view in transform_in(cfg, 'ProposalViews').views]
    names = [level_name(stride) for stride in cfg.model.roi_head.bbox_roi_extractor.featmap_strides]
    table = Table(title='% of the boxes by the level of their size', box=None)
    for column in ('view', *names, 'moved'):
        table.add_column(column, justify='right')
    for v, (row, first) in enumerate(zip(shares, finest, strict=True)):
        moved = f'{row[:first].sum():.2f} to {names[first]}' if first else '0'
        table.add_row(f'{v + 1}', *(f'{share:.2f}' for share in row), moved)
    console = Console(markup=False)
    console.print(table)
    console.print(f'{int(counts.sum())} boxes of {args.samples} samples')


if __name__ == '__main__':
    run_tool(main)
