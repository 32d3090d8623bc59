"""The curves of one or several runs, from what mmengine's visualizer logged to a picture."""
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from .canvas import INK, PALETTE, save_image

# Without the palette's light colours, which fade on white.
COLORS = [np.divide(PALETTE[i], 255) for i in (5, 0, 3, 4, 6, 1)]
STYLES = ('-', '--', ':')  # from the seventh curve of a panel on
# Key in the log: the panel that it belongs to, and its name there.
PANELS = {
    'lr': ('Learning rate', ''),
    'momentum': ('Momentum of the target network', ''),
    'grad_norm': ('Norm of the gradient', ''),
    'obj_std': ('Spread of object features', 'online'),
    'obj_std_target': ('Spread of object features', 'target'),
    'images_per_s': ('Images a second', ''),
    'time': ('Seconds an iteration', 'whole'),
    'data_time': ('Seconds an iteration', 'waiting for data'),
    'memory': ('GPU memory, most so far (MB)', ''),
    'objects/top1': ('Objects found again', 'all photos'),
    'objects/top1_scales': ('Objects found again', 'other size'),
    'objects/top1_same_photo': ('Objects found again', 'same photo'),
    'objects/chance': ('Objects found again', 'chance'),
}


class Curve(NamedTuple):
    """A line of a panel."""

    name: str
    points: np.ndarray  # (n, 2), iteration and value
    color: np.ndarray
    style: str = '-'


def draw_training(records: Sequence[dict] | Mapping[str, Sequence[dict]], out: str | Path,
                  obj_std_floor: float | None = None) -> Path:
    """Draw all that a run logged, or several runs over each other, into one picture.

    One run has a panel for what belongs together, such as the losses of all pairs; several runs have
    one for each quantity, and in it a colour for each run. What nobody logged is left out. From 40
    values on, a loss is shown thin, with its running mean over a twentieth of the values on top.

    Args:
        records (Sequence[dict] | Mapping[str, Sequence[dict]]): Of a run, as `read_run` gives them:
            `step` or `iter`, any `loss`, and those of `PANELS` and `share_v1_p2` and the like; other
            keys, such as an evaluation's, are passed over. Or those of several runs by their names.
        out (str | Path): The PNG file to write.
        obj_std_floor (float | None): Drawn as a line: below it the features have collapsed.

    Returns:
        Path: `out`.

    Raises:
        ValueError: If a run has nothing to draw, or `out` does not end in .png.
    """
    canvas = FigureCanvasAgg(training_figure(records, obj_std_floor))
    canvas.draw()
    return save_image(np.asarray(canvas.buffer_rgba())[..., :3], out)


def training_figure(records: Sequence[dict] | Mapping[str, Sequence[dict]],
                    obj_std_floor: float | None = None) -> Figure:
    """Build the figure that `draw_training` writes, with the same arguments and errors."""
    runs = records if isinstance(records, Mapping) else {'the run': records}
    panels = _panels({name: _points(name, rows) for name, rows in runs.items()})
    columns = next(n for n, most in ((1, 1), (2, 4), (3, 12), (4, len(panels))) if len(panels) <= most)
    places = list(range(len(panels)))
    shares = sum(title.startswith('Share') for title in panels)
    if 0 < shares < len(panels):  # which come last, on a new row
        places[-shares:] = [place + -(len(panels) - shares) % columns for place in places[-shares:]]
    rows = places[-1] // columns + 1
    figure = Figure(figsize=((5.6 if columns < 3 else 4.6) * columns, 3.1 * rows), dpi=130,
                    layout='constrained')
    figure.get_layout_engine().set(w_pad=.12, h_pad=.12)  # type: ignore[call-arg]
    for place, (title, curves) in zip(places, panels.items()):
        axes = figure.add_subplot(rows, columns, place + 1)
        _draw_panel(axes, title, curves, len(runs) == 1, obj_std_floor)
    if len(runs) > 1:
        handles = [Line2D([], [], label=name, **_look(i)) for i, name in enumerate(runs)]
        figure.legend(handles=handles, loc='outside upper left', ncols=min(4, len(runs)),
                      frameon=False, fontsize=10)
    return figure


def panel_figures(records: Sequence[dict], obj_std_floor: float | None = None) -> dict[str, Figure]:
    """Build each panel of a run's `training_figure` by itself, for a page that arranges them.

    Args:
        records (Sequence[dict]): Of one run, as `draw_training` takes them.
        obj_std_floor (float | None): Drawn as a line: below it the features have collapsed.

    Returns:
        dict[str, Figure]: Title to a figure as wide as a phone.

    Raises:
        ValueError: If there is nothing to draw.
    """
    figures = {}
    for title, curves in _panels({'the run': _points('the run', records)}).items():
        figures[title] = Figure(figsize=(3.6, 2.5), layout='constrained')
        _draw_panel(figures[title].add_subplot(), title, curves, True, obj_std_floor)
    return figures


def iteration_of(record: dict, default: float = 0) -> float:
    return record.get('step', record.get('iter', default))


def _points(name: str, records: Sequence[dict]) -> dict[str, np.ndarray]:
    """Per key that can be drawn: (n, 2), iteration and value."""
    points: dict[str, list[tuple[float, float]]] = {}
    for i, record in enumerate(records, 1):
        for key, value in record.items():
            if _place(key) and isinstance(value, (int, float)):
                points.setdefault(key, []).append((iteration_of(record, i), value))
    if not points:
        raise ValueError(
            f'Nothing to draw of {name}: none of its {len(records)} records holds a loss, lr, momentum '
            'or obj_std. Give a run that logged at least one iteration; a short run needs a smaller '
            '`default_hooks.logger.interval`.')
    return {key: np.array(values, dtype=np.float64) for key, values in points.items()}


def _place(key: str) -> tuple[str, str] | None:
    """The panel that a key belongs to and its name there, if it is drawn."""
    if pair := re.fullmatch(r'loss_(\d)(\d)', key):
        return 'Loss', f'views {pair[1]}, {pair[2]}'
    if re.fullmatch(r'[\w.]*loss[\w.]*', key):
        return 'Loss', 'total' if key == 'loss' else key
    if share := re.fullmatch(r'share_v(\d+)_p(\d+)', key):
        return f'Share of the boxes of view {share[1]}', f'P{share[2]}'
    return PANELS.get(key)


def _panels(runs: Mapping[str, Mapping[str, np.ndarray]]) -> dict[str, list[Curve]]:
    """Sort the curves of runs, run to key to points, into panels."""
    keys = sorted({key for points in runs.values() for key in points}, key=_order)
    panels: dict[str, list[Curve]] = {}
    for key in keys:
        panel, name = _place(key)
        if len(runs) > 1:
            title = f'{panel}: {name}' if name else panel
            panels[title] = [Curve(run, points[key], *_look(i).values())
                             for i, (run, points) in enumerate(runs.items()) if key in points]
        else:
            (points, ), curves = runs.values(), panels.setdefault(panel, [])
            look = dict(_look(len(curves) - any(c.name == 'total' for c in curves)))
            if key == 'loss':
                look['color'] = np.divide(INK, 255)
            curves.append(Curve(name, points[key], *look.values()))
    return panels


def _order(key: str) -> tuple:
    """Losses first, the total before its parts; then `PANELS`; then the rest."""
    places = [*PANELS, key]
    return _place(key)[0] != 'Loss', key != 'loss', places.index(key), key


def _look(i: int) -> dict:
    return dict(color=COLORS[i % len(COLORS)], linestyle=STYLES[i // len(COLORS) % len(STYLES)])


def _draw_panel(axes: Axes, title: str, curves: Sequence[Curve], legend: bool,
                floor: float | None) -> None:
    for i, (name, points, color, style) in enumerate(curves):
        x, y = points.T
        # of several runs, an earlier one can be seen below a later one that does the same
        width = 1.6 if legend else min(1.6 + .9 * (len(curves) - 1 - i), 3.4)
        window = len(y) // 20 if title.startswith('Loss') and len(y) >= 40 else 1
        if window > 1:
            axes.plot(x, y, color=color, linewidth=.8, alpha=.3)
            axes.set_title('thick: running mean', loc='right', fontsize=8)
            x, y = x[window - 1:], np.convolve(y, np.full(window, 1 / window), 'valid')
        axes.plot(x, y, color=color, linestyle=style, linewidth=width, label=name,
                  marker='o' if len(y) == 1 else None)
    if title.startswith('Spread') and floor is not None:
        axes.axhline(floor, color='#D55E00', linewidth=1.2, linestyle='--')
        axes.annotate(f'floor {floor:g}', (1, floor), (0, 3), fontsize=8, ha='right', color='#D55E00',
                      xycoords=('axes fraction', 'data'), textcoords='offset points')
    axes.set_title(title, loc='left', fontsize=10, fontweight='bold')
    axes.set_xlabel('iteration', fontsize=8)
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    axes.ticklabel_format(axis='y', useOffset=False)
    axes.tick_params(labelsize=8)
    axes.spines[['top', 'right']].set_visible(False)
    axes.grid(axis='y', color='#dddddd', linewidth=.6)
    if title.startswith('Share'):
        axes.set_ylim(0, 1)
    elif not title.startswith(('Loss', 'Momentum')):
        axes.set_ylim(bottom=0)
    if legend and len(axes.get_legend_handles_labels()[1]) > 1:
        axes.legend(frameon=False, fontsize=8, loc='upper left', bbox_to_anchor=(1, 1))
