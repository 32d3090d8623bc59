"""The curves of a run, from what mmengine's visualizer logged to a picture."""
import itertools
import json
import logging
import math
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from .visualization import INK, PALETTE, save_image

logger = logging.getLogger(__name__)


def draw_training(records: Sequence[dict], out: str | Path,
                  obj_std_floor: float | None = None) -> Path:
    """Draw loss, learning rate, momentum and spread of object features, one panel each.

    A key that no record has leaves its panel out. From 40 values on, a loss is shown thin, with
    its running mean over a twentieth of the values on top.

    Args:
        records (Sequence[dict]): One per logged iteration, as `read_scalars` gives: `step` or
            `iter`, and any of `loss`, `loss_*` (the loss of one pair or head), `lr`, `momentum`,
            `obj_std`. Records without these, such as an evaluation's, are passed over.
        out (str | Path): The PNG file to write.
        obj_std_floor (float | None): Drawn as a line: below it the features have collapsed.

    Returns:
        Path: `out`.

    Raises:
        ValueError: If no record has a value to draw, or `out` does not end in .png.
    """
    canvas = FigureCanvasAgg(training_figure(records, obj_std_floor))
    canvas.draw()
    return save_image(np.asarray(canvas.buffer_rgba())[..., :3], out)


def training_figure(records: Sequence[dict], obj_std_floor: float | None = None) -> Figure:
    """Build the figure that `draw_training` writes, with the same arguments and errors."""
    losses = sorted({key for record in records for key in record if key.startswith('loss')},
                    key=lambda key: (key != 'loss', key))
    panels = [('Loss', losses), ('Learning rate', ['lr']),
              ('Momentum of the target network', ['momentum']),
              ('Spread of object features', ['obj_std'])]
    drawn = [(title, curves) for title, keys in panels if (curves := _curves(records, keys))]
    if not drawn:
        raise ValueError(
            f'Nothing to draw: none of the {len(records)} records holds a loss, lr, momentum or '
            'obj_std. Give the records of a run that logged at least one iteration '
            '(`read_scalars` on its vis_data/scalars.json); a short run needs a smaller '
            '`default_hooks.logger.interval`.')
    columns = min(2, len(drawn))
    rows = math.ceil(len(drawn) / columns)
    figure = Figure(figsize=(5.6 * columns, 3.1 * rows), dpi=130, layout='constrained')
    figure.get_layout_engine().set(w_pad=.12, h_pad=.12)
    for place, (title, curves) in enumerate(drawn):
        axes = figure.add_subplot(rows, columns, place + 1)
        _draw_panel(axes, title, curves)
        if title.startswith('Spread') and obj_std_floor is not None:
            axes.axhline(obj_std_floor, color='#D55E00', linewidth=1.2, linestyle='--')
            axes.annotate(f'floor {obj_std_floor:g}', (1, obj_std_floor), (0, 3), fontsize=8,
                          xycoords=('axes fraction', 'data'), textcoords='offset points',
                          ha='right', color='#D55E00')
    return figure


def read_scalars(path: str | Path) -> list[dict]:
    """Read the JSON lines that mmengine's visualizer writes, one record per line.

    Args:
        path (str | Path): A `vis_data/scalars.json`.

    Returns:
        list[dict]: The records. An unfinished last line, as a killed run leaves it, is skipped
        with a warning.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If another line is not a JSON object; file and line are named.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f'No scalars at {path}. A run writes them to '
                                'WORK_DIR/TIMESTAMP/vis_data/scalars.json; give that file.')
    lines = path.read_bytes().splitlines(keepends=True)
    records = []
    for row, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            record = json.loads(line.decode('utf-8'))
            if not isinstance(record, dict):
                raise ValueError('it is JSON, but no object')
        except ValueError as error:
            if row == len(lines) and not line.endswith(b'\n'):
                logger.warning('%s, line %d is unfinished and was skipped.', path, row)
                continue
            raise ValueError(f'{path}, line {row} is not a record of scalars ({error}). Remove '
                             'that line, or give the scalars.json of another run.') from error
        records.append(record)
    return records


def _curves(records: Sequence[dict], keys: Sequence[str]) -> dict[str, np.ndarray]:
    """Per key that some record has: (n, 2), iteration and value."""
    curves = {}
    for key in keys:
        points = [(record.get('step', record.get('iter', i + 1)), record[key])
                  for i, record in enumerate(records) if key in record]
        if points:
            curves[key] = np.array(points, dtype=np.float64)
    return curves


def _draw_panel(axes: Axes, title: str, curves: dict[str, np.ndarray]) -> None:
    # Without the palette's light colours, which fade on white.
    colors = itertools.cycle(PALETTE[i] for i in (5, 0, 3, 4, 6, 1))
    for key, points in curves.items():
        color = np.divide(INK if key == 'loss' else next(colors), 255)
        x, y = points.T
        pair = re.fullmatch(r'loss_(\d)(\d)', key)
        name = 'total' if key == 'loss' else f'views {pair[1]}, {pair[2]}' if pair else key
        window = len(y) // 20 if title == 'Loss' and len(y) >= 40 else 1
        if window > 1:
            axes.plot(x, y, color=color, linewidth=.8, alpha=.3)
            axes.set_title(f'running mean of {window} values', loc='right', fontsize=8)
            x, y = x[window - 1:], np.convolve(y, np.full(window, 1 / window), 'valid')
        axes.plot(x, y, color=color, linewidth=1.6, label=name,
                  marker='o' if len(y) == 1 else None)
    axes.set_title(title, loc='left', fontsize=10, fontweight='bold')
    axes.set_xlabel('iteration', fontsize=8)
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    axes.ticklabel_format(axis='y', useOffset=False)
    axes.tick_params(labelsize=8)
    axes.spines[['top', 'right']].set_visible(False)
    axes.grid(axis='y', color='#dddddd', linewidth=.6)
    if title in ('Learning rate', 'Spread of object features'):
        axes.set_ylim(bottom=0)
    if len(curves) > 1:
        axes.legend(frameon=False, fontsize=8, loc='upper left', bbox_to_anchor=(1, 1))
