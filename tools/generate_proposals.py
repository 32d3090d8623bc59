#!/usr/bin/env python
"""Make the proposal store of a folder of images.

    python tools/generate_proposals.py IMAGES OUT.arrow

A run that was stopped goes on when it is started again.
"""
import argparse
import os
import sys
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description='Make the proposal store of a folder of images.',
        epilog='A run that was stopped goes on when it is started again.')
    parser.add_argument('images', help='folder of images, searched with its subfolders')
    parser.add_argument('out', help='store to be written, for example data/proposals/train.arrow')
    parser.add_argument('--workers', type=int, default=os.cpu_count(),
                        help='number of processes (default: one for each core)')
    parser.add_argument('--setting', default='soco', help='setting of selective search')
    parser.add_argument('--filter', default='ratio3size0308post',
                        help='named filter (default: %(default)s, the official one)')
    parser.add_argument('--max-pixels', type=int, default=25_000_000,
                        help='skip larger images (default: %(default)s)')
    parser.add_argument('--strict', action='store_true',
                        help='stop at an image that cannot be used instead of skipping it')
    parser.add_argument('--overwrite', action='store_true',
                        help='start anew, replacing an output that is there')
    args = parser.parse_args()
    if args.workers < 1:
        parser.error(f'--workers must be at least 1, not {args.workers}')
    return args


def run(args: argparse.Namespace) -> None:
    from rich.console import Console
    from rich.progress import (BarColumn, MofNCompleteColumn, Progress, TextColumn,
                               TimeElapsedColumn, TimeRemainingColumn)

    from projects.soco.proposals.executors import ProcessExecutor, SerialExecutor
    from projects.soco.proposals.filters import get_filter
    from projects.soco.proposals.generate import GenerateOptions, generate, skipped_path
    from projects.soco.proposals.sources import open_source

    console = Console()
    source = open_source(args.images)
    options = GenerateOptions(args.setting, get_filter(args.filter), args.max_pixels)
    with console.status('compiling the kernels: about 15 s the first time, then cached'):
        from projects.soco.proposals.selective_search import compile_kernels
        seconds = compile_kernels()
    console.print(f'kernels ready after {seconds:.1f} s')
    executor = SerialExecutor() if args.workers == 1 else ProcessExecutor(
        args.workers, preload=['projects.soco.proposals.selective_search'])
    with console.status('listing the images'):
        total = len(source.names())
    columns = (TextColumn('{task.description}'), BarColumn(), MofNCompleteColumn(),
               TextColumn('{task.fields[rate]}'), TimeElapsedColumn(), TextColumn('left'),
               TimeRemainingColumn())
    start, new, skipped = time.monotonic(), 0, 0
    with Progress(*columns, console=console) as progress:
        task = progress.add_task('images', total=total, rate='')

        def report(images: int, bad: int, before: bool) -> None:
            nonlocal new, skipped
            new += 0 if before else images
            skipped += bad
            rate = new / (time.monotonic() - start)
            progress.update(task, advance=images,
                            rate=f'{rate:.1f} images/s, {skipped} skipped')

        summary = generate(source, args.out, options, executor, overwrite=args.overwrite,
                           strict=args.strict, report=report)
    boxes = summary.boxes
    console.print(f'{summary.images} images, {boxes.sum()} boxes: {boxes.mean():.1f} an image '
                  f'(least {boxes.min()}, most {boxes.max()})')
    if summary.reused:
        console.print(f'{summary.reused} images were there from an earlier run')
    for rule, count in sorted(summary.rules.items()):
        console.print(f'  {count} images by rule {rule}')
    if summary.skipped:
        console.print(f'{len(summary.skipped)} images skipped, listed in '
                      f'{skipped_path(args.out)}:')
        for reason, count in Counter(s.reason for s in summary.skipped).most_common(5):
            console.print(f'  {count} × {reason}', markup=False, highlight=False)
        for image, reason in summary.skipped[:5]:
            console.print(f'  {image}: {reason}', markup=False, highlight=False)
    console.print(f'The store is {args.out} ({os.path.getsize(args.out) / 1e6:.2f} MB)',
                  soft_wrap=True)


def main() -> int:
    args = parse_args()
    try:
        run(args)
    except KeyboardInterrupt:
        print('stopped; start the same command again to go on', file=sys.stderr)
        return 130
    except (ValueError, OSError, RuntimeError) as error:
        print(f'error: {error}', file=sys.stderr)
        return 2
    return 0


if __name__ == '__main__':
    sys.exit(main())
