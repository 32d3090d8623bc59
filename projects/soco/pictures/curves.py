"""Curves of one or several runs, also of detectors, drawn from the log of mmengine's visualizer."""
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from .canvas import INK, PALETTE, figure_pixels, save_image

# Without the palette's light colours, which are hard to see on white.
COLORS = [np.divide(PALETTE[i], 255) for i in (5, 0, 3, 4, 6, 1)]
STYLES = ('-', '--', ':')  # the second one from the seventh curve of a panel on
# Key in the log: title of its panel, and its label there.
PANELS = {
    'loss_regulariser': ('Terms against collapse', ''),
    'lr': ('Learning rate', ''),
    'momentum': ('Momentum of the target network', ''),
    'grad_norm': ('Gradient norm', ''),
    'obj_std': ('Spread of object features', 'online'),
    'obj_std_target': ('Spread of object features', 'target'),
    'obj_rank': ('Effective rank of features', 'objects'),
    'proj_rank': ('Effective rank of features', 'projections'),
    'images_per_s': ('Images per second', ''),
    'time': ('Seconds per iteration', 'whole'),
    'data_time': ('Seconds per iteration', 'waiting for data'),
    'memory': ('Peak GPU memory (MB)', ''),
    'objects/top1': ('Objects found again', 'all photos'),
    'objects/top1_scales': ('Objects found again', 'other size'),
    'objects/top1_same_photo': ('Objects found again', 'same photo'),
    'objects/chance': ('Objects found again', 'chance'),
}
_AP = re.compile(r'(?:(?:coco|lvis)/(bbox|segm)_m?AP(?:_?(50))?|pascal_voc/AP(50))')


class Curve(NamedTuple):
    """A curve of a panel."""

    name: str
    points: np.ndarray  # (n, 2), iteration and value
    color: np.ndarray
    style: str = '-'


def draw_training(records: Sequence[dict] | Mapping[str, Sequence[dict]], out: str | Path,
                  obj_std_floor: float | None = None) -> Path:
    """Draw everything that one or several runs logged into one picture.

    With one run, a panel contains related quantities, such as the losses of all pairs. With several
    runs, there is a panel for each quantity and a colour for each run. Quantities that no run logged
    are left out. From 40 values on, a loss is drawn thin, with its running mean over a twentieth of
    the values on top.

    Args:
        records (Sequence[dict] | Mapping[str, Sequence[dict]]): Records of a run, as returned by
            `read_run`, or those of several runs by their names. The keys drawn are any `loss`, AP and
            AP50 of a detector's validations, those of `PANELS`, and `share_v1_p2` and the like, over
            `step` or `iter`; other keys are ignored.
        out (str | Path): The PNG file to write.
        obj_std_floor (float | None): Spread below which the features have collapsed, drawn as a line.
            Defaults to None.

    Returns:
        Path: `out`.

    Raises:
        ValueError: If a run has nothing to draw, or `out` does not end in .png.
    """
    return save_image(figure_pixels(training_figure(records, obj_std_floor)), out)


def training_figure(records: Sequence[dict] | Mapping[str, Sequence[dict]],
                    obj_std_floor: float | None = None) -> Figure:
    """Build the figure that `draw_training` writes, with the same arguments and errors."""
    runs = records if isinstance(records, Mapping) else {'the run': records}
    panels = _panels({name: _points(name, rows) for name, rows in runs.items()})
    columns = next(n for n, most in ((1, 1), (2, 4), (3, 12), (4, len(panels))) if len(panels) <= most)
    places = list(range(len(panels)))
    shares = sum(title.startswith('Share') for title in panels)
    if 0 < shares < len(panels):  # the shares come last, on a new row
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
    """Build each panel of a run's `training_figure` as a separate figure, for a page of them.

    Args:
        records (Sequence[dict]): Records of one run, see `draw_training`.
        obj_std_floor (float | None): Spread below which the features have collapsed, drawn as a line.
            Defaults to None.

    Returns:
        dict[str, Figure]: Figures by title, each as wide as a phone.

    Raises:
        ValueError: If there is nothing to draw.
    """
    figures = {}
    for title, curves in _panels({'the run': _points('the run', records)}).items():
        figures[title] = Figure(figsize=(3.6, 2.5), layout='constrained')
        _draw_panel(figures[title].add_subplot(), title, curves, True, obj_std_floor)
    return figures


def iteration_of(record: dict, default: float = 0) -> float:
    """Return the iteration of a record (`step` or `iter`), or a default."""
    return record.get('step', record.get('iter', default))


def ap_name(key: str) -> tuple[str, str] | None:
    """Return measure and kind of a validation's AP, or None if a key is of something else.

    Args:
        key (str): Key of the log, of mmdet's `CocoMetric`, `LVISMetric` or `VOCMetric`.

    Returns:
        tuple[str, str] | None: 'AP' (the mean over IoU 0.5 to 0.95) or 'AP50', and 'box' or 'mask'.
    """
    found = _AP.fullmatch(key)
    if not found:
        return None
    return f'AP{found[2] or found[3] or ""}', 'mask' if found[1] == 'segm' else 'box'


def _points(name: str, records: Sequence[dict]) -> dict[str, np.ndarray]:
    """Return the points of each key that can be drawn, (n, 2): iteration and value."""
    points: dict[str, list[tuple[float, float]]] = {}
    for i, record in enumerate(records, 1):
        for key, value in record.items():
            if _place(key) and isinstance(value, (int, float)):
                points.setdefault(key, []).append((iteration_of(record, i), value))
    if not points:
        raise ValueError(
            f'Nothing to draw of {name}: none of its {len(records)} records contains a loss, lr, '
            'momentum, obj_std or AP. Use a run that logged at least one iteration; a short run needs '
            'a smaller `default_hooks.logger.interval`.')
    return {key: np.array(values, dtype=np.float64) for key, values in points.items()}


def _place(key: str) -> tuple[str, str] | None:
    """Return the panel of a key and its name there, or None if the key is not drawn."""
    if key in PANELS:
        return PANELS[key]
    if measure := ap_name(key):
        return f'{measure[0]} on val', measure[1]
    if pair := re.fullmatch(r'loss_(\d)(\d)', key):
        return 'Loss', f'views {pair[1]}, {pair[2]}'
    if re.fullmatch(r'[\w.]*loss[\w.]*', key):
        return 'Loss', 'total' if key == 'loss' else key
    if share := re.fullmatch(r'share_v(\d+)_p(\d+)', key):
        return f'Share of the boxes of view {share[1]}', f'P{share[2]}'
    return None


def _panels(runs: Mapping[str, Mapping[str, np.ndarray]]) -> dict[str, list[Curve]]:
    """Sort the curves of runs (points by run and key) into panels."""
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
    """Return a sort key: losses first, the total before its parts; AP; then `PANELS`; then the rest."""
    places = [*PANELS, key]
    return (_place(key)[0] != 'Loss', key != 'loss', ap_name(key) is None, places.index(key),
            ap_name(key) or (key, ))


def _look(i: int) -> dict:
    return dict(color=COLORS[i % len(COLORS)], linestyle=STYLES[i // len(COLORS) % len(STYLES)])


def _draw_panel(axes: Axes, title: str, curves: Sequence[Curve], legend: bool,
                floor: float | None) -> None:
    for i, (name, points, color, style) in enumerate(curves):
        x, y = points.T
        # with several runs, an earlier curve stays visible below a later one with the same values
        width = 1.6 if legend else min(1.6 + .9 * (len(curves) - 1 - i), 3.4)
        window = len(y) // 20 if title.startswith('Loss') and len(y) >= 40 else 1
        if window > 1:
            axes.plot(x, y, color=color, linewidth=.8, alpha=.3)
            axes.set_title('thick: running mean', loc='right', fontsize=8)
            x, y = x[window - 1:], np.convolve(y, np.full(window, 1 / window), 'valid')
        axes.plot(x, y, color=color, linestyle=style, linewidth=width, label=name,
                  marker='o' if len(y) == 1 or title.startswith('AP') else None)
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
