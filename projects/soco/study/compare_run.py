"""A comparison of starts, run from its checked inputs to its page."""
import math
import os
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Console
from rich.text import Text

from ..datasets.coco_subset import with_images
from ..launch.checks import check_work_dir
from ..launch.errors import STOPPED
from ..runs.record import describe_hardware
from .compare import Comparison
from .compare_page import write_results
from .detection import PREDICTIONS
from .inputs import Annotations, photos_seen
from .records import Records
from .verdict import outlook

INTERRUPTED = 130  # exit code after Ctrl-C
FEW_PHOTOS = 20  # of val, under which the page has a warning


def facts_of(comparison: Comparison, detector: str) -> dict[str, str]:
    """Return the facts of a comparison for the console and the page, by label.

    Args:
        comparison (Comparison): The comparison.
        detector (str): Name of the detector.
    """
    data = comparison.data
    labelled, total = (len({row[key] for row in data.rows[part]})
                       for part, key in (('annotations', 'image_id'), ('images', 'id')))
    return {
        'detector': detector, 'classes': ', '.join(data.classes),
        'photos': f'{labelled} to train on'
                  + (f' ({total - labelled} more have no object)' if total > labelled else '')
                  + f', {data.val_photos} to evaluate on; {data.images}',
        'schedule': f'{comparison.fitted.train_cfg.max_iters} iterations, evaluated after '
                    + ', '.join(map(str, comparison.points)),
        'settings': '; '.join(comparison.notes),
        'starts': '; '.join(f'{start.name}: {start.path or "random weights"}'
                            for start in comparison.starts.values()),
        'annotations': '; '.join(data.lines) or 'as they are',
        'shares and seeds': ', '.join(f'{share} % of the labels ({len(comparison.labelled(share))} '
                                      'photos)' for share in comparison.shares)
                            + f'; seeds of fine-tuning: {comparison.seeds}; one pretraining for each '
                              'start',
        'what it can show': outlook(data.val_photos, data.val_objects, comparison.seeds)}


def warnings_of(data: Annotations) -> list[str]:
    """Return what makes the annotations' AP misleading, such as photos in train and in val."""
    told, objects = [], {split: _count(content) for split, content in
                         (('train', data.rows), ('val', data.val_rows))}
    if data.shared:
        told.append(f'{len(data.shared)} photos are in train and in val, such as {data.shared[0]}: the '
                    'AP is too high for all starts.')
    if data.val_photos < FEW_PHOTOS:
        told.append(f'val has {data.val_photos} photos: intervals from so few are wide, and rough. Use '
                    'fifty or more.')
    unseen = [name for name in data.classes if objects['val'][name] and not objects['train'][name]]
    if unseen:
        told.append(f'{len(unseen)} classes have objects in val and none in train, such as '
                    f'{unseen[0]!r}: their AP is 0 from every start, and lowers the mean.')
    tiny = sum(not row.get('iscrowd') for row in data.val_rows['annotations']) - data.val_objects
    if tiny:
        told.append(f'{tiny} objects of val have a box of less than a pixel, and cannot be found: the '
                    'AP is too low for all starts.')
    most = max(Counter(row['image_id'] for row in data.val_rows['annotations']).values())
    if most > PREDICTIONS:
        told.append(f'A photo of val has {most} objects, and AP counts the {PREDICTIONS} best '
                    'predictions of a photo (as COCO): the AP is too low for all starts.')
    return told


def _count(content: Mapping) -> Counter:
    """Return the number of objects of each class by name."""
    names = {row['id']: row['name'] for row in content['categories']}
    return Counter(names[row['category_id']] for row in content['annotations'])


def plan_warnings(comparison: Comparison) -> list[str]:
    """Return what makes the shares or the starts misleading: missing classes, photos of val."""
    data, told = comparison.data, []
    trained = set(_count(data.rows))
    for share in comparison.shares:
        lacking: set[str] = set()
        for seed in range(comparison.seeds):
            kept = comparison.labelled(share, seed)
            lacking |= trained - set(_count(with_images(data.rows, kept)))
        if lacking:
            told.append(f'With {share} % of the labels ({len(comparison.labelled(share))} photos), a '
                        f'seed has no object of {", ".join(map(repr, sorted(lacking)[:3]))}'
                        f'{", …" if len(lacking) > 3 else ""}: its AP is 0 there.')
    for start in comparison.starts.values():
        seen, root = photos_seen(start), os.path.realpath(data.images)
        held_out = [row['file_name'] for row in data.val_rows['images']
                    if os.path.join(root, row['file_name']) in seen]
        if held_out:
            told.append(f'The pretraining of {start.name} saw {len(held_out)} of the {data.val_photos} '
                        f'photos of val (without labels), such as {held_out[0]}: its detector may '
                        'find objects there that it would not find in new photos. Pretrain without '
                        'them: give pretrain_detector.py the json of train and --root.')
    return told


def show(facts: Mapping[str, str], warnings: Sequence[str], console: Console) -> None:
    """Print facts and warnings."""
    for label, value in facts.items():
        console.print(Text.assemble((label, 'bold'), f': {value}'), soft_wrap=True)
    for warning in warnings:
        console.print(warning, style='bold red', soft_wrap=True)


def run_comparison(comparison: Comparison, facts: Mapping[str, str], warnings: Sequence[str],
                   console: Console, deadline: float = math.inf,
                   links: Mapping[str, str] | None = None) -> Path:
    """Train the detectors that are left, and write the page of all that are finished.

    Args:
        comparison (Comparison): The comparison.
        facts (Mapping[str, str]): Rows of the page's table of facts.
        warnings (Sequence[str]): Warnings on top of the page.
        console (Console): Console for progress and verdicts.
        deadline (float): See `Jobs.run`. Defaults to infinity.
        links (Mapping[str, str], optional): Other pages by title, paths from the work directory.
            Defaults to None: none.

    Returns:
        Path: The page.

    Raises:
        SystemExit: If it was stopped before the end; the same call continues.
        ValueError: See `Comparison.run`.
    """
    folder, code = comparison.folder, 0
    check_work_dir(folder)
    records = Records(folder / 'results.json', dict(study='compare_starts', **comparison.fingerprint()))
    for key, value in comparison.about().items():
        records.set(key, value)
    records.set('machine', describe_hardware())
    try:
        if not comparison.run(records, console, deadline):
            code = STOPPED
    except KeyboardInterrupt:
        code = INTERRUPTED
    page = folder / 'compare_starts.html'
    if records.content['records']:
        page, verdicts = write_results(records, folder, facts, warnings, links or {})
        for verdict in verdicts:
            console.print(f'\n{verdict}', style='bold', soft_wrap=True)
        console.print(f'\nPage, picture and numbers: {page}, compare_starts.png, results.json',
                      soft_wrap=True)
    if code:
        console.print('Stopped before the end; the same command continues.')
        sys.exit(code)
    return page
