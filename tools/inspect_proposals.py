#!/usr/bin/env python
"""Show what a proposal store contains; make one from other stores; export one.

python tools/inspect_proposals.py STORE --images IMAGES
python tools/inspect_proposals.py STORE --annotations train.json
python tools/inspect_proposals.py NEW.arrow --merge A.arrow B.arrow
"""
import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description='Show what a proposal store contains; make one from other stores; export one.')
    parser.add_argument('store', help='the store')
    parser.add_argument('--images', help='images of the store (folder, zip, tar, …), to draw some of '
                        'them with their boxes')
    parser.add_argument('--root', help='folder of the images of a list or COCO json')
    parser.add_argument('--follow-links', action='store_true',
                        help='allow links in the folder of the images to lead out of it')
    parser.add_argument('--out-dir', help='folder for the pictures (default: STORE.pictures)')
    parser.add_argument('--photos', type=int, default=6,
                        help='number of photos to draw (default: %(default)s)')
    parser.add_argument('--annotations', metavar='JSON', help='COCO annotations of the images: show '
                        'how many of their objects some box of the store overlaps')
    parser.add_argument('--validate', action='store_true', help='read and check every row')
    make = parser.add_mutually_exclusive_group()
    make.add_argument('--merge', nargs='+', metavar='STORE',
                      help='first make the store by merging these stores')
    make.add_argument('--subset', nargs=2, metavar=('STORE', 'LIST'),
                      help='first make the store from the images of another store that a text file '
                      'lists')
    parser.add_argument('--overwrite', action='store_true',
                        help='with --merge or --subset: replace an existing store')
    parser.add_argument('--to-official', metavar='JSON', help='export as official SoCo json')
    parser.add_argument('--to-coco', metavar='JSON', help='export as COCO json')
    return parser.parse_args()


def make_store(args: argparse.Namespace) -> None:
    from projects.soco.proposals import ProposalStore
    from projects.soco.proposals import store_operations as operations
    if not (args.merge or args.subset):
        return
    if os.path.exists(args.store) and not args.overwrite:
        raise ValueError(f'{args.store} exists: choose another name, or use --overwrite to replace it.')
    if args.merge:
        operations.merge_stores(args.merge, args.store)
    else:
        with open(args.subset[1], encoding='utf-8') as file:
            images = [line.strip() for line in file if line.strip()]
        operations.write_subset(ProposalStore.open(args.subset[0]), images, args.store)


def export(args: argparse.Namespace, store: Any) -> None:
    from projects.soco.proposals import formats
    for write, path in ((formats.export_official, args.to_official),
                        (formats.export_coco, args.to_coco)):
        if path:
            write(store, path)
            print(f'exported to {path}')


def show_recall(store: Any, path: str) -> None:
    from projects.soco.annotations.judge import read_coco
    from projects.soco.proposals.recall import match_objects, recall
    content = read_coco(path).accept().content
    objects: dict[int, list] = {row['id']: [] for row in content['images']}
    for row in content['annotations']:
        if not row.get('iscrowd'):
            objects[row['image_id']].append(row['bbox'])
    listed = {row['file_name']: objects[row['id']] for row in content['images']}
    found = match_objects(store, listed)
    figures = recall((boxes, store.regions(row), store.size(row)) for row, boxes in found.items())
    print(f'objects of {path} that some box overlaps, in {len(found)} of its {len(listed)} images:')
    for cells in figures.rows():
        print('  {:28}{:>9}{:>10}{:>10}'.format(*cells))


def run(args: argparse.Namespace) -> int:
    import numpy as np

    from projects.soco.pictures.store import draw_store
    from projects.soco.proposals import ProposalStore
    from projects.soco.proposals.sources import open_source
    from projects.soco.proposals.store_operations import validate_store
    from projects.soco.proposals.store_statistics import measure

    make_store(args)
    store = ProposalStore.open(args.store)
    print(json.dumps(store.metadata, indent=2, sort_keys=True))
    figures = measure(store)
    counts = figures.counts
    print(f'{len(store)} images, {counts.sum()} boxes as {store.box_dtype}, '
          f'{os.path.getsize(store.path) / 1e6:.2f} MB')
    if figures.sampled < figures.images:
        print(f'sizes and rules below are of {figures.sampled} images, evenly spread')
    for label, values in (('boxes per image', counts), ('image width', figures.sizes[:, 0]),
                          ('image height', figures.sizes[:, 1]),
                          ('box sqrt(w·h)', figures.sides),
                          ('box size / image size', figures.shares),
                          ('box w / h', figures.ratios)):
        if len(values):
            with np.errstate(invalid='ignore'):  # w / h of a box without height is infinite
                low, first, median, third, high = np.percentile(values, (0, 25, 50, 75, 100))
            print(f'{label:22} min {low:8.2f}   25 % {first:8.2f}   median {median:8.2f}   '
                  f'75 % {third:8.2f}   max {high:8.2f}')
    for rule, count in sorted(figures.rules.items()):
        print(f'rule {rule}: {count} images')
    problems = validate_store(store) if args.validate else []
    for problem in problems:
        print(problem, file=sys.stderr)
    if args.validate and not problems:
        print(f'all {len(store)} rows are valid')
    if args.annotations:
        show_recall(store, args.annotations)
    export(args, store)
    source = open_source(args.images, args.root, args.follow_links) if args.images else None
    folder = args.out_dir or f'{args.store}.pictures'
    pictures = draw_store(store, figures, source, folder, args.photos)
    print(f'{len(pictures)} pictures are in {folder}')
    return 1 if problems else 0


def main() -> int:
    args = parse_args()
    try:
        return run(args)
    except (ValueError, OSError) as error:
        print(f'error: {error}', file=sys.stderr)
        return 2


if __name__ == '__main__':
    sys.exit(main())
