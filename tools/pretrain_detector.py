#!/usr/bin/env python
"""Pretrain the backbone, neck and box head of your detector on your photos.

    python tools/pretrain_detector.py DETECTOR PHOTOS
    python tools/pretrain_detector.py mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py PHOTOS --dry-run

DETECTOR is a config of MMDetection 3: a path, or mmdet:: and the path of one that MMDetection ships.
PHOTOS is a folder, a list of images (.txt), a COCO json, a zip or a tar archive; or, with --root, a
folder of VOC XML or YOLO text files, whose photos are used. In the work directory, detector_start.pth
is what the detector starts from. Pages: docs/detectors.md.
"""
import argparse
import os
import shlex
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from projects.soco.launch.arguments import add_options_argument  # noqa: E402

if TYPE_CHECKING:
    from mmengine.config import Config

    from projects.soco.detectors.work_dir import WorkDir
    from projects.soco.proposals.store import ProposalStore

RECIPE = ROOT / 'configs/soco_effnetlite0_fpn_own_photos.py'


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('detector', metavar='DETECTOR', help='config of the detector: a path, or '
                        'mmdet::PATH for one that MMDetection ships')
    parser.add_argument('photos', metavar='PHOTOS', type=Path, help='folder (with its subfolders), '
                        'list of images (.txt), COCO json, zip archive or uncompressed tar archive; '
                        'with --root also a folder of VOC XML or YOLO text files')
    parser.add_argument('--root', metavar='DIR', type=Path, help='folder of the photos that a list or '
                        'annotations name (default: the folder of that file)')
    parser.add_argument('--weights', metavar='FILE', type=Path, help='weights to start from (default: '
                        'random weights)')
    parser.add_argument('--freeze', metavar='N', type=int, help='first stages of the backbone that '
                        'stay as they are in --weights (default: none)')
    parser.add_argument('--backbone-rate', metavar='F', type=float, help='factor of the learning rate '
                        'for the backbone, such as 0.1 (default: that of the schedule)')
    parser.add_argument('--work-dir', metavar='DIR', type=Path, help='folder for everything that is '
                        'written (default: work_dirs/<detector>_<photos>)')
    parser.add_argument('--proposals', metavar='FILE', type=Path, help='proposal store of the photos '
                        '(default: made in the work directory)')
    parser.add_argument('--epochs', metavar='N', type=int, help='length of the run (default: 10,240 '
                        'photos seen, at least 20 epochs)')
    parser.add_argument('--localise', metavar='N', type=int, default=0, help='then train the detector '
                        'itself for N epochs to find the proposals, as objects of one class, so that '
                        'its RPN or dense head is pretrained too (default: %(default)s)')
    parser.add_argument('--batch-size', metavar='N', type=int, help='photos per step and process '
                        '(default: 16)')
    parser.add_argument('--gpus', metavar='N', type=int, default=1, help='number of GPUs, or of '
                        'processes on a machine without (default: %(default)s)')
    parser.add_argument('--resume', action='store_true', help='go on with the run in the work '
                        'directory')
    parser.add_argument('--objects', choices=['large', 'small'], default='large', help='large: '
                        'objects of 0.1 to 0.8 of the photo; small: views are tiles of the photo at '
                        'the size at which the detector sees it (default: %(default)s)')
    parser.add_argument('--follow-links', action='store_true', help='allow links in the folder of the '
                        'photos to lead out of it')
    parser.add_argument('--max-pixels', metavar='N', type=int, default=100_000_000, help='leave out '
                        'photos with more pixels (default: %(default)s)')
    add_options_argument(parser, 'model.backbone.depth=18')
    parser.add_argument('--dry-run', action='store_true', help='stop after the table and the config '
                        '(--objects small makes the proposals first)')
    return parser.parse_args()


def check_photos(photos: Path, count: int, at_least: int) -> None:
    """Check that there are photos, and enough for one step."""
    if count < at_least:
        raise ValueError(
            f'{photos} contains {count or "no"} photos (looked for .jpg, .png, .webp and similar, also '
            f'in subfolders), and one step takes {at_least} (--batch-size × --gpus). '
            + ('Lower --batch-size.' if count > 1 else 'Give a folder with more photos.'))


def make_proposals(photos: Path, out: Path, args: argparse.Namespace) -> 'ProposalStore':
    """Make the proposals of the photos, or use those that are there."""
    from projects.soco.detectors.object_sizes import SEARCH
    from projects.soco.proposals.sources import open_source
    from projects.soco.proposals.store import ProposalStore
    from projects.soco.proposals.store_check import check_has_boxes, check_store_fits
    from projects.soco.runs.follow import run_command
    if not out.exists() and (code := run_command([
            str(ROOT / 'tools/generate_proposals.py'), str(photos), str(out), *SEARCH,
            '--max-pixels', str(args.max_pixels), *(['--follow-links'] if args.follow_links else []),
            *(['--root', str(args.root)] if args.root else [])])):
        sys.exit(code)
    store, source = ProposalStore.open(out), open_source(photos, args.root, args.follow_links)
    check_store_fits(store, source)
    check_has_boxes(store, source)
    count = len(source.names())
    if count > len(store):
        print(f'{out} has boxes for {len(store)} of the {count} photos: the others could not be used, '
              'or were added since. Delete it to search all photos again.')
    return store


def train(config: Path, run: Path, steps: int, gpus: int, *options: str) -> Path:
    """Train with a config, or go on with its run; return the last checkpoint.

    Args:
        config (Path): The config.
        run (Path): Work directory of the run; its log is beside it.
        steps (int): Iterations of the whole run.
        gpus (int): Number of processes.
        *options (str): More options of tools/train.py.
    """
    import torch
    from rich.console import Console

    from projects.soco.files import run_checkpoints
    from projects.soco.launch.errors import Stopped
    from projects.soco.runs.progress import run_with_bar
    from projects.soco.weights.read import find_newest_checkpoint, read_checkpoint
    newest = find_newest_checkpoint(run)
    if newest is not None and read_checkpoint(newest)['meta']['iter'] >= steps:
        print(f'The run is finished: {newest}')
        return newest
    command = [str(ROOT / 'tools/train.py'), str(config), '--work-dir', str(run), *options]
    if not torch.cuda.is_available():
        command.append('--cpu')
    if run_checkpoints(run):  # if none can be opened, the run starts anew
        command.append('--resume')
    if gpus > 1:
        command = ['-m', 'torch.distributed.run', f'--nproc_per_node={gpus}',
                   f'--master_port={_free_port()}', *command, '--launcher', 'pytorch']
    paths = [str(ROOT), *filter(None, [os.environ.get('PYTHONPATH')])]
    try:
        run_with_bar(Console(highlight=False, markup=False), command, config.with_suffix('.log'),
                     config.stem, steps,
                     dict(PYTHONPATH=os.pathsep.join(paths), OMP_WAIT_POLICY='PASSIVE'))
    except Stopped:
        print('Stopped before the end; the same command with --resume continues.')
        raise
    return find_newest_checkpoint(run)


def photo_folder(args: argparse.Namespace) -> Path:
    """Return the folder that the names of photos are relative to."""
    folder = args.root or (args.photos if args.photos.is_dir() else args.photos.parent)
    return folder.resolve()


def localise(detector: 'Config', work: 'WorkDir', photos: Path, store: 'ProposalStore',
             args: argparse.Namespace) -> None:
    """Train the detector on the proposals, and write what it starts from."""
    from mmengine.config import Config

    from projects.soco.datasets.transforms import read_filter, transform_in
    from projects.soco.detectors.localise import (
        hand_over_localised,
        localisation_config,
        write_objects,
    )
    from projects.soco.detectors.read import plain
    from projects.soco.files import write_whole
    keep = transform_in(Config.fromfile(work.config), 'LoadProposals').keep
    count = write_objects(store, read_filter(plain(keep)), work.objects)
    cfg = localisation_config(detector, photos, work.objects.resolve(), len(store), args.localise,
                              args.weights is None, args.gpus)
    text = cfg.pretty_text.encode()
    if work.localisation.exists() and work.localisation.read_bytes() != text and not args.resume:
        raise ValueError(f'{work.localisation} was edited or made with other options. Add --resume to '
                         'go on with it, or delete it and the folder beside it to start anew.')
    if not (work.localisation.exists() and args.resume):
        write_whole(work.localisation, text)
    steps = Config.fromfile(work.localisation).train_cfg.max_iters
    print(f'\nThe detector learns to find {count} proposals ({work.localisation}).')
    checkpoint = train(work.localisation, work.localisation.with_suffix(''), steps, args.gpus,
                       '--pretrained', str(work.contrastive))
    arrived, left = hand_over_localised(detector, checkpoint, work.start)
    print(f'\n{arrived} of {arrived} tensors of {work.start} are in the detector, equal bit by bit; '
          f'{left} others (outputs for the classes, branches for masks) stay as the detector '
          'initialises them. '
          f'{work.contrastive} has those before this step.')


def _free_port() -> int:
    with socket.socket() as sock:
        sock.bind(('127.0.0.1', 0))
        return sock.getsockname()[1]


def print_end(work: 'WorkDir', config: Path, downloads: bool) -> None:
    """Print the commands that fine-tune the detector and that look at the run."""
    from projects.soco.files import tool_path
    start, config, ours = (shlex.quote(str(path.resolve()))
                           for path in (work.start, config, work.detector))
    tool = {name: f'python {shlex.quote(tool_path(f"tools/{name}.py"))}'
            for name in ('train', 'compare_starts', 'report', 'browse_views')}
    plain = f'load_from={start}' + (' model.backbone.init_cfg=None' if downloads else '')
    print('\nFine-tune the detector on your annotations (set its classes and data in a config that '
          f'inherits from it: docs/detectors.md), with this project:\n'
          f'  {tool["train"]} {ours} --pretrained {start}\n'
          'or with MMDetection alone, in its folder:\n'
          f'  python tools/train.py {config} --cfg-options {plain}\n'
          'Does it pay? Against random and other weights, on your annotations (docs/compare.md):\n'
          f'  {tool["compare_starts"]} {ours} --images DIR --train train.json --val val.json '
          f'--start random --start soco:{shlex.quote(str(work.path))}\n'
          'Look at the pretraining:\n'
          f'  {tool["report"]} {shlex.quote(str(work.run))}\n'
          f'  {tool["browse_views"]} {shlex.quote(str(work.config))}')


def main() -> None:
    args = parse_args()
    import torch

    import projects.soco.compat  # noqa: F401  (before any import of OpenMMLab)
    from projects.soco.annotations.formats import read_as_coco, write_coco
    from projects.soco.compat.cpu import cpu_config
    from projects.soco.detectors.build import build_detector
    from projects.soco.detectors.derive import default_epochs, derive, set_run, slow_layer_norm
    from projects.soco.detectors.hand_over import hand_over
    from projects.soco.detectors.localise import why_not
    from projects.soco.detectors.object_sizes import (
        SMALL,
        advise_by_annotations,
        advise_by_proposals,
        choose_proposals,
        describe_met,
        fit_levels,
        read_annotated,
        resolution_of,
        view_sizes,
    )
    from projects.soco.detectors.read import config_path, read_detector
    from projects.soco.detectors.start import check_start
    from projects.soco.detectors.table import format_table, part_rows
    from projects.soco.detectors.work_dir import WorkDir, check_own, write_config, write_detector
    from projects.soco.launch.checks import check_devices, check_work_dir
    from projects.soco.launch.configs import load_config, set_length
    from projects.soco.proposals.sources import open_source
    name = f'{Path(args.detector.removeprefix("mmdet::")).stem}_{args.photos.resolve().stem}'
    work = WorkDir.at(args.work_dir or Path('work_dirs') / name)
    if args.proposals:
        if not args.proposals.exists():
            raise FileNotFoundError(f'There are no proposals at {args.proposals} (--proposals). Make '
                                    'them with tools/generate_proposals.py, or omit the option.')
        work = work._replace(proposals=args.proposals)
    detector, notes = read_detector(args.detector, args.cfg_options)
    check_own(work, detector)
    recipe = load_config(str(RECIPE), {})
    if args.localise < 0:
        raise ValueError(f'--localise must be at least 0, not {args.localise}.')
    if args.localise and args.photos.suffix.lower() in ('.zip', '.tar'):
        raise ValueError(f'--localise needs photos in a folder, and {args.photos} is an archive. '
                         'Unpack it.')
    if args.localise and (reason := why_not(detector)):
        raise ValueError(f'--localise: {args.detector} cannot learn it, since {reason}. Omit it.')
    set_length(recipe, args.epochs, None)
    set_run(recipe, (args.root or args.photos).resolve(), work.proposals.resolve(), args.batch_size,
            args.weights, args.backbone_rate)
    if args.follow_links:
        recipe.train_dataloader.dataset.follow_links = True
    if args.freeze is not None and args.weights is None:
        raise ValueError(f'--freeze {args.freeze}: without --weights, these stages would stay random. '
                         'Add --weights FILE, or omit --freeze.')
    labels = None  # VOC XML or YOLO text files
    if args.root is not None and args.photos.is_dir():
        labels = read_as_coco(args.photos, args.root).accept()
    count = len(labels.content['images'] if labels else
                open_source(args.photos, args.root, args.follow_links).names())
    check_photos(args.photos, count, recipe.train_dataloader.batch_size * args.gpus)
    if args.epochs is None:
        recipe.train_cfg.max_epochs = default_epochs(count)

    resolution, small = resolution_of(detector), args.objects == SMALL
    try:
        derived, parts = derive(detector, recipe, view_sizes(recipe, resolution) if small else None,
                                args.freeze)
    except ValueError as error:
        raise ValueError(f'{args.detector}: {error}') from error
    choose_proposals(derived, args.objects, resolution)
    start = check_start(derived, args.weights) if args.weights else None
    cuda = torch.cuda.device_count()
    check_devices(derived if cuda else cpu_config(derived), args.gpus, cuda)
    model, whole = build_detector(detector)
    check_work_dir(work.path)
    write_detector(work, detector)
    source = args.photos
    if labels:
        source = write_coco(labels, args.photos, work.path)
    annotated = read_annotated(source) if source.suffix.lower() == '.json' else None
    advice = advise_by_annotations(annotated, args.objects, resolution) if annotated else None
    slowed = slow_layer_norm(derived, model.backbone, args.backbone_rate)
    notes += [*filter(None, [slowed]), *parts.notes, *filter(None, [advice])]
    if small:
        store = make_proposals(source, work.proposals, args)
        notes.append(fit_levels(derived, store))
        if annotated and (met := describe_met(derived, store, annotated)):
            notes.append(met)
    table = format_table(part_rows(model, parts))
    print(f'\n{table}\n')
    if start is not None:
        print(f'What of {args.weights} is loaded:\n\n{start.table()}\n')
    if not whole:
        print('Only these parts of the detector could be built here; the others stay as they are.')
    for note in notes:
        print(f'- {note}')
    about = '\n'.join([
        f'Pretraining of {config_path(args.detector).name}, derived by tools/pretrain_detector.py:', '',
        f'  python tools/train.py {work.config} --work-dir {work.run}', '', *table.splitlines(), '',
        *notes])
    if write_config(work, derived, about, args.resume):
        print(f'- {work.config} differs from what would be derived now, and is used as it is.')
    print(f'\nThe pretraining config is {work.config}')
    if args.dry_run:
        return
    cfg = load_config(str(work.config), {})
    if not small:
        store = make_proposals(source, work.proposals, args)
        met = describe_met(cfg, store, annotated) if annotated else None
        for line in filter(None, [met, None if advice else advise_by_proposals(store)]):
            print(f'- {line}')
    per_epoch = max(1, -(-len(store) // args.gpus) // cfg.train_dataloader.batch_size)
    checkpoint = train(work.config, work.run, cfg.train_cfg.max_epochs * per_epoch, args.gpus)
    done = hand_over(detector, parts, checkpoint, work.contrastive if args.localise else work.start)
    print(f'\n{len(done.arrived)} of {len(done.arrived)} tensors of {done.path} are in the detector, '
          f'equal bit by bit; {len(done.reasons)} others stay as the detector initialises them.')
    if args.localise:
        localise(detector, work, photo_folder(args), store, args)
    print_end(work, work.detector if args.cfg_options else config_path(args.detector),
              bool(detector.model.backbone.get('init_cfg')))


if __name__ == '__main__':
    from projects.soco.launch.errors import run_tool
    run_tool(main)
