"""Score object features on held-out photos, without labels or with those of a COCO json.

    python tools/evaluate_objects.py CONFIG CKPT... --random --images PHOTOS
    python tools/evaluate_objects.py CONFIG CKPT... --random --images PHOTOS --annotations COCO.json

Without --annotations, the scores measure whether an object is found again in another view. With
--annotations, they measure whether the objects nearest to it have its class. See docs/evaluation.md.
"""
from __future__ import annotations

import argparse
import json
import re
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from projects.soco.files import write_whole
from projects.soco.launch.arguments import add_options_argument, hide_devices
from projects.soco.launch.errors import run_tool

if TYPE_CHECKING:
    from mmengine.config import Config

    from projects.soco.evaluation.class_score import LabelledScore
    from projects.soco.evaluation.objects import ObjectScore
    from projects.soco.evaluation.rank import FeatureRank
    from projects.soco.models.soco import SoCo

# Those of projects.soco.evaluation; the first is the default.
FEATURES, LABELLED_FEATURES = ('projection', 'object'), ('object', 'backbone')
RANDOM = 'random'
NUM_PHOTOS = 64
console = Console(highlight=False, markup=False)


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config', help='pretraining config of the checkpoints')
    parser.add_argument('checkpoints', nargs='*', metavar='CKPT', help='.pth or .safetensors: a '
                        'checkpoint of tools/train.py, an official SoCo checkpoint, or an output of '
                        'tools/convert_weights.py; for --features backbone also weights of other '
                        'libraries and methods (docs/weights.md)')
    parser.add_argument('--images', required=True, metavar='DIR', help='folder of held-out photos, or '
                        'a zip or uncompressed tar archive')
    parser.add_argument('--annotations', metavar='JSON', help='COCO json of instances in these photos')
    parser.add_argument('--random', action='store_true', help='also score a random initialisation')
    parser.add_argument('--seed', type=int, default=0, help='seed of views, random initialisation and '
                        'bootstrap (default: %(default)s)')
    parser.add_argument('--num-photos', type=int, metavar='N', help='photos to use, evenly spread '
                        f'(default: {NUM_PHOTOS}; with --annotations all)')
    parser.add_argument('--batch-size', type=int, default=8, metavar='N', help='photos per batch; BN '
                        'uses batch statistics, so scores depend on it (default: %(default)s)')
    parser.add_argument('--device', help='such as cpu, cuda or cuda:1 (default: cuda if available)')
    parser.add_argument('--json', metavar='OUT', help='write all scores to this file')
    parser.add_argument('--out', metavar='DIR', help='write a picture of objects and their nearest '
                        'neighbours for each model to this folder')
    parser.add_argument('--num-queries', type=int, default=8, metavar='N', help='objects in each '
                        'picture (default: %(default)s)')
    parser.add_argument('--features', choices=sorted({*FEATURES, *LABELLED_FEATURES}),
                        help='projection: features that pretraining compares (default; without '
                        '--annotations only); object: features of the RoI head, which a detector uses '
                        "(default with --annotations); backbone: averages of the backbone's stages "
                        'over a box (with --annotations only)')
    add_options_argument(parser, 'model.roi_head.bbox_roi_extractor.level_sizes=[28,56,112]')
    views = parser.add_argument_group('without --annotations')
    views.add_argument('--proposals', metavar='STORE', help="store of the photos' proposals, made by "
                       'tools/generate_proposals.py (default: run selective search on the photos that '
                       'are used)')
    views.add_argument('--repeats', type=int, metavar='N', help='draws of views per photo (default: 2)')
    labelled = parser.add_argument_group('with --annotations')
    labelled.add_argument('--view-size', type=int, metavar='PIXELS', help='side that photos are '
                          "resized to (default: that of the config's first view)")
    labelled.add_argument('--neighbours', type=int, metavar='K', help='number of neighbours that vote '
                          '(default: 5)')
    labelled.add_argument('--resamples', type=int, metavar='N', help='bootstrap draws (default: 1000)')
    args = parser.parse_args()
    if args.device == 'cpu':
        hide_devices()
    return args


def check_args(args: argparse.Namespace) -> None:
    """Check the arguments before anything is computed, and set defaults.

    Raises:
        FileNotFoundError: If a checkpoint does not exist.
        ValueError: If arguments are invalid or contradict each other.
    """
    if not (args.checkpoints or args.random):
        raise ValueError('There is no model to score. Pass checkpoints, or --random.')
    for path in args.checkpoints:
        if not Path(path).is_file():
            raise FileNotFoundError(f'There is no checkpoint at {path}.')
        if args.checkpoints.count(path) > 1:
            raise ValueError(f'{path} is given twice. Pass each checkpoint once.')
    if args.json and Path(args.json).is_dir():
        raise ValueError(f'--json {args.json} is a folder. Pass the name of a file.')
    own = {True: dict(view_size=None, neighbours=5, resamples=1000),
           False: dict(proposals=None, repeats=2)}
    for flag in own[not args.annotations]:
        if getattr(args, flag) is not None:
            raise ValueError(f'--{flag.replace("_", "-")} is only for scores '
                             f'{"without" if args.annotations else "with"} --annotations.')
    for flag, default in own[bool(args.annotations)].items():
        if getattr(args, flag) is None:
            setattr(args, flag, default)
    known = LABELLED_FEATURES if args.annotations else FEATURES
    if args.features is None:
        args.features = known[0]
    elif args.features not in known:
        raise ValueError(f'--features {args.features} is only for scores '
                         f'{"without" if args.annotations else "with"} --annotations.')
    for flag in ('num_photos', 'batch_size', 'num_queries', 'repeats', 'view_size', 'neighbours',
                 'resamples'):
        value = getattr(args, flag)
        if value is not None and value < 1:
            raise ValueError(f'--{flag.replace("_", "-")} must be at least 1, not {value}.')
    if args.seed < 0:
        raise ValueError(f'--seed must be at least 0, not {args.seed}.')


def set_device(args: argparse.Namespace) -> None:
    """Set the default device, and check that the device exists."""
    import torch
    args.device = args.device or ('cuda' if torch.cuda.is_available() else 'cpu')
    try:
        torch.empty(0, device=args.device)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f'--device {args.device}: {str(error).splitlines()[0]}') from error


def models(args: argparse.Namespace, cfg: Config) -> Iterator[tuple[str, SoCo]]:
    """Yield name and model, with one model in memory at a time."""
    from projects.soco.evaluation.loading import build_model
    paths = [None] * args.random + args.checkpoints
    for name, path in zip(labels([path or RANDOM for path in paths]), paths):
        yield name, build_model(cfg, path, args.seed, args.features).to(args.device)


def labels(names: list[str]) -> list[str]:
    """Return the file names of paths, or the paths themselves if file names repeat."""
    short = [Path(name).name for name in names]
    return short if len(set(short)) == len(short) else names


def make_proposals(args: argparse.Namespace, cfg: Config, folder: str) -> tuple[Path, list[str]]:
    """Run selective search on the photos that are used; return the store and the skipped photos."""
    from projects.soco.datasets.transforms import transform_in
    from projects.soco.proposals.executors import SerialExecutor
    from projects.soco.proposals.filters import get_filter
    from projects.soco.proposals.generate import GenerateOptions, generate
    from projects.soco.proposals.selective_search import compile_kernels
    from projects.soco.proposals.sources import open_source
    source = open_source(args.images)
    names = source.names()
    rows = np.linspace(0, len(names) - 1, min(args.num_photos or NUM_PHOTOS, len(names))).astype(int)
    out = Path(folder) / 'proposals.arrow'
    own_filter = transform_in(cfg, 'LoadProposals').get('keep') is not None
    options = GenerateOptions(box_filter=get_filter('all') if own_filter else None)
    with console.status('selective search: compiling kernels, once'):
        compile_kernels(options.generator.setting)
    with progress() as bar:
        task = bar.add_task('selective search', total=len(rows))
        summary = generate(source, out, options, SerialExecutor(),
                           names=[names[i] for i in rows],
                           report=lambda images, bad, before: bar.update(task, advance=images))
    return out, [f'{image}: {reason}' for image, reason in summary.skipped]


def progress() -> Progress:
    return Progress(TextColumn('{task.description}', markup=False), BarColumn(), MofNCompleteColumn(),
                    TimeElapsedColumn(), console=console)


def judge_views(args: argparse.Namespace, cfg: Config) -> dict[str, Any]:
    """Score without labels; return the settings, what was left out, and the scores by model."""
    from projects.soco.evaluation.neighbours import draw_view_neighbours
    from projects.soco.evaluation.objects import embed_objects, held_out_dataset, summarise
    from projects.soco.evaluation.rank import rank_of_model
    from projects.soco.evaluation.tables import rank_table, view_table
    from projects.soco.pictures.canvas import save_image
    with ExitStack() as stack:
        proposals, left_out = args.proposals, []
        if proposals is None:
            folder = stack.enter_context(tempfile.TemporaryDirectory())
            proposals, left_out = make_proposals(args, cfg, folder)
        dataset = held_out_dataset(cfg, args.images, proposals)
        empty = int((dataset.box_counts() == 0).sum())
        left_out += [f'{empty} photos without boxes'] * bool(empty)
        scores: dict[str, ObjectScore] = {}
        ranks: dict[str, dict[str, FeatureRank]] = {}
        photos = args.num_photos or NUM_PHOTOS
        with progress() as bar:
            for name, model in models(args, cfg):
                task = bar.add_task(name, total=min(photos, len(dataset.store) - empty) * args.repeats)
                found = embed_objects(model, dataset, photos, args.repeats, args.batch_size, args.seed,
                                      args.features, lambda done, task=task: bar.advance(task, done))
                scores[name] = summarise(found)
                ranks[name] = rank_of_model(model, dataset, photos, args.batch_size, args.seed,
                                            args.features)
                if args.out:
                    save_image(draw_view_neighbours(model, dataset, found[0], args.seed,
                                                    args.num_queries, name), picture_path(args, name))
    console.print(view_table(scores, args.features))
    for kind in ('', 'online '):
        console.print(rank_table(ranks, kind))
    settings = dict(features=args.features, repeats=args.repeats, batch_size=args.batch_size,
                    proposals=args.proposals or 'selective search')
    return dict(settings=settings, left_out=left_out,
                models={name: plain({**score._asdict(), 'ranks': ranks[name]})
                        for name, score in scores.items()})


def judge_classes(args: argparse.Namespace, cfg: Config) -> dict[str, Any]:
    """Score with labels; return the settings, what was left out, and the scores by model."""
    from projects.soco.evaluation.annotated import embed_labelled, first_view, read_labelled
    from projects.soco.evaluation.class_score import score_labelled
    from projects.soco.evaluation.neighbours import draw_class_neighbours
    from projects.soco.evaluation.tables import class_tables
    from projects.soco.pictures.canvas import save_image
    from projects.soco.proposals.sources import open_source
    view = first_view(cfg)
    view_size = args.view_size or view['size']
    source = open_source(args.images)
    scores: dict[str, LabelledScore] = {}
    with progress() as bar:
        task = bar.add_task('photos')
        labelled = read_labelled(args.annotations, source, view_size, args.num_photos,
                                 lambda done, total: bar.update(task, completed=done, total=total),
                                 view.get('finest_level', 0))
        for name, model in models(args, cfg):
            task = bar.add_task(name, total=len(labelled.names))
            feats = embed_labelled(model, labelled, args.batch_size,
                                   lambda done, task=task: bar.advance(task, done), args.features)
            scores[name] = score_labelled(feats, labelled, args.neighbours, args.resamples, args.seed)
            if args.out:
                save_image(draw_class_neighbours(feats, labelled, source, args.num_queries, name),
                           picture_path(args, name))
    settings = dict(features=args.features, view_size=view_size, neighbours=args.neighbours,
                    resamples=args.resamples, batch_size=args.batch_size, photos=len(labelled.names),
                    objects=len(labelled.classes), classes=len(labelled.class_names))
    for table in class_tables(scores, labelled, view_size, args.neighbours):
        console.print(table)
    return dict(settings=settings, left_out=labelled.left_out, mended=list(labelled.mended),
                models={name: plain(score) for name, score in scores.items()})


def plain(value: Any) -> Any:
    """Convert named tuples to dicts recursively."""
    if hasattr(value, '_asdict'):
        value = value._asdict()
    return {key: plain(v) for key, v in value.items()} if isinstance(value, dict) else value


def picture_path(args: argparse.Namespace, name: str) -> Path:
    return Path(args.out) / f'neighbours_{re.sub(r"[^0-9A-Za-z_-]+", "_", name)}.png'


def main() -> None:
    args = parse_args()
    check_args(args)
    from projects.soco.launch.configs import load_config, register_modules
    from projects.soco.proposals.sources import open_source
    cfg = load_config(args.config, args.cfg_options, register=False)
    open_source(args.images)
    set_device(args)

    import projects.soco.compat  # noqa: F401  (before any import of OpenMMLab)
    register_modules(cfg)
    result = (judge_classes if args.annotations else judge_views)(args, cfg)
    for note in result['left_out']:
        console.print(f'Left out: {note}', soft_wrap=True)
    for note in result.get('mended', ()):
        console.print(f'Mended in the annotations: {note}', soft_wrap=True)
    if args.out:
        console.print(f'Pictures of nearest neighbours are in {args.out}', soft_wrap=True)
    if args.json:
        about = dict(config=args.config, checkpoints=args.checkpoints, images=args.images,
                     annotations=args.annotations, seed=args.seed, device=args.device)
        write_whole(args.json, json.dumps({**about, **result}, indent=1).encode())
        console.print(f'All scores are in {args.json}', soft_wrap=True)


if __name__ == '__main__':
    run_tool(main)
