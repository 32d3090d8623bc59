"""Differences between starts over several data sets: intervals, tables and picture."""
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ..pictures.canvas import figure_pixels, save_image
from ..pictures.curves import COLORS
from .compare_page import common_seeds, values_of
from .plan import CompareJob
from .records import Records
from .resampling import pooled_difference

MEASURES = {'box_AP50': 'AP50', 'box_AP': 'AP'}


def pooled_differences(results: Mapping[str, Records], pairs: Sequence[tuple[str, str]],
                       shares: Sequence[int]) -> list[dict[str, Any]]:
    """Compare starts over all data sets that have both of them.

    Args:
        results (Mapping[str, Records]): Records of the comparison of each data set.
        pairs (Sequence[tuple[str, str]]): Starts: ours, theirs.
        shares (Sequence[int]): Percentages of the labels.

    Returns:
        list[dict[str, Any]]: Rows with `ours`, `theirs`, `share`, `iterations`, `measure`, `value`,
        `low`, `high` (see `pooled_difference`), `by_set` (data set to its mean difference) and `seeds`
        (data set to the number of its seeds).
    """
    rows = []
    for ours, theirs in pairs:
        for share in shares:
            for key in _keys(results, ours, theirs, share):
                measure, _, iterations = key.partition('@')
                if measure not in MEASURES:
                    continue
                common = {name: seeds for name, records in results.items()
                          if (seeds := common_seeds(records, ours, theirs, share, key))}
                found = {name: _difference(results[name], ours, theirs, share, seeds, key)
                         for name, seeds in common.items()}
                interval = pooled_difference([values for values, _ in found.values()],
                                             [draws for _, draws in found.values()],
                                             [results[name].content['val_photos'] for name in found])
                rows.append(dict(
                    ours=ours, theirs=theirs, share=share, iterations=int(iterations), measure=measure,
                    **interval._asdict(), seeds={name: len(seeds) for name, seeds in common.items()},
                    by_set={name: float(values.mean()) for name, (values, _) in found.items()}))
    return rows


def _keys(results: Mapping[str, Records], ours: str, theirs: str, share: int) -> list[str]:
    """Return what both starts have for some set and seed, in the order of the schedule."""
    jobs = [(records, CompareJob(ours, share, seed).key) for records in results.values()
            for seed in range(records.content['seeds'])]
    keys = {key for records, job in jobs if job in records for key in records[job]['values']}
    return sorted((key for key in keys if any(common_seeds(records, ours, theirs, share, key)
                                              for records in results.values())),
                  key=lambda key: (key.split('@')[0], int(key.split('@')[1])))


def _difference(records: Records, ours: str, theirs: str, share: int, seeds: Sequence[int], key: str
                ) -> tuple[np.ndarray, np.ndarray]:
    """Return the (S,) differences of the seeds, and the (R,) mean differences under draws."""
    values, samples = [], []
    for seed in seeds:
        keys = [CompareJob(name, share, seed).key for name in (ours, theirs)]
        first, second = (records[each]['values'][key] for each in keys)
        values.append(first - second)
        first, second = (records.samples(each)[key] for each in keys)
        samples.append(first - second)
    return np.array(values), np.mean(samples, axis=0)


def tables(content: Mapping[str, Any]) -> list[str]:
    """Make the tables of a study from its JSON.

    Args:
        content (Mapping[str, Any]): Content of the study's results.

    Returns:
        list[str]: Tables in Markdown: differences over all data sets, AP of each data set, and
        pretrainings. Empty tables are left out.
    """
    made = [_pooled_table(content, measure) for measure in MEASURES]
    made += [_detector_table(content), _pretraining_table(content)]
    return [table for table in made if table]


def markdown_table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table in Markdown, or '' if there are no rows."""
    rows = list(rows)
    if not rows:
        return ''
    lines = [columns, ['---'] * len(columns), *rows]
    return '\n'.join('| ' + ' | '.join(line) + ' |' for line in lines)


def _pooled_table(content: Mapping[str, Any], measure: str) -> str:
    titles, names = content['titles'], list(content['sets'])
    rows = []
    for row in content['pooled']:
        if row['measure'] == measure:
            seeds = sorted(set(row['seeds'].values()))
            rows.append([
                f'{titles[row["ours"]]} − {titles[row["theirs"]]}', f'{row["share"]} %',
                str(row['iterations']),
                f'**{100 * row["value"]:+.1f}** ({100 * row["low"]:.1f} to {100 * row["high"]:.1f}'
                + (', photos only)' if seeds[-1] == 1 else ')'),
                *(f'{100 * row["by_set"][name]:+.1f}' if name in row['by_set'] else ''
                  for name in names),
                ' to '.join(map(str, dict.fromkeys((seeds[0], seeds[-1]))))])
    return markdown_table([f'difference in {MEASURES[measure]}', 'labels', 'iterations',
                           'mean of the sets (95 % interval)', *names, 'seeds'], rows)


def _detector_table(content: Mapping[str, Any]) -> str:
    rows = []
    for name, one in content['sets'].items():
        for share in one['shares']:
            for start in one['starts']:
                fifty = values_of(one, start['name'], share, 'box_AP50')
                strict = values_of(one, start['name'], share, 'box_AP')
                if fifty:
                    shown = ', '.join(
                        f'{point}: {100 * np.mean(strict[point]):.1f} / {100 * np.mean(values):.1f} '
                        f'({len(values)})' for point, values in fifty.items())
                    rows.append([name, f'{share} %', content['titles'][start['name']], shown])
    return markdown_table(['data set', 'labels', 'start',
                           'iterations: AP / AP50, mean of the seeds (their number)'], rows)


def _pretraining_table(content: Mapping[str, Any]) -> str:
    rows = []
    for key, record in content['records'].items():
        _, data, name = key.split('/')
        ranks = ' → '.join(f'{rank:.0f}' for rank in record['ranks'])
        rows.append([name, data, str(record['photos']), str(record['epochs']),
                     str(record['images_seen']), f'{record["gflop_per_image"]:.2f}',
                     f'{record["minutes"]:.0f}', ranks])
    return markdown_table(['pretraining', 'data set', 'photos', 'epochs', 'images seen',
                           'GFLOP per image and step', 'minutes', 'rank of object features'],
                          sorted(rows))


def draw(content: Mapping[str, Any], path: Path) -> Path:
    """Draw AP50 along the schedule: a row for each share of the labels, a column for each data set.

    A line is the mean over the seeds, and its dots are the seeds.

    Args:
        content (Mapping[str, Any]): Content of the study's results.
        path (Path): The picture, PNG.

    Returns:
        Path: The picture.
    """
    sets = content['sets']
    shares = sorted({int(key.split('/')[2].removesuffix('percent'))
                     for one in sets.values() for key in one['records']})
    figure = Figure(figsize=(3.6 * len(sets) + .6, 2.9 * len(shares) + .6), dpi=110,
                    layout='constrained')
    grid = figure.subplots(len(shares), len(sets), squeeze=False, sharex=True)
    for row, share in zip(grid, shares):
        for axes, (name, one) in zip(row, sets.items()):
            _panel(axes, content['titles'], one, share)
            axes.set_title(f'{name}, {share} % of the labels', loc='left', fontsize=10)
            if not axes.lines:  # no detector is trained yet
                axes.set_visible(False)
        row[0].set_ylabel('AP50 on val, %')
    for axes in grid[-1]:
        axes.set_xlabel('iterations')
    lines = {label: line for axes in grid.flat
             for line, label in zip(*axes.get_legend_handles_labels())}
    figure.legend(lines.values(), lines.keys(), loc='outside upper left', ncols=4, frameon=False)
    return save_image(figure_pixels(figure), path)


def draw_differences(content: Mapping[str, Any], path: Path) -> Path:
    """Draw the differences in AP50 over all data sets, with their intervals; a dot is one data set.

    An interval of one seed, which covers the photos only, is dotted.

    Args:
        content (Mapping[str, Any]): Content of the study's results, with at least one difference.
        path (Path): The picture, PNG.

    Returns:
        Path: The picture.
    """
    rows = [row for row in content['pooled'] if row['measure'] == 'box_AP50']
    figure = Figure(figsize=(9, .3 * len(rows) + 1.3), dpi=110, layout='constrained')
    axes, colors = figure.add_subplot(), dict(zip(content['sets'], COLORS))
    for y, row in enumerate(rows):
        if y and (row['ours'], row['theirs']) != (rows[y - 1]['ours'], rows[y - 1]['theirs']):
            axes.axhline(y - .5, color='#dddddd', lw=.8)
        single = max(row['seeds'].values()) == 1
        axes.plot([100 * row['low'], 100 * row['high']], [y, y], color='black', lw=1.6,
                  ls=':' if single else '-', label='one seed: photos only' if single else None)
        axes.plot(100 * row['value'], y, 'D', ms=5, color='black',
                  label='mean of the sets, with its 95 % interval')
        for name, value in row['by_set'].items():
            axes.plot(100 * value, y, 'o', ms=4, alpha=.8, color=colors[name], label=name)
    axes.axvline(0, color='black', lw=.8)
    titles = content['titles']
    axes.set_yticks(range(len(rows)), [
        f'{titles[row["ours"]]} − {titles[row["theirs"]]}, {row["share"]} % of the labels, '
        f'{row["iterations"]} iterations' for row in rows], fontsize=8)
    axes.invert_yaxis()
    axes.set_xlabel('difference in AP50 on val, points')
    axes.spines[['top', 'right', 'left']].set_visible(False)
    axes.grid(axis='x', color='#eeeeee')
    dots = dict(zip(*reversed(axes.get_legend_handles_labels())))
    figure.legend(dots.values(), dots.keys(), loc='outside upper left', ncols=5, frameon=False)
    return save_image(figure_pixels(figure), path)


def _panel(axes: Axes, titles: Mapping[str, str], one: Mapping[str, Any], share: int) -> None:
    for i, start in enumerate(one['starts']):
        values = values_of(one, start['name'], share, 'box_AP50')
        if values:
            color = COLORS[i % len(COLORS)]
            axes.plot(list(values), [100 * np.mean(row) for row in values.values()], marker='o', ms=4,
                      color=color, ls='-' if i < len(COLORS) else '--', label=titles[start['name']])
            for point, row in values.items():
                axes.plot([point] * len(row), 100 * np.array(row), '.', ms=3, alpha=.5, color=color)
    axes.set_ylim(bottom=0)
    axes.spines[['top', 'right']].set_visible(False)
    axes.grid(color='#dddddd', linewidth=.6)
