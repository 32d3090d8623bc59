"""Draw the curves of one or several runs into one picture: losses, AP, rate, speed, spread, levels.

    python tools/plot_curves.py work_dirs/soco_r50_fpn_100e
    python tools/plot_curves.py work_dirs/one work_dirs/another --out both.png

A resumed run is drawn as one run.
"""
import argparse
from pathlib import Path

from projects.soco.launch.errors import run_tool


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('work_dirs', nargs='+', type=Path, metavar='WORK_DIR',
                        help='work directory of a run, either pretraining or a detector')
    parser.add_argument('--out', type=Path, help='PNG file to write (default: curves.png in the first '
                        'WORK_DIR)')
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    from projects.soco.pictures.curves import draw_training
    from projects.soco.runs.log import read_runs
    print(draw_training(read_runs(args.work_dirs), args.out or args.work_dirs[0] / 'curves.png'))


if __name__ == '__main__':
    run_tool(main)
