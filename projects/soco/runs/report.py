"""The report of a run, of pretraining or of a detector: one HTML page that opens offline."""
import base64
import io
import math
import re
import shlex
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import matplotlib
import numpy as np
from PIL import Image

from .. import __version__
from ..files import write_whole
from ..pictures.curves import ap_name, panel_figures
from .config_changes import Change, base_files, changes_against, config_values, known_config
from .next_steps import browse_command, commands, score_command
from .page import render_page
from .read import Picture, Run, read_work_dir

if TYPE_CHECKING:
    from ..engine import CollapseHook

PICTURES = 2  # latest pictures of each kind on the page
WIDEST = 1800  # px; wider pictures are resized
SHOWN = {
    'views': "Views of photos as the model's input, with boxes of the same object in the same colour",
    'neighbours': "Objects and their nearest neighbours in the network's features"}
COLUMNS = 6  # iterations in the table of scores
ROWS = 20  # rows in the table of images that could not be used


class Embedded(NamedTuple):
    """A picture inside the page.

    Attributes:
        uri (str): `data:` URI with the picture.
        alt (str): Alternative text.
        caption (str): Text below the picture.
        width (int): Width in pixels.
        height (int): Height in pixels.
    """
    uri: str
    alt: str
    caption: str
    width: int
    height: int


def write_report(work_dir: str | Path, out: str | Path | None = None) -> Path:
    """Write the report of a run of pretraining or of a detector.

    Args:
        work_dir (str | Path): Its work directory.
        out (str | Path | None): The HTML file; an existing file is replaced. Defaults to None:
            `report.html` in the work directory.

    Returns:
        Path: The file.

    Raises:
        FileNotFoundError: If the work directory does not exist.
        ValueError: If the work directory contains no run or a run of another model, or `out` is
            not an .html file.
        OSError: If the page cannot be written. An existing page is kept.
    """
    out = Path(out) if out else Path(work_dir) / 'report.html'
    if out.suffix.lower() not in ('.html', '.htm'):
        raise ValueError(f'{out}: the report is an HTML page; use a name that ends in .html.')
    run = read_work_dir(work_dir)
    if run.kind != 'SoCo' and not run.is_detector:
        raise ValueError(f'{work_dir} is a run of {run.kind}, but the report is for SoCo pretraining '
                         'and for detectors. For curves of any run: python tools/plot_curves.py '
                         + shlex.quote(str(work_dir)))
    write_whole(out, render(run).encode())
    return out


def render(run: Run) -> str:
    """Build the page of a run.

    Args:
        run (Run): See `read_work_dir`.

    Returns:
        str: HTML that loads nothing from outside. All text from the run is escaped.
    """
    curves = _curves(run)
    pictures = {kind: _embed_all(run, kind) for kind in SHOWN}  # may add troubles
    return render_page(
        Path(__file__).with_name('report.html'), name=run.work_dir.resolve().name, run=run,
        summary=(_detector_summary if run.is_detector else _summary)(run), facts=_facts(run),
        comparisons=_comparisons(run), score_curve=curves.pop('Objects found again', None),
        curves=list(curves.values()), views=pictures['views'], neighbours=pictures['neighbours'],
        scores=(ap_table if run.is_detector else score_table)(run.records), commands=commands(run),
        score_command=score_command(run), browse_command=browse_command(run), version=__version__,
        bad_images=run.bad_images[:ROWS], warnings=[*warnings_of(run), *run.troubles])


def warnings_of(run: Run) -> list[str]:
    """Return the warnings on a run, the most severe first.

    Args:
        run (Run): See `read_work_dir`.

    Returns:
        list[str]: The warnings.
    """
    found = []
    losses = [(r.get('step', '?'), loss) for r in run.records for loss in _values([r], 'loss')]
    broken = [step for step, loss in losses if not math.isfinite(loss)]
    if broken:
        found.append(f'The loss is not finite at {len(broken)} logged iterations, the first is '
                     f'{broken[0]}. Try a lower learning rate, a longer warm-up, or bfloat16 instead '
                     'of float16.')
    limits = collapse_hook(run)
    spreads, floor = _values(run.records, 'obj_std'), limits.threshold
    if spreads and not spreads[-1] >= floor:
        found.append(f'The features have collapsed: their spread (obj_std) is {spreads[-1]:.3f}, under '
                     f'{floor:g}. All objects have nearly the same features; these weights are of no '
                     'use for a detector.')
    ranks, share = _values(run.records, 'obj_rank'), limits.rank_share
    if len(ranks) > 1 and not ranks[-1] >= share * ranks[0]:
        found.append(f'The features have collapsed into a few directions: their effective rank '
                     f'(obj_rank) fell from {ranks[0]:.1f} to {ranks[-1]:.1f}, under {share:.0%} of '
                     f'the start. {limits.LOW_RANK}')
    if not run.finished:
        how = run.sessions[-1].get('how') if run.sessions else None
        why = (f'It {"" if how.startswith("failed") else "was "}{how}.' if how else
               'No end is recorded: it is still running, or was killed.')
        found.append(f'The run is not finished ({progress(run)}). {why}')
    if not losses:
        found.append('No iteration was logged, so there are no curves.')
    if run.checkpoint is None:
        found.append('There is no checkpoint to continue from.')
    if run.bad_images:
        found.append(f'{len(run.bad_images)} images could not be used and were replaced by others; '
                     'they are listed below.')
    return found


def collapse_hook(run: Run) -> 'CollapseHook':
    """Return the run's `CollapseHook`, whose limits tell a collapse; the default one if it has none."""
    given = run.part('default_hooks.collapse')
    from ..engine import CollapseHook  # only here: its import takes seconds
    return CollapseHook(**{name: given[name] for name in ('threshold', 'rank_share')
                           if isinstance(given.get(name), float)})


def progress(run: Run) -> str:
    """Describe how many epochs or iterations of a run are done."""
    done, wanted = run.done.get('iter', 0), run.wanted
    if 'epoch' in wanted:
        return f'{run.done.get("epoch", 0)} of {wanted["epoch"]} epochs, {done} iterations'
    return f'{done} of {wanted["iter"]} iterations' if wanted else f'{done} iterations'


def score_table(records: Sequence[dict]) -> dict[str, Any]:
    """Build the table of object scores over time.

    Args:
        records (Sequence[dict]): Logged values. Keys of scores begin with `objects/`.

    Returns:
        dict[str, Any]: `steps`, the iterations of at most `COLUMNS` evenly spread columns; `rows`, the
        name of a score and a text per column; `best`, iteration and text of the highest top1, or None.
    """
    scored = [r for r in records if any(key.startswith('objects/') for key in r)]
    keys = list(dict.fromkeys(key for r in scored for key in r if key.startswith('objects/')))
    places = np.linspace(0, len(scored) - 1, min(COLUMNS, len(scored))).round().astype(int)
    top1 = [(_values([r], 'objects/top1')[0], r.get('step', 0)) for r in scored
            if _values([r], 'objects/top1')]
    best = max(top1, default=None)
    return dict(
        steps=[scored[i].get('step', 0) for i in places],
        rows=[(key.removeprefix('objects/').replace('_', ' '),
               [_score_text(key, scored[i].get(key)) for i in places]) for key in keys],
        best=best and (best[1], _score_text('objects/top1', best[0])))


def ap_table(records: Sequence[dict]) -> dict[str, Any]:
    """Build the table of a detector's AP over its validations; see `score_table`.

    Args:
        records (Sequence[dict]): Logged values.

    Returns:
        dict[str, Any]: `steps` and `rows` of at most `COLUMNS` validations, the last one among them;
        `best`, iteration and text of the highest AP, or None.
    """
    judged = [(r.get('step', 0), {name: r[key] for key in r if (name := ap_name(key))})
              for r in records if any(map(ap_name, r))]
    places = np.linspace(0, len(judged) - 1, min(COLUMNS, len(judged))).round().astype(int)
    names = sorted({name for _, values in judged for name in values}, key=lambda name: name[::-1])
    highest = max(((values[names[0]], step) for step, values in judged if names[0] in values),
                  default=None)
    return dict(
        steps=[judged[i][0] for i in places],
        rows=[(f'{kind} {measure}', [f'{100 * judged[i][1][measure, kind]:.1f}'
                                     if (measure, kind) in judged[i][1] else '–' for i in places])
              for measure, kind in names],
        best=highest and (highest[1], f'{" ".join(names[0][::-1])} {100 * highest[0]:.1f}'))


def _detector_summary(run: Run) -> list[tuple[str, str, str]]:
    """Return title, value and explanation of each card of a detector's summary."""
    losses, table = _values(run.records, 'loss'), ap_table(run.records)
    cards = [('State', 'Finished' if run.finished else 'Not finished', progress(run)),
             ('Loss', f'{losses[0]:.2f} → {losses[-1]:.2f}' if losses else 'not logged', '')]
    for name, cells in table['rows']:
        cards.append((name[:1].upper() + name[1:], cells[-1],
                      f'on val after {table["steps"][-1]} iterations, in percent'))
    return cards


def _summary(run: Run) -> list[tuple[str, str, str]]:
    """Return title, value and explanation of each card of the summary."""
    losses, spreads = _values(run.records, 'loss'), _values(run.records, 'obj_std')
    ranks, limits = _values(run.records, 'obj_rank'), collapse_hook(run)
    pairs = len({key for r in run.records for key in r if re.fullmatch(r'loss_\d\d', key)})
    best, chances = score_table(run.records)['best'], _values(run.records, 'objects/chance')
    chance = f', chance {chances[-1]:.1%}' if chances else ''
    return [
        ('State', 'Finished' if run.finished else 'Not finished', progress(run)),
        ('Loss', f'{losses[0]:.2f} → {losses[-1]:.2f}' if losses else 'not logged',
         f'the lowest possible is {-4 * pairs}' if pairs else ''),
        ('Spread of object features', f'{spreads[-1]:.2f}' if spreads else 'not logged',
         f'under {limits.threshold:g} they have collapsed'),
        ('Effective rank of object features',
         f'{ranks[0]:.1f} → {ranks[-1]:.1f}' if ranks else 'not logged',
         f'under {limits.rank_share:.0%} of the start they have collapsed'),
        ('Best object score', best[1] if best else 'not measured',
         f'top-1 at iteration {best[0]}{chance}' if best else 'see the command below'),
    ]


def _facts(run: Run) -> list[tuple[str, str]]:
    """Return the run details as pairs of a label and a text."""
    iterations = run.done.get('iter', 0)
    facts = [
        ('Work directory', str(run.work_dir)),
        ('Done', progress(run)),
        ('Time in iterations', f'about {_duration(run.seconds)}, {run.seconds / iterations:.2f} s each'
         if run.seconds and iterations else 'not logged'),
    ]
    if not run.sessions:
        return [*facts, ('Starts', str(run.starts))]
    first, last = run.sessions[0], run.sessions[-1]
    commit = last['commit'] or 'not known'
    if commit.endswith('-dirty'):
        commit = f'{commit.removesuffix("-dirty")}, with uncommitted changes'
    gpus = [f'{last["gpus"].count(gpu)} × {gpu}' for gpu in dict.fromkeys(map(str, last['gpus']))]
    return facts + [
        ('Config', last['config']),
        ('Resumed', f'{run.starts - 1} times' if run.starts > 1 else 'never'),
        ('Started', _when(first['started'])),
        ('Ended', _when(last.get('ended', 'not recorded'))),
        ('Processes', str(last['processes'])),
        ('Hardware', ', '.join([*(gpus or ['no GPU']), f'{last["cores"]} cores of {last["cpu"]}',
                                f'{last["memory_gib"]} GiB of memory'])),
        ('Code', f'mmsoco {last["version"]}, commit {commit}'),
        ('Versions', ', '.join(f'{name} {version}' for name, version in last['versions'].items())),
    ]


def _comparisons(run: Run) -> list[tuple[str, list[Change]]]:
    """Return title and changes of the run against the project's config, and of that one's parents."""
    if run.config is None:
        return []
    names = run.sessions[-1]['known_configs'] if run.sessions else [run.config_path.name] * bool(
        run.config_path)
    known = [path for name in names if (path := known_config(str(name)))]
    if not known:
        return []
    title = 'This run against ' + ', '.join(path.name for path in known)
    found = [(title, changes_against(run.config, known))]
    if len(known) == 1 and (parents := base_files(known[0])):
        title = f'{known[0].name} against {", ".join(path.name for path in parents)}'
        found.append((title, changes_against(config_values(known[0]), parents)))
    return found


def _curves(run: Run) -> dict[str, Embedded]:
    """Draw each group of curves with a transparent background, by title."""
    if not _values(run.records, 'loss'):
        return {}
    found = {}
    for title, figure in panel_figures(run.records, collapse_hook(run).threshold).items():
        file = io.BytesIO()
        with matplotlib.rc_context({'svg.hashsalt': title}):  # for reproducible ids
            figure.savefig(file, format='svg', transparent=True, metadata={'Date': None})
        losses = _values(run.records, 'loss') if title == 'Loss' else []
        more = f', from {losses[0]:.2f} to {losses[-1]:.2f}' if losses else ''
        width, height = (round(inches * 96) for inches in figure.get_size_inches())
        found[title] = Embedded(_uri('image/svg+xml', file.getvalue()),
                                f'Curve over the iterations: {title}{more}', '', width, height)
    return found


def _embed_all(run: Run, kind: str) -> list[Embedded]:
    found = []
    for picture in run.pictures[kind]:
        if len(found) == PICTURES:
            break
        try:
            found.append(_embed(picture, f'{SHOWN[kind]}, at iteration {picture.step}'))
        except (OSError, ValueError, Image.DecompressionBombError) as error:
            run.troubles.append(f'{picture.path} cannot be shown as a picture ({error}).')
    return found


def _embed(picture: Picture, alt: str) -> Embedded:
    with Image.open(picture.path, formats=['PNG']) as opened:
        image = opened.convert('RGB')
    image.thumbnail((WIDEST, 4 * WIDEST))
    file = io.BytesIO()
    image.save(file, 'WEBP', quality=85)
    return Embedded(_uri('image/webp', file.getvalue()), alt, f'Iteration {picture.step}', *image.size)


def _uri(kind: str, content: bytes) -> str:
    return f'data:{kind};base64,{base64.b64encode(content).decode()}'


def _values(records: Sequence[dict], key: str) -> list[float]:
    return [float(r[key]) for r in records if isinstance(r.get(key), (int, float))]


def _score_text(key: str, value: Any) -> str:
    if not isinstance(value, (int, float)):
        return '–'
    if isinstance(value, int):
        return str(value)
    return f'{value:.1%}' if key.startswith(('objects/top', 'objects/chance')) else f'{value:.3f}'


def _when(text: str) -> str:
    try:
        return datetime.fromisoformat(text).strftime('%Y-%m-%d %H:%M UTC')
    except (TypeError, ValueError):  # the record may have been edited
        return str(text)


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f'{hours} h {minutes:02} min'
    return f'{minutes} min {rest:02} s' if minutes else f'{rest} s'
