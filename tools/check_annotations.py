r"""Judge a COCO json of annotations: what is mended, what is refused, what is in it.

python tools/check_annotations.py train.json --images photos --fix train_mended.json

Exit code 0: nothing to mend; 1: something was mended (in memory, or in the file of --fix); 2: something
is refused, and the file cannot be used as it is.
"""
import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

CLEAN, MENDED_CODE, REFUSED_CODE = 0, 1, 2


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description='Judge a COCO json of annotations: what is mended, what is refused, what is in it.',
        epilog='Exit code 0: nothing to mend; 1: something was mended; 2: something is refused.')
    parser.add_argument('json', metavar='FILE', help='COCO json of instances; or, with --images, a '
                        'folder or list of VOC XML files, or a folder of YOLO text files')
    parser.add_argument('--images', metavar='DIR', help='folder of the photos: names and sizes in the '
                        'json are compared with them')
    parser.add_argument('--classes', nargs='+', metavar='NAME', help='classes of the config, in its '
                        'order; they are matched by name')
    parser.add_argument('--subset', action='store_true', help='--classes are meant to be a part of the '
                        'classes (metainfo.subset of a config)')
    parser.add_argument('--masks', action='store_true', help='refuse objects without a mask, as a '
                        'detector with masks needs it')
    parser.add_argument('--fix', metavar='OUT.json', help='write the mended json')
    parser.add_argument('--overwrite', action='store_true', help='replace an existing file of --fix')
    return parser.parse_args()


def judge(args: argparse.Namespace) -> int:
    """Judge the file, print the tables, write the mended one; return the exit code."""
    import json

    from rich.console import Console
    from rich.progress import Progress

    from projects.soco.annotations.classes import class_list, match_classes
    from projects.soco.annotations.findings import REFUSED
    from projects.soco.annotations.judge import judge_coco
    from projects.soco.annotations.photos import PhotoTree
    from projects.soco.files import write_whole

    console = Console(highlight=False, markup=False, width=None if sys.stdout.isatty() else 140)
    check_output(args)
    if args.images and not Path(args.images).is_dir():
        raise FileNotFoundError(f'there is no folder of photos at {args.images}.')
    with Progress(console=console, transient=True) as progress:
        task = progress.add_task('reading', total=None)
        content, found = read_content(args)
        judged = judge_coco(
            content, args.json, args.masks, PhotoTree(args.images) if args.images else None, sizes=True,
            report=lambda done, total: progress.update(
                task, description='comparing with the photos', completed=done, total=total))
    judged.findings[:0] = found
    refused = bool(judged.of(REFUSED))
    if args.classes and not refused:
        match_classes(judged, class_list(args.classes), args.subset)
        refused = bool(judged.of(REFUSED))
    show(judged, console)
    if refused:
        console.print('\nRefused: this file cannot be used as it is.')
        return REFUSED_CODE
    if args.fix:
        write_whole(args.fix, json.dumps(judged.content).encode())
        console.print(f'\nThe mended file is {args.fix}')
    if judged.mended:
        console.print('\nMended in memory: training and evaluation read it so.')
        return MENDED_CODE
    console.print('\nNothing to mend.')
    return CLEAN


def read_content(args: argparse.Namespace) -> tuple:
    """Return the content of the file as that of a COCO json, and what was found in converting it."""
    from projects.soco.annotations.formats import find_labels, is_coco, read_as_coco
    from projects.soco.annotations.read import read_json
    if is_coco(args.json):
        return read_json(args.json), []
    find_labels(Path(args.json))  # before --images is asked for: there may be no annotations
    judged = read_as_coco(args.json, args.images, args.classes).accept()
    return judged.content, judged.findings


def check_output(args: argparse.Namespace) -> None:
    if args.fix and Path(args.fix).exists():
        if Path(args.json).exists() and Path(args.fix).samefile(args.json):
            raise ValueError(f'{args.fix} is the json itself; give another path to --fix.')
        if not args.overwrite:
            raise FileExistsError(f'{args.fix} already exists. Add --overwrite to replace it, or give '
                                  'another path.')


def show(judged, console) -> None:  # noqa: ANN001
    """Print the table of findings, and if nothing is refused those of the content."""
    from rich.table import Table

    from projects.soco.annotations.findings import LEVELS, REFUSED
    from projects.soco.annotations.summary import SIZES, count_classes

    table = Table(box=None, title=judged.path, title_justify='left')
    for column in ('', 'count', 'finding', 'first entries'):
        table.add_column(column, overflow='fold')
    for level in LEVELS:
        for finding in judged.of(level):
            advice = f'\n→ {finding.advice}' if finding.advice and level == REFUSED else ''
            table.add_row(level, str(finding.count), finding.kind,
                          '\n'.join(finding.examples) + advice)
    if table.row_count:
        console.print(table)
    if judged.of(REFUSED):
        return
    content = judged.content
    console.print(f'\n{len(content["images"])} photos, {len(content["annotations"])} annotations, '
                  f'{len(content["categories"])} classes')
    table = Table('id', 'class', 'objects', 'photos', *SIZES, 'crowds', box=None)
    for row in count_classes(content):
        table.add_row(*map(str, (row.id, row.name, row.objects, row.photos, *row.sizes.values(),
                                 row.crowds)))
    console.print(table)


def main() -> None:
    sys.exit(judge(parse_args()))


if __name__ == '__main__':
    from projects.soco.launch.errors import run_tool
    run_tool(main)
