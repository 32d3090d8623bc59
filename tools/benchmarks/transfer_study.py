"""Compare starts of a detector on several data sets: pretrain, train detectors, pool the differences.

    python tools/benchmarks/transfer_study.py configs/benchmarks/transfer_study/own_photos.py \
        --data DIR --weights work_dirs/lite0.pth

It pretrains with tools/pretrain_detector.py and trains detectors as tools/compare_starts.py does. Each
result is written as soon as it is available. To resume a study that was stopped, run the same command
again. See docs/results/own_photos.md.
"""
from __future__ import annotations

import argparse
import math
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from projects.soco.launch.errors import STOPPED, run_tool

if TYPE_CHECKING:
    from projects.soco.study.run import StudyRun

console = Console(highlight=False, markup=False)


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('study', help='config of a study, see '
                        'configs/benchmarks/transfer_study/own_photos.py')
    parser.add_argument('--data', required=True, metavar='DIR', help="folder that the paths of the "
                        "study's sets are relative to")
    parser.add_argument('--weights', metavar='FILE', help='weights that starts and pretrainings with '
                        'weights=True start from (tools/benchmarks/imagenet_lite0.py)')
    parser.add_argument('--work-dir', metavar='DIR', help='folder for runs and results (default: '
                        'work_dirs/<name of the study>)')
    parser.add_argument('--workers', type=int, default=1, metavar='N', help='concurrent jobs '
                        '(default: 1)')
    parser.add_argument('--minutes', type=float, metavar='M', help='stop after M minutes; the same '
                        'command continues (exit code 75)')
    parser.add_argument('--plan', action='store_true', help='list all jobs, mark the finished ones, '
                        'and exit')
    return parser.parse_args()


def summarise(run: StudyRun, folder: Path) -> None:
    """Pool the differences, and write tables, picture and the page of each data set."""
    from projects.soco.files import write_whole
    from projects.soco.study.summary import draw, draw_differences, pooled_differences, tables
    pages = list(run.write_pages())
    if not pages:
        return
    study, records = run.study, run.records
    shares = sorted({share for step in study.steps for share in step.shares})
    records.set('titles', {name: start.title for name, start in study.starts.items()})
    records.set('pooled', pooled_differences(run.results, study.pairs, shares))
    kept = ('shares', 'seeds', 'starts', 'train', 'val', 'verdicts', 'records')
    records.set('sets', {name: {key: one.content[key] for key in kept if key in one.content}
                         for name, one in run.results.items() if one.content['records']})
    text = '\n\n'.join(tables(records.content)) + '\n'
    write_whole(folder / 'tables.md', text.encode())
    console.print(text, soft_wrap=True)
    pictures = [draw(records.content, folder / 'transfer_study.png')]
    if records.content['pooled']:
        pictures.append(draw_differences(records.content, folder / 'differences.png'))
    for path in (records.path, folder / 'tables.md', *pictures, *pages):
        console.print(str(path), soft_wrap=True)


def main() -> None:
    args = parse_args()
    if args.minutes is not None and args.minutes <= 0:
        raise ValueError(f'--minutes must be more than 0, not {args.minutes}.')
    if args.workers < 1:
        raise ValueError(f'--workers must be at least 1, not {args.workers}.')
    deadline = time.monotonic() + 60 * (args.minutes or math.inf)
    from projects.soco.launch.checks import check_work_dir
    from projects.soco.study.plan import read_study
    study = read_study(args.study)
    if study.needs_weights and not args.weights:
        raise ValueError(f'{args.study} has starts from weights. Set --weights FILE.')
    if args.weights and not Path(args.weights).is_file():
        raise FileNotFoundError(f'There are no weights at {args.weights} (--weights).')
    folder = Path(args.work_dir or f'work_dirs/{study.name}')
    check_work_dir(folder)

    import projects.soco.compat  # noqa: F401  (before anything of OpenMMLab)
    from projects.soco.files import hash_of
    from projects.soco.runs.record import describe_hardware
    from projects.soco.study.records import Records
    from projects.soco.study.run import StudyRun
    about = dict(study=study.name, detector=study.detector, iters=study.iters)
    if args.weights:
        about['weights'] = hash_of(Path(args.weights).read_bytes())
    records = Records(folder / 'results.json', about)
    records.set('machine', describe_hardware())
    run = StudyRun(study, args.data, folder, records, console, args.weights, args.workers)
    if args.plan:
        for job in study.jobs():
            console.print(f'{"done" if run.is_done(job) else "    "} {job.key}')
        return
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    code = 0
    try:
        if not run.run(deadline):
            code = STOPPED
    except KeyboardInterrupt:
        code = 130
    summarise(run, folder)
    if code:
        console.print('Stopped before the end; the same command continues.')
        sys.exit(code)


if __name__ == '__main__':
    run_tool(main)
