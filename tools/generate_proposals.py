#!/usr/bin/env python
"""Make a proposal store from images in a folder, a list, a COCO json, a zip or a tar archive.

    python tools/generate_proposals.py IMAGES OUT.arrow
    python tools/generate_proposals.py IMAGES OUT.arrow --source random
    python tools/generate_proposals.py IMAGES OUT.arrow --source coco --boxes instances.json

A stopped run resumes when the same command is started again.
"""
import argparse
import os
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

SOURCES = {
    'selective_search': ('setting', 'scales', 'colour_spaces', 'sigma', 'min_segment',
                         'short_side'),
    'random': ('num_boxes', 'seed'),
    'grid': ('grid_scales', 'grid_ratios', 'grid_stride'),
    'coco': ('boxes', 'images_json', 'min_score', 'max_boxes'),
    'official': ('boxes',),
}


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description='Make a proposal store from images.',
        epilog='A stopped run resumes when the same command is started again.')
    parser.add_argument('images', help='folder (with its subfolders), list of images (.txt), COCO '
                        'json, zip archive or uncompressed tar archive')
    parser.add_argument('out', help='store to write, for example data/proposals/train.arrow')
    parser.add_argument('--source', default='selective_search', choices=tuple(SOURCES),
                        help='generator of the boxes (default: %(default)s); its flags are listed '
                        'below')
    parser.add_argument('--root', help='folder of the images of a list or COCO json '
                        '(default: the folder of that file)')
    parser.add_argument('--follow-links', action='store_true',
                        help='allow links in the folder of the images to lead out of it')
    parser.add_argument('--strict', action='store_true',
                        help='stop at an image that cannot be used instead of skipping it')
    parser.add_argument('--overwrite', action='store_true',
                        help='start from the beginning and replace an existing output')
    parser.add_argument('--max-pixels', type=int, default=25_000_000,
                        help='skip images with more pixels (default: %(default)s)')
    where = parser.add_argument_group('parallel processing')
    where.add_argument('--workers', type=int, default=os.cpu_count(),
                       help='number of processes (default: one per core)')
    where.add_argument('--scheduler', metavar='tcp://HOST:PORT',
                       help='use this Dask cluster instead of local processes')
    search = parser.add_argument_group('selective search')
    search.add_argument('--setting', choices=('soco', 'fine', 'uijlings'),
                        help='soco gives the official boxes (default); fine finds smaller objects')
    search.add_argument('--scales', type=float, nargs='+', help='scales of the segmentation')
    search.add_argument('--colour-spaces', nargs='+', help='one or more of rgb, hsv, lab, grey')
    search.add_argument('--sigma', type=float, help='blur before segmentation, in pixels')
    search.add_argument('--min-segment', type=int, help='smallest segment in pixels')
    search.add_argument('--short-side', type=int, metavar='PIXELS', help='search larger images at this '
                        'short side; the boxes are scaled back')
    drawn = parser.add_argument_group('--source random')
    drawn.add_argument('--num-boxes', type=int, help='boxes per image (default: 28, about as many as '
                       'selective search with the official filter keeps)')
    drawn.add_argument('--seed', type=int, help='random seed (default: 0)')
    grid = parser.add_argument_group('--source grid')
    grid.add_argument('--grid-scales', type=float, nargs='+', help='sqrt(box area / image area) '
                      'of the shapes (default: 0.3 0.5 0.8)')
    grid.add_argument('--grid-ratios', type=float, nargs='+',
                      help='width / height of the shapes (default: 0.5 1 2)')
    grid.add_argument('--grid-stride', type=float, help='largest step to the next box, as a share '
                      'of its side (default: 0.5)')
    told = parser.add_argument_group('--source coco and --source official')
    told.add_argument('--boxes', metavar='FILE', help='coco: COCO json with annotations, or detection '
                      'results; official: official SoCo json')
    told.add_argument('--images-json', metavar='FILE', help='coco: json that contains the images of '
                      'detection results')
    told.add_argument('--min-score', type=float, help='coco: leave out boxes with a lower score')
    told.add_argument('--max-boxes', type=int, help='coco: largest number of boxes per image, the '
                      'best by score')
    keep = parser.add_argument_group('which boxes are kept')
    keep.add_argument('--keep', '--filter', dest='filter', metavar='FILTER',
                      help='named filter (default: for selective search ratio3size0308post, the '
                      'official one; for other sources "all", which keeps every box)')
    keep.add_argument('--min-side', type=float, help='smallest width and height in pixels')
    keep.add_argument('--max-side', type=float, help='largest width and height in pixels')
    keep.add_argument('--max-ratio', type=float, help='largest ratio of the longer to the shorter side')
    keep.add_argument('--min-size', type=float, help='smallest sqrt(box area / image area)')
    keep.add_argument('--max-size', type=float, help='largest sqrt(box area / image area)')
    keep.add_argument('--fallback', action='store_true', help='with the five flags above: an image '
                      'left without boxes keeps those within --max-ratio, or else all of at least '
                      '--min-side')
    args = parser.parse_args()
    if args.workers < 1:
        parser.error(f'--workers must be at least 1, not {args.workers}')
    return args


def check_flags(args: argparse.Namespace) -> None:
    """Check that all flags belong to the chosen source."""
    own = SOURCES[args.source]
    for flag in (flag for flags in SOURCES.values() for flag in flags):
        if flag not in own and getattr(args, flag) is not None:
            fits = ' or '.join(source for source, flags in SOURCES.items() if flag in flags)
            raise ValueError(f'--{flag.replace("_", "-")} belongs to --source {fits}, not to '
                             f'--source {args.source}: leave it out, or choose that source.')
    if 'boxes' in own and args.boxes is None:
        raise ValueError(f'--source {args.source} needs the file that contains the boxes: set '
                         f'--boxes FILE.')


def make_generator(args: argparse.Namespace) -> Any:
    from dataclasses import replace

    from projects.soco.proposals import generators, imports
    from projects.soco.proposals.selective_search import SETTINGS
    given = {flag: getattr(args, flag) for flag in SOURCES[args.source]}
    given = {flag: tuple(value) if isinstance(value, list) else value
             for flag, value in given.items() if value is not None}
    if args.source == 'random':
        return generators.RandomBoxes(**given)
    if args.source == 'grid':
        return generators.GridBoxes(**{key.removeprefix('grid_'): value
                                       for key, value in given.items()})
    if args.source == 'coco':
        return imports.read_coco(given.pop('boxes'), **given)
    if args.source == 'official':
        return imports.read_official(args.boxes)
    setting = SETTINGS[given.pop('setting', 'soco')]
    if 'min_segment' in given:
        given['min_size'] = given.pop('min_segment')
    side = given.pop('short_side', None)
    return generators.SearchBoxes(replace(setting, **given), side)


def make_filter(args: argparse.Namespace) -> Any:
    from projects.soco.proposals.filters import custom_filter, get_filter
    limits = dict(min_side=args.min_side, max_side=args.max_side, max_ratio=args.max_ratio,
                  min_size=args.min_size, max_size=args.max_size)
    limits = {key: value for key, value in limits.items() if value is not None}
    if limits and args.filter:
        raise ValueError(f'--keep {args.filter} cannot be combined with limits '
                         f'(--{min(limits).replace("_", "-")}): set only one of them.')
    if args.fallback and not limits:
        raise ValueError('--fallback needs limits: set at least one, such as --max-ratio.')
    if limits:
        return custom_filter(**limits, fallback=args.fallback)
    return get_filter(args.filter) if args.filter else None


def ways_to_more(source: str, setting: str | None, box_filter: str) -> str:
    """Return how photos without boxes can get some; empty if no flag helps."""
    ways = []
    if source == 'selective_search' and setting != 'fine':
        ways.append('--setting fine finds smaller objects')
    if box_filter != 'all':
        ways.append('--keep all or a smaller --min-side or --min-size keeps smaller boxes')
    return f'. {", ".join(ways)}; add --overwrite to make the store again' if ways else ''


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

    from projects.soco.proposals.generate import GenerateOptions, check_out, generate
    from projects.soco.proposals.generators import SearchBoxes
    from projects.soco.proposals.journal import remarks_path, skipped_path
    from projects.soco.proposals.sources import open_source

    console = Console(markup=False)
    check_flags(args)
    source = open_source(args.images, args.root, args.follow_links)
    with console.status('preparing the boxes'):
        generator = make_generator(args)
    options = GenerateOptions(generator, make_filter(args), args.max_pixels)
    executor = make_executor(args)
    check_out(args.out)
    if isinstance(generator, SearchBoxes):
        with console.status('compiling the kernels: about 15 s the first time, then cached'):
            from projects.soco.proposals.selective_search import compile_kernels
            seconds = compile_kernels(generator.setting)
        console.print(f'kernels ready after {seconds:.1f} s')
    with console.status('listing the images'):
        names = generator.images(source)
    for note in generator.notes:
        console.print(note, highlight=False)
    columns = (TextColumn('{task.description}', markup=False), BarColumn(), MofNCompleteColumn(),
               TextColumn('{task.fields[rate]}', markup=False), TimeElapsedColumn(), TextColumn('left'),
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
    console.print(f'{figures.images} images, {counts.sum()} boxes: {counts.mean():.1f} per image '
                  f'(min {counts.min()}, max {counts.max()})')
    empty = int((counts == 0).sum())
    if empty:
        console.print(f'{empty} of {figures.images} photos have no boxes'
                      f'{ways_to_more(args.source, args.setting, options.box_filter.name)}',
                      soft_wrap=True)
    if len(figures.sides):
        console.print(f'median image {np.median(figures.sizes[:, 0]):.0f} × '
                      f'{np.median(figures.sizes[:, 1]):.0f} pixels; median box '
                      f'{np.median(figures.sides):.0f} pixels a side (sqrt of its area), '
                      f'{np.median(figures.shares):.2f} of the image')
    if summary.reused:
        console.print(f'{summary.reused} images were reused from an earlier run')
    for rule, count in sorted(figures.rules.items()):
        console.print(f'  {count} images by rule {rule}')
    if summary.skipped:
        console.print(f'{len(summary.skipped)} images skipped, listed in '
                      f'{skipped_path(args.out)}:')
        for reason, count in Counter(s.reason for s in summary.skipped).most_common(5):
            console.print(f'  {count} × {reason}', highlight=False)
        for image, reason in summary.skipped[:5]:
            console.print(f'  {image}: {reason}', highlight=False)
    if summary.remarks:
        console.print(f'{len(summary.remarks)} images look wrong, listed in {remarks_path(args.out)}:')
        for reason, count in Counter(r.reason for r in summary.remarks).most_common():
            console.print(f'  {count} × {reason}', highlight=False)
    if summary.passed_over:
        console.print(f'not taken: {summary.passed_over.describe()}', highlight=False,
                      soft_wrap=True)
    if summary.earlier:
        console.print('the store was made by an earlier version, which scaled images of more than 8 '
                      'bits in another way; --overwrite makes it again')
    console.print(f'The store is {args.out} ({os.path.getsize(args.out) / 1e6:.2f} MB)',
                  soft_wrap=True)


def main() -> int:
    args = parse_args()
    try:
        run(args)
    except KeyboardInterrupt:
        print('stopped; start the same command again to resume', file=sys.stderr)
        return 130
    except (ValueError, OSError, RuntimeError) as error:
        print(f'error: {error}', file=sys.stderr)
        return 2
    return 0


if __name__ == '__main__':
    sys.exit(main())
