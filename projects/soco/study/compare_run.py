"""A comparison of starts, run from its checked inputs to its page."""
import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Console
from rich.text import Text

from ..launch.checks import check_work_dir
from ..launch.errors import STOPPED
from ..runs.record import describe_hardware
from .compare import Annotations, Comparison
from .compare_page import write_results
from .records import Records
from .verdict import outlook

INTERRUPTED = 130  # exit code after Ctrl-C


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
        'shares and seeds': f'{", ".join(map(str, comparison.shares))} % of the labels; seeds of '
                            f'fine-tuning: {comparison.seeds}; one pretraining for each start',
        'what it can show': outlook(data.val_photos, data.val_objects, comparison.seeds)}


def warnings_of(data: Annotations) -> list[str]:
    """Return what makes the annotations' AP misleading, such as photos in train and in val."""
    if not data.shared:
        return []
    return [f'{len(data.shared)} photos are in train and in val, such as {data.shared[0]}: the AP is '
            'too high for all starts.']


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
