r"""Compare starts of a detector on your own annotations, and say whether pretraining pays.

    python tools/compare_starts.py DETECTOR --images PHOTOS --train train.json --val val.json \
        --start random --start imagenet.pth --start soco:work_dirs/my_photos

The same detector, schedule and data from each start. A comparison that was stopped continues when the
same command is run again. At the end, a verdict is printed, and a page with it is written.
"""
import argparse
import math
import signal
import sys
import time
from pathlib import Path

from projects.soco.launch.arguments import add_options_argument
from projects.soco.launch.errors import STOPPED, run_tool


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('detector', help="an mmdet config: a path, or mmdet::NAME for one of mmdet's")
    parser.add_argument('--images', required=True, metavar='DIR', help='folder of the photos')
    parser.add_argument('--train', required=True, metavar='JSON', help='COCO annotations to train on')
    parser.add_argument('--val', required=True, metavar='JSON', help='COCO annotations to evaluate on')
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
    from projects.soco.study.compare import Comparison, read_annotations, read_starts
    name = args.detector.rpartition('/')[2].removesuffix('.py').replace('mmdet::', '')
    folder = Path(args.work_dir or f'work_dirs/compare_{name}')
    starts = read_starts(args.starts)
    data = read_annotations(args.images, args.train, args.val, folder)

    from rich.console import Console

    import projects.soco.compat  # noqa: F401  (before anything of OpenMMLab)
    from projects.soco.detectors.read import read_detector
    from projects.soco.launch.checks import check_work_dir
    from projects.soco.runs.record import describe_hardware
    from projects.soco.study.compare_page import write_results
    from projects.soco.study.records import Records
    from projects.soco.study.verdict import outlook
    console = Console(highlight=False)
    detector, notes = read_detector(args.detector, args.cfg_options)
    comparison = Comparison(detector, data, starts, args.shares, args.seeds, folder, args.iters,
                            args.workers)
    sentence = outlook(data.val_photos, data.val_objects, args.seeds)
    facts = {
        'detector': args.detector, 'classes': ', '.join(data.classes),
        'photos': f'{len(data.rows["images"])} to train on, {data.val_photos} to evaluate on',
        'schedule': f'{comparison.fitted.train_cfg.max_iters} iterations, evaluated after '
                    + ', '.join(map(str, comparison.points)),
        'starts': '; '.join(f'{start.name}: {start.path or "random weights"}' for start in starts),
        'shares and seeds': f'{", ".join(map(str, comparison.shares))} % of the labels; seeds of '
                            f'fine-tuning: {args.seeds}; one pretraining for each start',
        'what it can show': sentence}
    for label, value in facts.items():
        console.print(f'[bold]{label}[/]: {value}', soft_wrap=True)
    for note in [*notes, *comparison.notes]:
        console.print(f'note: {note}', soft_wrap=True)
    if data.shared:
        facts['warning'] = (f'{len(data.shared)} photos are in train and in val, such as '
                            f'{data.shared[0]}: the AP is too high for all starts.')
        console.print(f'[bold red]{facts["warning"]}[/]', soft_wrap=True)
    console.print(f'{len(comparison.jobs())} detectors to train in {folder}', soft_wrap=True)
    if args.dry_run:
        return
    check_work_dir(folder)
    records = Records(folder / 'results.json', dict(study='compare_starts', **comparison.fingerprint()))
    for key, value in comparison.about().items():
        records.set(key, value)
    records.set('machine', describe_hardware())
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    code = 0
    try:
        if not comparison.run(records, console, deadline):
            code = STOPPED
    except KeyboardInterrupt:
        code = 130
    if records.content['records']:
        page, verdicts = write_results(records, folder, facts)
        for verdict in verdicts:
            console.print(f'\n[bold]{verdict}[/]', soft_wrap=True)
        console.print(f'\nPage, picture and numbers: {page}, compare_starts.png, results.json',
                      soft_wrap=True)
    if code:
        console.print('Stopped before the end; the same command continues.')
        sys.exit(code)


if __name__ == '__main__':
    run_tool(main)
