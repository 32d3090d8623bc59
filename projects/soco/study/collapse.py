"""Table and picture of the collapse study; see docs/results/collapse.md."""
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from ..pictures.canvas import INK
from ..pictures.curves import COLORS

BASE = 'base'


def collapse_tables(content: dict[str, Any]) -> str:
    """Return the table of all runs, those of one group together.

    Args:
        content (dict[str, Any]): Records of tools/benchmarks/collapse_study.py.

    Returns:
        str: Markdown.
    """
    columns = ('factor', 'run', 'rank of objects before', 'after', 'after / before',
               'in 5 directions', 'explained by the box', 'silent units', 'rank of projections',
               'found again', 'last loss')
    rows = [' | '.join(columns), ' | '.join('---' for _ in columns)]
    for group, runs in by_group(content['records']).items():
        for name, record in runs.items():
            if 'lost' in record:
                rows.append(f'{group} | {name} | {record["lost"]}' + ' | ' * 8)
                continue
            before, after = record['before']['object'], record['after']['object']
            rows.append(' | '.join([
                group, name, f'{before["effective_rank"]:.1f}', f'{after["effective_rank"]:.1f}',
                f'{after["effective_rank"] / before["effective_rank"]:.2f}',
                f'{after["leading_share"]:.2f}', f'{after["by_box"]:.2f}', str(after['silent']),
                f'{record["after"]["projection"]["effective_rank"]:.1f}',
                f'{record["top1"][0]:.1%} → {record["top1"][1]:.1%}',
                f'{record["curves"]["loss"][-1][1]:.2f}']))
    return '\n'.join(f'| {row} |' for row in rows) + '\n'


def by_group(records: dict[str, dict]) -> dict[str, dict[str, dict]]:
    """Return the runs of each group, in order of appearance."""
    groups: dict[str, dict[str, dict]] = {}
    for name, record in records.items():
        groups.setdefault(record['group'], {})[name] = record
    return groups


def draw_collapse(content: dict[str, Any]) -> np.ndarray:
    """Draw the rank of object features over training: a panel for each factor, with the base in black.

    Args:
        content (dict[str, Any]): See `collapse_tables`.

    Returns:
        np.ndarray: (H, W, 3) uint8.
    """
    records = content['records']
    groups = {group: {name: record for name, record in runs.items() if 'curves' in record}
              for group, runs in by_group(records).items()}
    columns = 4
    rows = -(-len(groups) // columns)
    figure = Figure(figsize=(3.9 * columns, 3.1 * rows), dpi=110, layout='constrained')
    for place, (group, runs) in enumerate(groups.items(), 1):
        axes = figure.add_subplot(rows, columns, place)
        shown = {BASE: records[BASE]} if BASE in records else {}
        for i, (name, record) in enumerate({**shown, **runs}.items()):
            points = np.array(record['curves']['obj_rank'])
            # over the share of the run, since lengths differ
            share = points[:, 0] / points[-1, 0]
            color = np.divide(INK, 255) if name == BASE else COLORS[(i - 1) % len(COLORS)]
            axes.plot(share, points[:, 1], label=name, color=color, linewidth=1.5,
                      linestyle='-' if i <= len(COLORS) else '--')
        axes.set_title(group, loc='left', fontsize=10, fontweight='bold')
        axes.set_yscale('log')
        axes.set_ylim(1, 256)
        axes.set_yticks([1, 2, 5, 10, 20, 50, 100, 200], labels=['1', '2', '5', '10', '20', '50', '100',
                                                                   '200'])
        axes.minorticks_off()
        axes.set_xlabel('share of the run', fontsize=8)
        axes.tick_params(labelsize=8)
        axes.spines[['top', 'right']].set_visible(False)
        axes.grid(axis='y', color='#dddddd', linewidth=.6)
        axes.legend(frameon=False, fontsize=7)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3]

