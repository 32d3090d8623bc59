"""Tables and pictures of the collapse study; see docs/results/collapse.md."""
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure

from ..pictures.canvas import INK, figure_pixels
from ..pictures.curves import COLORS
from .resampling import student_half_width
from .summary import markdown_table

BASE = 'base'
REFERENCES = ('imagenet', 'soco')  # arms that the others are compared with


def collapse_tables(content: dict[str, Any]) -> str:
    """Return the table of all runs, those of one group together.

    The ranks are those of the online network, which a detector starts from; the target network follows
    it after many steps only.

    Args:
        content (dict[str, Any]): Records of tools/benchmarks/collapse_study.py.

    Returns:
        str: Markdown.
    """
    columns = ('factor', 'run', 'rank of objects before', 'after', 'after / before',
               'in 5 directions', 'explained by the box', 'silent units', 'rank of projections',
               'found again', 'last loss')
    rows = []
    for group, runs in by_group(content['records']).items():
        for name, record in runs.items():
            if 'lost' in record:
                rows.append([group, name, record['lost'], *[''] * 8])
                continue
            before, after = (record[when]['online object'] for when in ('before', 'after'))
            rows.append([
                group, name, f'{before["effective_rank"]:.1f}', f'{after["effective_rank"]:.1f}',
                f'{after["effective_rank"] / before["effective_rank"]:.2f}',
                f'{after["leading_share"]:.2f}', f'{after["by_box"]:.2f}', str(after['silent']),
                f'{record["after"]["online projection"]["effective_rank"]:.1f}',
                f'{record["top1"][0]:.1%} → {record["top1"][1]:.1%}',
                f'{record["curves"]["loss"][-1][1]:.2f}'])
    return markdown_table(columns, rows)


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
    columns = 3
    rows = -(-len(groups) // columns)
    figure = Figure(figsize=(5.2 * columns, 3 * rows), dpi=100, layout='constrained')
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
        axes.legend(frameon=False, fontsize=8, loc='center left', bbox_to_anchor=(1, .5))
    return figure_pixels(figure)


class Detector(NamedTuple):
    """A detector that was fine-tuned for a study.

    Args:
        study (str): Name of the study.
        arm (str): What it started from.
        share (int): Percentage of the labels.
        seed (int): Seed of pretraining and fine-tuning.
        rank_share (float): Effective rank of the object features that it started from, as a share of
            that of the network before SoCo's pretraining; 1 without this pretraining.
        values (Mapping[str, float]): AP by name, such as `box_AP50@150`, within [0, 1].
    """

    study: str
    arm: str
    share: int
    seed: int
    rank_share: float
    values: Mapping[str, float]


def detectors_of(content: dict[str, Any]) -> list[Detector]:
    """Return the detectors in records such as docs/results/collapse_cards.json."""
    found = []
    for key, record in content['records'].items():
        if match := re.fullmatch(r'finetune/(\w+)/(\d+)percent/seed(\d+)', key):
            arm, share, seed = match[1], int(match[2]), int(match[3])
            method, rank_share = content['arms'][arm]['method'], 1.
            if method:
                ranks = content['records'][f'pretrain/{method}/seed{seed}']['ranks']
                before, after = (ranks[when]['online object']['effective_rank']
                                 for when in ('before', 'after'))
                rank_share = after / before
            found.append(Detector(content['study'], arm, share, seed, rank_share, record['values']))
    return found


def mean_difference(detectors: Sequence[Detector], arm: str, reference: str, name: str
                    ) -> tuple[float, float, float, int]:
    """Compare two arms over all pairs of detectors of the same study, share and seed.

    Args:
        detectors (Sequence[Detector]): Detectors of one or several studies.
        arm (str): The arm.
        reference (str): The arm to subtract.
        name (str): Name of the value.

    Returns:
        tuple: Mean difference, both ends of its 95 % interval after Student's t over the pairs (NaN
        for fewer than two), and the number of pairs.
    """
    ours, theirs = ({(d.study, d.share, d.seed): d.values[name] for d in detectors if d.arm == wanted}
                    for wanted in (arm, reference))
    pairs = [value - theirs[key] for key, value in ours.items() if key in theirs]
    mean = float(np.mean(pairs)) if pairs else float('nan')
    if len(pairs) < 2:
        return mean, float('nan'), float('nan'), len(pairs)
    half = student_half_width(pairs)
    return mean, mean - half, mean + half, len(pairs)


def detector_tables(contents: Sequence[dict[str, Any]], points: Sequence[int]) -> str:
    """Return the mean AP of each arm, and the differences of arms over all studies.

    Args:
        contents (Sequence[dict[str, Any]]): Records such as docs/results/collapse_cards.json, with the
            same arms.
        points (Sequence[int]): Iterations of fine-tuning to report.

    Returns:
        str: Markdown.
    """
    detectors = [d for content in contents for d in detectors_of(content)]
    arms = {arm: value['title'] for content in contents for arm, value in content['arms'].items()}
    names = [f'box_{measure}@{point}' for point in points for measure in ('AP', 'AP50')]
    titles = [name.removeprefix('box_').replace('@', ' at ') for name in names]
    rows, differences = [], []
    for study, share in sorted({(d.study, d.share) for d in detectors}, key=lambda k: (k[0], -k[1])):
        for arm, title in arms.items():
            runs = [d for d in detectors if (d.study, d.share, d.arm) == (study, share, arm)]
            if runs:
                cells = [f'{100 * np.mean([d.values[name] for d in runs]):.1f}' for name in names]
                rows.append([
                    study.partition('_')[2], f'{share} %', title, str(len(runs)),
                    f'{np.mean([d.rank_share for d in runs]):.2f}', *cells])
    studies = list(dict.fromkeys(d.study for d in detectors))
    for arm, reference in [(arm, reference) for reference in REFERENCES for arm in arms
                           if arm not in REFERENCES or (arm, reference) == REFERENCES[::-1]]:
        for part in ([*studies] if len(studies) > 1 else []) + [None]:
            chosen = [d for d in detectors if part in (None, d.study)]
            found = [mean_difference(chosen, arm, reference, name) for name in names]
            if found[0][3]:
                differences.append([
                    f'{arms[arm]} − {arms[reference]}', part.partition('_')[2] if part else 'all',
                    str(found[0][3]),
                    *(f'{100 * mean:+.1f}' + (f' ({100 * low:.1f} to {100 * high:.1f})'
                                              if pairs > 1 else '')
                      for mean, low, high, pairs in found)])
    return '\n\n'.join([
        markdown_table(['photos', 'labels', 'start', 'seeds', 'rank, after / before', *titles], rows),
        markdown_table(['difference (95 % interval)', 'photos', 'pairs', *titles], differences)])


def draw_ranks_and_ap(contents: Sequence[dict[str, Any]], point: int) -> np.ndarray:
    """Draw AP50 of each detector over the rank of the features that it started from.

    Args:
        contents (Sequence[dict[str, Any]]): See `detector_tables`.
        point (int): Iterations of fine-tuning.

    Returns:
        np.ndarray: (H, W, 3) uint8, with a panel for each set of photos and share of the labels.
    """
    detectors = [d for content in contents for d in detectors_of(content)]
    arms = {arm: value['title'] for content in contents for arm, value in content['arms'].items()}
    panels = sorted({(d.study, d.share) for d in detectors}, key=lambda k: (k[0], -k[1]))
    columns = min(4, len(panels))
    figure = Figure(figsize=(3.6 * columns, 3.4 * -(-len(panels) // columns)), dpi=110,
                    layout='constrained')
    for place, (study, share) in enumerate(panels, 1):
        axes = figure.add_subplot(-(-len(panels) // columns), columns, place)
        for i, (arm, title) in enumerate(arms.items()):
            runs = [d for d in detectors if (d.study, d.share, d.arm) == (study, share, arm)]
            axes.plot([d.rank_share for d in runs], [100 * d.values[f'box_AP50@{point}'] for d in runs],
                      'os^'[i // len(COLORS)], color=COLORS[i % len(COLORS)], label=title, alpha=.8)
        axes.set_xscale('log')
        axes.set_xlim(.01, 1.5)
        axes.set_ylim(0, 100)
        axes.set_title(f'{study.partition("_")[2]}, {share} % of the labels', loc='left', fontsize=10,
                       fontweight='bold')
        axes.set_xlabel('rank of object features, after / before', fontsize=8)
        axes.set_ylabel(f'AP50 at {point} iterations, %', fontsize=8)
        axes.tick_params(labelsize=8)
        axes.spines[['top', 'right']].set_visible(False)
        axes.grid(color='#dddddd', linewidth=.6)
        if place == 1:
            axes.legend(frameon=False, fontsize=7)
    return figure_pixels(figure)
