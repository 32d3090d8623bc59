#!/usr/bin/env python
r"""Write a COCO json with a random share of the images: mini-COCO.

python tools/dataset_converters/coco_subset.py \
        data/coco/annotations/instances_train2017.json --percent 5
"""
import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description='Write a COCO json with a random share of the images.',
        epilog='With the same seed, a larger share contains the images of a smaller one.')
    parser.add_argument('source', help='COCO json of instances, such as instances_train2017.json')
    parser.add_argument('out', nargs='?', help='output json (default: beside the source, '
                        'such as instances_train2017_5percent.json)')
    parser.add_argument('--percent', type=float, required=True,
                        help='share of the images, above 0 and at most 100')
    parser.add_argument('--seed', type=int, default=0,
                        help='seed of the choice of images (default: %(default)s)')
    parser.add_argument('--overwrite', action='store_true', help='replace an existing output')
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    from rich.console import Console

    from projects.soco.datasets.coco_subset import default_output, write_subset
    out = args.out or default_output(args.source, args.percent)
    console = Console(highlight=False, markup=False, soft_wrap=True)
    with console.status('starting') as status:
        summary = write_subset(args.source, out, args.percent, args.seed, args.overwrite,
                               status.update)
    console.print(f'{summary.images} of {summary.source_images} images, {summary.annotations} of '
                  f'{summary.source_annotations} annotations, {summary.categories} categories')
    for line in summary.mended:
        console.print(f'mended: {line}')
    if summary.empty_categories:
        console.print(f'without instances: {", ".join(summary.empty_categories)} '
                      f'({len(summary.empty_categories)} of {summary.categories} categories)')
    console.print(f'The subset is {summary.path} ({summary.path.stat().st_size / 1e6:.2f} MB)')


if __name__ == '__main__':
    from projects.soco.launch.errors import run_tool
    run_tool(main)
