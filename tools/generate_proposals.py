#!/usr/bin/env python
"""Make the proposal store of images: a folder, a list, a COCO json, a zip or a tar.

    python tools/generate_proposals.py IMAGES OUT.arrow

A run that was stopped goes on when it is started again.
"""
import argparse
import os
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description='Make the proposal store of images.',
        epilog='A run that was stopped goes on when it is started again.')
    parser.add_argument('images', help='folder (with its subfolders), list of images (.txt), COCO '
                        'json, zip archive or uncompressed tar archive')
    parser.add_argument('out', help='store to be written, for example data/proposals/train.arrow')
    parser.add_argument('--root', help='where the images of a list or COCO json are '
                        '(default: in its folder)')
    parser.add_argument('--strict', action='store_true',
                        help='stop at an image that cannot be used instead of skipping it')
    parser.add_argument('--overwrite', action='store_true',
                        help='start anew, replacing an output that is there')
    parser.add_argument('--max-pixels', type=int, default=25_000_000,
                        help='skip larger images (default: %(default)s)')
    where = parser.add_argument_group('where to work')
    where.add_argument('--workers', type=int, default=os.cpu_count(),
                       help='number of processes (default: one for each core)')
    where.add_argument('--scheduler', metavar='tcp://HOST:PORT',
                       help='work on this Dask cluster instead')
    search = parser.add_argument_group('selective search')
    search.add_argument('--setting', default='soco', choices=('soco', 'uijlings'),
                        help='soco gives the official boxes (default)')
    search.add_argument('--scales', type=float, nargs='+', help='scales of the segmentation')
    search.add_argument('--colour-spaces', nargs='+', help='among rgb, hsv, lab, grey')
    search.add_argument('--sigma', type=float, help='blur before segmentation')
    search.add_argument('--min-segment', type=int, help='smallest segment in pixels')
    keep = parser.add_argument_group('which regions are kept')
    keep.add_argument('--keep', '--filter', dest='filter', metavar='FILTER',
                      help='named filter (default: ratio3size0308post, the official one); "all" '
                      'keeps every region')
    keep.add_argument('--min-side', type=float, help='smallest width and height in pixels')
    keep.add_argument('--max-ratio', type=float, help='longest side over shortest at most')
    keep.add_argument('--min-size', type=float, help='sqrt(box area / image area) at least')
    keep.add_argument('--max-size', type=float, help='sqrt(box area / image area) at most')
    keep.add_argument('--fallback', action='store_true', help='with the four flags above: an image '
                      'left without boxes takes any within --max-ratio, then any of --min-side')
    args = parser.parse_args()
    if args.workers < 1:
        parser.error(f'--workers must be at least 1, not {args.workers}')
    return args


def make_options(args: argparse.Namespace) -> Any:
    from dataclasses import replace

    from projects.soco.proposals.filters import custom_filter, get_filter
    from projects.soco.proposals.generate import GenerateOptions
    from projects.soco.proposals.selective_search import SETTINGS

    limits = dict(min_side=args.min_side, max_ratio=args.max_ratio, min_size=args.min_size,
                  max_size=args.max_size)
    limits = {key: value for key, value in limits.items() if value is not None}
    if limits and args.filter:
        raise ValueError(f'give either --keep {args.filter} or limits of your own '
                         f'(--{min(limits).replace("_", "-")}), not both.')
    if args.fallback and not limits:
        raise ValueError('--fallback goes with limits of your own, such as --max-ratio.')
    if limits:
        box_filter = custom_filter(**limits, fallback=args.fallback)
    else:
        box_filter = get_filter(args.filter or 'ratio3size0308post')
    changes = dict(scales=args.scales and tuple(args.scales), sigma=args.sigma,
                   colour_spaces=args.colour_spaces and tuple(args.colour_spaces),
                   min_size=args.min_segment)
    changes = {key: value for key, value in changes.items() if value is not None}
    return GenerateOptions(replace(SETTINGS[args.setting], **changes), box_filter, args.max_pixels)


def make_executor(args: argparse.Namespace) -> Any:
    from projects.soco.proposals.executors import DaskExecutor, ProcessExecutor, SerialExecutor
    if args.scheduler:
        return DaskExecutor(args.scheduler)
    if args.workers == 1:
        return SerialExecutor()
    return ProcessExecutor(args.workers, preload=['projects.soco.proposals.generate'])


def run(args: argparse.Namespace) -> None:
    import numpy as np
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    from projects.soco.proposals.generate import generate
    from projects.soco.proposals.journal import skipped_path
    from projects.soco.proposals.sources import open_source

    console = Console()
    source = open_source(args.images, args.root)
    options = make_options(args)
    executor = make_executor(args)
    with console.status('compiling the kernels: about 15 s the first time, then cached'):
        from projects.soco.proposals.selective_search import compile_kernels
        seconds = compile_kernels(options.setting)
    console.print(f'kernels ready after {seconds:.1f} s')
    with console.status('listing the images'):
        names = source.names()
    columns = (TextColumn('{task.description}'), BarColumn(), MofNCompleteColumn(),
               TextColumn('{task.fields[rate]}'), TimeElapsedColumn(), TextColumn('left'),
               TimeRemainingColumn())
    start, new, skipped = time.monotonic(), 0, 0
    with Progress(*columns, console=console) as progress:
        task = progress.add_task('images', total=len(names), rate='')

        def report(images: int, bad: int, before: bool) -> None:
            nonlocal new, skipped
            new += 0 if before else images
            skipped += bad
            rate = new / (time.monotonic() - start)
            progress.update(task, advance=images,
                            rate=f'{rate:.1f} images/s, {skipped} skipped')

        summary = generate(source, args.out, options, executor, names=names,
                           overwrite=args.overwrite, strict=args.strict, report=report)
    figures = summary.statistics
    counts = figures.counts
    console.print(f'{figures.images} images, {counts.sum()} boxes: {counts.mean():.1f} an image '
                  f'(least {counts.min()}, most {counts.max()})')
    if len(figures.sides):
        console.print(f'median image {np.median(figures.sizes[:, 0]):.0f} × '
                      f'{np.median(figures.sizes[:, 1]):.0f} pixels; median box '
                      f'{np.median(figures.sides):.0f} pixels a side (sqrt of its area), '
                      f'{np.median(figures.shares):.2f} of the image')
    if summary.reused:
        console.print(f'{summary.reused} images were there from an earlier run')
    for rule, count in sorted(figures.rules.items()):
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
