"""Tables and picture of a study, made from its records."""
import re
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ..files import whole_file
from ..pictures.canvas import figure_pixels, save_image
from ..pictures.curves import COLORS
from .plan import Job, Study
from .records import Records
from .resampling import paired_difference

# Scores of the features of head and backbone: key of the score to its name in tables.
OBJECTS = {
    'head': {
        'knn_object': '5-NN', 'knn_classes_object': '5-NN, mean of classes', 'map_object': 'mAP',
        'found_again': 'found again', 'found_again_own': 'found again, own photo', 'place': 'place'},
    'backbone': {
        'knn_backbone': '5-NN', 'knn_classes_backbone': '5-NN, mean of classes', 'map_backbone': 'mAP'},
}
RANKS = ('rank of object features before', 'after')
DETECTION = ('box_AP', 'box_AP50', 'mask_AP', 'mask_AP50')


def compare(study: Study, records: Records) -> dict[str, dict[str, dict[str, list[float]]]]:
    """Compare each arm with the reference arms, in all measures that both have for all seeds.

    Args:
        study (Study): The study.
        records (Records): Its records.

    Returns:
        dict: Keyed by group of runs (such as 'objects' or 'finetune/100'), then by 'arm - reference'
        (each pair once), then by measure: the difference and both ends of its 95 % interval (see
        `resampling.paired_difference`).
    """
    found: dict[str, dict[str, dict[str, list[float]]]] = {}
    for group, runs in _groups(study, records).items():
        for reference in study.references:
            for arm in study.arms:
                mirrored = f'{reference} - {arm}' in found.get(group, {})
                if arm != reference and not mirrored and arm in runs and reference in runs:
                    found.setdefault(group, {})[f'{arm} - {reference}'] = _differences(
                        records, runs[arm], runs[reference])
    return found


def _groups(study: Study, records: Records) -> dict[str, dict[str, list[str]]]:
    """Return the keys of the records, one per seed, of each arm that has all seeds."""
    groups: dict[str, dict[str, list[str]]] = {}
    for step in study.order:
        share = step.get('share', 100)
        group = 'objects' if step['stage'] == 'objects' else f'finetune/{share}'
        for arm in step['arms']:
            keys = [Job(step['stage'], arm, seed, share).key for seed in study.seeds]
            if all(key in records for key in keys):
                groups.setdefault(group, {})[arm] = keys
    return groups


def _differences(records: Records, ours: Sequence[str], theirs: Sequence[str]
                 ) -> dict[str, list[float]]:
    values = [[records[key]['values'] for key in keys] for keys in (ours, theirs)]
    samples = [[records.samples(key) for key in keys] for keys in (ours, theirs)]
    return {
        name: list(paired_difference(
            *([v[name] for v in side] for side in values),
            *(np.stack([s[name] for s in side]) for side in samples)))
        for name in values[0][0] if all(name in v for side in values for v in side)}


def write_tables(content: dict[str, Any], path: Path) -> Path:
    """Write all tables as Markdown.

    Args:
        content (dict[str, Any]): Content of the results' JSON.
        path (Path): The file.

    Returns:
        Path: The file.
    """
    with whole_file(path) as file:
        file.write('\n\n'.join(tables(content)) + '\n')
    return path


def tables(content: dict[str, Any]) -> list[str]:
    """Make the tables of a study from its JSON.

    Args:
        content (dict[str, Any]): Content of the results' JSON.

    Returns:
        list[str]: Tables in Markdown: object scores, comparisons, AP, cost, and trials of options.
        Empty tables are left out.
    """
    made = [make(content, features) for features in OBJECTS
            for make in (_object_table, _object_differences)]
    for group in sorted({_share(key) for key in content['records'] if key.startswith('finetune/')},
                        reverse=True):
        made += [_detection_table(content, group), _detection_differences(content, group)]
    made += [_cost_table(content), _trial_table(content)]
    return [table for table in made if table]


def _share(key: str) -> int:
    return int(re.search(r'/(\d+)percent/', key)[1])


def markdown_table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table in Markdown, or '' if there are no rows."""
    rows = list(rows)
    if not rows:
        return ''
    lines = [columns, ['---'] * len(columns), *rows]
    return '\n'.join('| ' + ' | '.join(line) + ' |' for line in lines)


def runs_of(content: dict[str, Any], kind: str, arm: str, share: int | None = None) -> list[dict]:
    """Return the records of an arm or a method, one per seed.

    Args:
        content (dict[str, Any]): Content of the results' JSON.
        kind (str): Kind of the jobs.
        arm (str): The arm or method.
        share (int, optional): Percentage of the labels, for 'finetune'. Defaults to None.

    Returns:
        list[dict]: The records.
    """
    middle = f'{share}percent/' if share else ''
    return [record for key, record in content['records'].items()
            if re.fullmatch(rf'{kind}/{arm}/{middle}seed\d+', key)]


def _spread(values: Sequence[float], scale: float = 100) -> str:
    """Return mean and standard deviation over seeds as text."""
    if not values:
        return ''
    text = f'{scale * np.mean(values):.1f}'
    return f'{text} ± {scale * np.std(values, ddof=1):.1f}' if len(values) > 1 else text


def _object_table(content: dict[str, Any], features: str) -> str:
    names, rows = OBJECTS[features], []
    for arm, title in _arms(content, features).items():
        runs = runs_of(content, 'objects', arm)
        if runs:
            rows.append([title, str(len(runs)),
                         *(_spread([run['values'][name] for run in runs]) for name in names)])
    return markdown_table([f'{features} features', 'seeds', *names.values()], rows)


def _arms(content: dict[str, Any], features: str = '') -> dict[str, str]:
    """Return the arms' titles; for backbone features one per method, whose arms share a backbone."""
    arms, titles = content['arms'], {}
    for name, arm in arms.items():
        earlier = [arms[other]['method'] for other in titles]
        if features != 'backbone' or arm['method'] is None or arm['method'] not in earlier:
            titles[name] = arm['title']
    return titles


def _difference_rows(content: dict[str, Any], group: str, names: Sequence[str], features: str = ''
                     ) -> list[list[str]]:
    rows, titles = [], _arms(content, features)
    for pair, values in content.get('comparisons', {}).get(group, {}).items():
        arm, _, reference = pair.partition(' - ')
        if arm not in titles:
            continue
        cells = [f'{100 * v:+.1f} ({100 * low:.1f} to {100 * high:.1f})' for v, low, high in
                 (values[name] for name in names)]
        rows.append([f'{titles[arm]} − {content["arms"][reference]["title"]}', *cells])
    return rows


def _object_differences(content: dict[str, Any], features: str) -> str:
    names = OBJECTS[features]
    return markdown_table([f'{features} features, difference (95 % interval)', *names.values()],
                  _difference_rows(content, 'objects', list(names), features))


def points_of(content: dict[str, Any], share: int) -> list[int]:
    """Return the iterations of fine-tuning that have an AP, in ascending order.

    Args:
        content (dict[str, Any]): Content of the results' JSON.
        share (int): Percentage of the labels.

    Returns:
        list[int]: The iterations.
    """
    names = {name for key, record in content['records'].items()
             if key.startswith('finetune/') and _share(key) == share for name in record['values']}
    return sorted({int(name.partition('@')[2]) for name in names})


def _detection_table(content: dict[str, Any], share: int) -> str:
    points, rows = points_of(content, share), []
    measured = {name.partition('@')[0] for key, record in content['records'].items()
                if key.startswith('finetune/') for name in record['values']}
    names = [name for name in DETECTION if name in measured]
    for arm, title in _arms(content).items():
        runs = runs_of(content, 'finetune', arm, share)
        for point in points if runs else ():
            rows.append([title if point == points[0] else '', str(len(runs)), str(point),
                         *(_spread([run['values'][f'{name}@{point}'] for run in runs])
                           for name in names)])
    columns = [f'{share} % of the labels', 'seeds', 'iterations',
               *(name.replace('_', ' ') for name in names)]
    return markdown_table(columns, rows)


def _detection_differences(content: dict[str, Any], share: int) -> str:
    points = points_of(content, share)
    names = [f'box_AP50@{point}' for point in points]
    return markdown_table([f'difference in box AP50, {share} % of the labels (95 % interval)',
                   *(f'{point} iterations' for point in points)],
                  _difference_rows(content, f'finetune/{share}', names))


def _methods(content: dict[str, Any]) -> list[str]:
    return list(dict.fromkeys(key.split('/')[1] for key in content['records']
                              if key.startswith(('pretrain/', 'trial/'))))


def _cost_table(content: dict[str, Any]) -> str:
    rows = []
    for method in _methods(content):
        runs = runs_of(content, 'pretrain', method)
        if runs:
            options = ', '.join(f'`{key}={value}`' for key, value in runs[0]['options'].items())
            rows.append([method, str(len(runs)), f'{runs[0]["gflop_per_image"]:.2f}',
                         f'{np.median([run["ms_per_image"] for run in runs]):.1f}', *_ranks(runs),
                         options])
    columns = ['pretraining', 'seeds', 'GFLOP per image and step', 'ms per image', *RANKS,
               'chosen options']
    measured = [i for i, name in enumerate(columns) if name not in RANKS or any(r[i] for r in rows)]
    return markdown_table([columns[i] for i in measured], [[row[i] for i in measured] for row in rows])


def _ranks(runs: Sequence[dict]) -> list[str]:
    """Return the effective rank of the object features before and after pretraining."""
    return [_spread([run['ranks'][when]['online object']['effective_rank'] for run in runs
                     if run.get('ranks')], scale=1) for when in ('before', 'after')]


def _trial_table(content: dict[str, Any]) -> str:
    rows = []
    for key, record in sorted(content['records'].items()):
        if key.split('/')[0].endswith('trial'):
            options = ', '.join(f'`{k}={v}`' for k, v in record['options'].items())
            shown = {name: value for name, value in record['values'].items()
                     if name in ('map_backbone', 'knn_backbone') or name.startswith('box_AP50')}
            rows.append(['/'.join(key.split('/')[:2]), options,
                         ', '.join(f'{name} {100 * value:.1f}' for name, value in shown.items())])
    return markdown_table(['trial', 'options', 'scores on a part of train'], rows)


def draw(content: dict[str, Any], path: Path) -> Path | None:
    """Draw object scores of all arms, and AP50 during fine-tuning, into one picture.

    Args:
        content (dict[str, Any]): Content of the results' JSON.
        path (Path): The picture, PNG.

    Returns:
        Path | None: The picture, or None if there is nothing to draw.
    """
    arms = _arms(content)
    panels: list[Callable[[Axes], None]] = []
    if any(runs_of(content, 'objects', arm) for arm in arms):
        classes = {'knn_object': 'features of the head', 'knn_backbone': 'features of the backbone'}
        again = {'found_again': 'among all photos', 'found_again_own': 'in its own photo'}
        for names, title in ((classes, 'Class of the 5 nearest objects, %'),
                             (again, 'Object found again, %')):
            panels.append(partial(_object_panel, content=content, names=names, title=title))
    for share in sorted({_share(key) for key in content['records'] if key.startswith('finetune/')},
                        reverse=True):
        panels.append(partial(_detection_panel, content=content, share=share))
    if not panels:
        return None
    columns = 2 if len(panels) > 1 else 1
    rows = -(-len(panels) // columns)
    figure = Figure(figsize=(7 * columns, 3.6 * rows), layout='constrained')
    for i, panel in enumerate(panels):
        panel(figure.add_subplot(rows, columns, i + 1))
    return save_image(figure_pixels(figure), path)


def _object_panel(axes: Axes, content: dict[str, Any], names: dict[str, str], title: str) -> None:
    titles = _arms(content)
    shown = [arm for arm in titles if runs_of(content, 'objects', arm)]
    for i, (name, label) in enumerate(names.items()):
        for row, arm in enumerate(shown):
            values = [100 * run['values'][name] for run in runs_of(content, 'objects', arm)]
            place = row + (i - 0.5) * 0.25
            axes.plot(values, [place] * len(values), 'o', ms=4, alpha=0.5, color=COLORS[i])
            axes.plot(np.mean(values), place, '|', ms=16, mew=2.5, color=COLORS[i],
                      label=label if row == 0 else None)
    axes.set_yticks(range(len(shown)), [titles[arm] for arm in shown])
    axes.invert_yaxis()
    axes.set_title(title)
    axes.grid(axis='x', alpha=0.3)
    axes.legend(fontsize=8)


def _detection_panel(axes: Axes, content: dict[str, Any], share: int) -> None:
    points = points_of(content, share)
    for i, (arm, title) in enumerate(_arms(content).items()):
        runs = runs_of(content, 'finetune', arm, share)
        if runs:
            values = 100 * np.array([[run['values'][f'box_AP50@{p}'] for p in points] for run in runs])
            axes.plot(points, values.mean(axis=0), marker='o', color=COLORS[i % len(COLORS)],
                      ls='-' if i < len(COLORS) else '--', label=title)
            axes.plot(points, values.T, '.', ms=4, alpha=0.5, color=COLORS[i % len(COLORS)])
    axes.set_title(f'Box AP50 along fine-tuning, {share} % of the labels, %')
    axes.set_ylim(bottom=0)
    axes.set_xlabel('iterations')
    axes.set_xticks(points)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
