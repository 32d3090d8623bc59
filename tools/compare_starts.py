r"""Compare starts of a detector on your own annotations, and say whether pretraining pays.

    python tools/compare_starts.py DETECTOR --images PHOTOS --train train.json --val val.json \
        --start random --start imagenet.pth --start soco:work_dirs/my_photos

The same detector, schedule and data from each start. A comparison that was stopped continues when the
same command is run again. At the end, a verdict is printed, and a page with it is written.
"""
import argparse
import math
import signal
import time
from pathlib import Path

from projects.soco.launch.arguments import add_options_argument
from projects.soco.launch.errors import run_tool


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('detector', help="an mmdet config: a path, or mmdet::NAME for one of mmdet's")
    parser.add_argument('--images', required=True, metavar='DIR', help='folder of the photos')
    parser.add_argument('--train', required=True, metavar='FILE', help='annotations to train on: COCO '
                        'json, or VOC XML or YOLO text files (docs/data.md)')
    parser.add_argument('--val', required=True, metavar='FILE', help='annotations to evaluate on')
    parser.add_argument('--start', action='append', required=True, dest='starts', metavar='START',
                        help='random, a file of weights, or soco:DIR with the work directory of a '
                        'pretraining; NAME=START gives it a name; at least two')
    parser.add_argument('--shares', nargs='+', type=int, default=[100], metavar='P',
                        help='percentages of the labels (default: 100)')
    parser.add_argument('--seeds', type=int, default=3, metavar='N', help='seeds of fine-tuning, and '
                        'of the choice of labels (default: 3)')
    parser.add_argument('--iters', type=int, metavar='N', help='iterations of the schedule (default: '
                        "the config's length)")
    parser.add_argument('--workers', type=int, default=1, metavar='N', help='concurrent trainings '
                        '(default: 1)')
    parser.add_argument('--work-dir', metavar='DIR', help='folder for trainings and results (default: '
                        'work_dirs/compare_<name of the detector>)')
    parser.add_argument('--minutes', type=float, metavar='M', help='stop after M minutes; the same '
                        'command continues (exit code 75)')
    add_options_argument(parser, 'train_dataloader.batch_size=8')
    parser.add_argument('--dry-run', action='store_true', help='check everything, say what the '
                        'comparison can show, and exit')
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    if args.minutes is not None and args.minutes <= 0:
        raise ValueError(f'--minutes must be more than 0, not {args.minutes}.')
    deadline = time.monotonic() + 60 * (args.minutes or math.inf)
    from projects.soco.study.inputs import read_annotations, read_starts
    name = args.detector.rpartition('/')[2].removesuffix('.py').replace('mmdet::', '')
    folder = Path(args.work_dir or f'work_dirs/compare_{name}')
    starts = read_starts(args.starts)

    from rich.console import Console

    import projects.soco.compat  # noqa: F401  (before anything of OpenMMLab)
    from projects.soco.detectors.fit import needs_masks
    from projects.soco.detectors.read import read_detector
    from projects.soco.study.compare import Comparison
    from projects.soco.study.compare_run import (
        facts_of,
        plan_warnings,
        run_comparison,
        show,
        warnings_of,
    )
    console = Console(highlight=False, markup=False)
    detector, notes = read_detector(args.detector, args.cfg_options)
    data = read_annotations(args.images, args.train, args.val, folder,
                            lambda line: console.print(line, soft_wrap=True), needs_masks(detector))
    comparison = Comparison(detector, data, starts, args.shares, args.seeds, folder, args.iters,
                            args.workers)
    comparison.notes = [*notes, *comparison.notes]
    comparison.check_starts()
    facts, warnings = facts_of(comparison, args.detector), [*warnings_of(data),
                                                            *plan_warnings(comparison)]
    show(facts, warnings, console)
    console.print(f'{len(comparison.jobs())} detectors to train in {folder}', soft_wrap=True)
    if args.dry_run:
        return
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    run_comparison(comparison, facts, warnings, console, deadline)


if __name__ == '__main__':
    run_tool(main)
