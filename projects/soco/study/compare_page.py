"""Intervals, picture and page of a comparison of starts, made from its records."""
import base64
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from .. import __version__
from ..files import whole_file
from ..pictures.canvas import figure_pixels, save_image
from ..pictures.curves import COLORS
from ..runs.page import render_page
from .plan import CompareJob
from .records import Records
from .resampling import Interval, paired_difference, widened
from .verdict import LEARNED, labels_worth, pairs_to_judge, verdict

MEASURES = ('box_AP50', 'box_AP', 'mask_AP50', 'mask_AP')
_TITLES = dict(zip(MEASURES, ('AP50', 'AP', 'mask AP50', 'mask AP')))


def summarise(records: Records) -> dict[str, Any]:
    """Compare the starts of all finished jobs, and add differences and verdicts to the records.

    Seeds that not both starts of a pair have are left out of their difference.

    Args:
        records (Records): Records of a comparison.

    Returns:
        dict[str, Any]: `differences` (a list of dicts with `ours`, `theirs`, `measure`, `share`,
        `iterations`, `seeds`, `value`, `low`, `high`), `verdicts` (sentences) and `worth` (sentences).
    """
    content = records.content
    differences = []
    for ours, theirs in _pairs(content):
        for share in content['shares']:
            seeds = [seed for seed in range(content['seeds'])
                     if all(CompareJob(name, share, seed).key in records for name in (ours, theirs))]
            if seeds:
                differences += _differences(records, ours, theirs, share, seeds)
    kinds = [(start['name'], start['kind']) for start in content['starts']]
    verdicts, worth = [], []
    for ours, theirs in pairs_to_judge(kinds):
        rows = {(row['share'], row['iterations']): row for row in differences
                if (row['ours'], row['theirs'], row['measure']) == (ours, theirs, 'box_AP50')}
        if rows:
            verdicts.append(verdict(
                ours, theirs,
                {place: Interval(row['value'], row['low'], row['high']) for place, row in rows.items()},
                {place: row['seeds'] for place, row in rows.items()},
                {place: max(_common_means(records, ours, theirs, *place)) for place in rows},
                content['iterations']))
            worth += _worth(records, ours, theirs)
    made = dict(differences=differences, verdicts=verdicts, worth=worth)
    for key, value in made.items():
        records.set(key, value)
    return made


def common_seeds(records: Records, ours: str, theirs: str, share: int, key: str) -> list[int]:
    """Return the seeds for which two starts have a value, such as `box_AP50@150`."""
    jobs = {seed: [CompareJob(start, share, seed).key for start in (ours, theirs)]
            for seed in range(records.content['seeds'])}
    return [seed for seed, both in jobs.items()
            if all(job in records and key in records[job]['values'] for job in both)]


def _common_means(records: Records, ours: str, theirs: str, share: int, point: int) -> list[float]:
    """Return the mean AP50 of two starts over the seeds that both have; none if there are none."""
    key = f'box_AP50@{point}'
    seeds = common_seeds(records, ours, theirs, share, key)
    return [float(np.mean([records[CompareJob(start, share, seed).key]['values'][key]
                           for seed in seeds])) for start in (ours, theirs) if seeds]


def _pairs(content: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return each pair of starts once, the later start of the command line first, as it is judged."""
    names = [start['name'] for start in content['starts']]
    judged = pairs_to_judge([(start['name'], start['kind']) for start in content['starts']])
    others = [(b, a) for i, a in enumerate(names) for b in names[i + 1:]]
    return [*judged, *(pair for pair in others if pair not in judged and pair[::-1] not in judged)]


def _differences(records: Records, ours: str, theirs: str, share: int, seeds: list[int]) -> list[dict]:
    sides = [[CompareJob(name, share, seed).key for seed in seeds] for name in (ours, theirs)]
    values = [[records[key]['values'] for key in side] for side in sides]
    samples = [[records.samples(key) for key in side] for side in sides]
    rows = []
    for name in dict.fromkeys(name for side in values for run in side for name in run):
        both = [i for i in range(len(seeds)) if all(name in side[i] for side in values)]
        if not both:  # a start that ends before the other
            continue
        measure, _, iterations = name.partition('@')
        our, their = ([side[i][name] for i in both] for side in values)
        our_draws, their_draws = (np.stack([side[i][name] for i in both]) for side in samples)
        interval = paired_difference(our, their, our_draws, their_draws,
                                     records.content['val_photos'])
        rows.append(dict(ours=ours, theirs=theirs, measure=measure, share=share,
                         iterations=int(iterations), seeds=len(both), **interval._asdict()))
    return sorted(rows, key=lambda row: (row['measure'], row['iterations']))


def values_of(content: Mapping[str, Any], name: str, share: int, measure: str
              ) -> dict[int, list[float]]:
    """Return the values of a start over the iterations, one per finished seed.

    Args:
        content (Mapping[str, Any]): Content of the records.
        name (str): The start.
        share (int): Percentage of the labels.
        measure (str): One of `MEASURES`.

    Returns:
        dict[int, list[float]]: Iterations to values within [0, 1].
    """
    found: dict[int, list[float]] = {}
    for seed in range(content['seeds']):
        record = content['records'].get(CompareJob(name, share, seed).key)
        for key, value in (record or {'values': {}})['values'].items():
            kind, _, iterations = key.partition('@')
            if kind == measure:
                found.setdefault(int(iterations), []).append(value)
    return dict(sorted(found.items()))


def _worth(records: Records, ours: str, theirs: str) -> list[str]:
    """Say how many labels `theirs` needs to reach `ours` with fewer, at the last common point."""
    content = records.content
    along = [values for name in (ours, theirs) for share in content['shares']
             if (values := values_of(content, name, share, 'box_AP50'))]
    end = min(max(values) for values in along)
    means = {share: both for share in content['shares']
             if (both := _common_means(records, ours, theirs, share, end))}
    if len(means) < 2:
        return []
    told = []
    for share, (reached, _) in list(means.items())[:-1]:
        if reached < LEARNED:
            continue
        needed, bound = labels_worth(reached, {each: both[1] for each, both in means.items()})
        needs = f'{bound} {needed:.0f} %'.strip()
        told.append(f'After {end} iterations, {theirs} reaches the AP50 of {ours} with {share} % of '
                    f'the labels ({100 * reached:.1f}) with {needs} '
                    '(means over the seeds that both have, interpolated; no interval).')
    return told


def draw(content: Mapping[str, Any], measure: str = 'box_AP50') -> np.ndarray:
    """Draw AP along the schedule, a panel for each share of the labels that has a finished detector.

    A line is the mean over the seeds, its dots are the seeds, and its band is the 95 % interval over
    draws of val's photos of that mean.

    Args:
        content (Mapping[str, Any]): Content of the records, with `bands` (see `bands_of`).
        measure (str): One of `MEASURES`. Defaults to AP50 of boxes.

    Returns:
        np.ndarray: (H, W, 3) uint8.
    """
    shares = [share for share in content['shares'] if any(
        values_of(content, start['name'], share, measure) for start in content['starts'])]
    figure = Figure(figsize=(4.4 * len(shares) + .6, 3.8), dpi=110, layout='constrained')
    axes: list[Axes] = list(figure.subplots(1, len(shares), sharey=True, squeeze=False)[0])
    for place, share in zip(axes, shares):
        for i, start in enumerate(content['starts']):
            values = values_of(content, start['name'], share, measure)
            if not values:
                continue
            color, points = COLORS[i % len(COLORS)], list(values)
            mean = np.array([100 * np.mean(row) for row in values.values()])
            band = np.array([content['bands'][f'{start["name"]}/{share}/{measure}@{p}']
                             for p in points])
            place.fill_between(points, 100 * band[:, 0], 100 * band[:, 1], color=color, alpha=.12,
                               linewidth=0)
            place.plot(points, mean, marker='o', color=color, label=start['name'])
            for point, row in values.items():
                place.plot([point] * len(row), 100 * np.array(row), '.', ms=4, alpha=.5, color=color)
        place.set_title(f'{share} % of the labels', loc='left', fontsize=10, fontweight='bold')
        place.set_xlabel('iterations')
        place.set_ylim(bottom=0)
        place.spines[['top', 'right']].set_visible(False)
        place.grid(color='#dddddd', linewidth=.6)
    axes[0].set_ylabel(f'{_TITLES[measure]} on val, %')
    axes[0].legend(frameon=False, fontsize=9)
    return figure_pixels(figure)


def bands_of(records: Records) -> dict[str, list[float]]:
    """Return the 95 % interval over draws of photos of each mean over seeds, widened for few photos.

    Returns:
        dict[str, list[float]]: `start/share/measure@iterations` to both ends, within [0, 1].
    """
    content, bands = records.content, {}
    for start in content['starts']:
        for share in content['shares']:
            keys = [key for seed in range(content['seeds'])
                    if (key := CompareJob(start['name'], share, seed).key) in records]
            samples = [records.samples(key) for key in keys]
            for name in dict.fromkeys(name for run in samples for name in run):
                drawn = np.mean([run[name] for run in samples if name in run], axis=0)
                wide = widened(drawn, np.nanmean(drawn), content['val_photos'])
                ends = np.nanpercentile(wide, (2.5, 97.5))
                bands[f'{start["name"]}/{share}/{name}'] = np.clip(ends, 0, 1).tolist()
    return bands


def write_results(records: Records, folder: Path, facts: Mapping[str, str], warnings: Sequence[str],
                  links: Mapping[str, str]) -> tuple[Path, list[str]]:
    """Write the picture and the page of what is finished.

    Args:
        records (Records): Records of a comparison, with at least one finished job.
        folder (Path): The work directory.
        facts (Mapping[str, str]): Rows of the page's table of facts.
        warnings (Sequence[str]): Warnings on top of the page.
        links (Mapping[str, str]): Other pages by title, paths from the work directory.

    Returns:
        tuple[Path, list[str]]: The page, and the verdicts.

    Raises:
        OSError: If a file cannot be written.
    """
    made = summarise(records)
    records.set('bands', bands_of(records))
    content = records.content
    picture = save_image(draw(content), folder / 'compare_starts.png')
    page = render_page(
        Path(__file__).with_name('compare.html'),
        picture='data:image/png;base64,' + base64.b64encode(picture.read_bytes()).decode(),
        verdicts=made['verdicts'], worth=made['worth'], facts=facts,
        warnings=warnings, links=links, rows=_rows(content),
        differences=_shown(made['differences']), version=__version__)
    out = folder / 'compare_starts.html'
    with whole_file(out) as file:
        file.write(page)
    return out, made['verdicts']


def _rows(content: Mapping[str, Any]) -> list[list[str]]:
    rows = []
    for share in content['shares']:
        for start in content['starts']:
            values = values_of(content, start['name'], share, 'box_AP50')
            strict = values_of(content, start['name'], share, 'box_AP')
            for point in values:
                rows.append([f'{share} %', start['name'], str(point), str(len(values[point])),
                             f'{100 * np.mean(strict[point]):.1f}',
                             f'{100 * np.mean(values[point]):.1f}'])
    return rows


def _shown(differences: list[dict]) -> list[list[str]]:
    return [[f'{row["ours"]} − {row["theirs"]}', f'{row["share"]} %', str(row['iterations']),
             _TITLES[row['measure']], str(row['seeds']),
             f'{100 * row["value"]:+.1f} ({100 * row["low"]:.1f} to {100 * row["high"]:.1f})'
             + (', photos only' if row['seeds'] == 1 else '')] for row in differences]
