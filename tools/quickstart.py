"""Run the full pipeline: photos, proposals, SoCo pretraining, fine-tuning of a detector.

Called by tools/quickstart.sh. Without annotations, it is a demonstration on a CPU: it replaces
work_dirs/quickstart, or for photos of your own work_dirs/quickstart_<name of the folder>/demo, and
writes nothing elsewhere. With annotations, it trains the same detector with and without pretraining,
and continues where it was stopped.
"""
import argparse
import importlib.util
import os
import re
import shlex
import shutil
import sys
import time
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from projects.soco.files import hash_of, write_whole
from projects.soco.launch.errors import Stopped, run_tool
from projects.soco.runs.follow import run_command
from projects.soco.runs.progress import run_with_bar

OUT = Path('work_dirs/quickstart')  # of the packaged photos, as in the config and the pages
PRETRAINING = 'configs/soco_r18_fpn_quickstart.py'
DETECTOR = 'configs/benchmarks/mmdetection/coco/mask-rcnn_r18_fpn_quickstart.py'
PACKAGED = {
    'skimage': ('data', ['astronaut.png', 'chelsea.png', 'coffee.png', 'motorcycle_left.png',
                         'motorcycle_right.png', 'rocket.jpg']),
    'sklearn': ('datasets/images', ['china.jpg', 'flower.jpg']),
}
MAX_PHOTOS = 80  # 100 iterations of batch 8 use each about ten times
SPREAD_FLOOR = 0.2  # below, the object features have nearly collapsed; see feature_spread

console = Console(highlight=False, markup=False)


def own_folder(photos: Path) -> Path:
    """Return the folder for everything that is written about a folder of photos."""
    return Path('work_dirs') / f'quickstart_{photos.resolve().name}'


def collect_photos(folder: Path | None, out: Path) -> None:
    """Copy the photos to use, at most `MAX_PHOTOS` evenly spread ones of a folder."""
    photos = out / 'photos'
    if folder is None:
        chosen = {name: Path(importlib.util.find_spec(package).origin).parent / place / name
                  for package, (place, names) in PACKAGED.items() for name in names}
        contents = {name: path.read_bytes() for name, path in chosen.items()}
    else:
        from projects.soco.proposals.sources import open_source
        source = open_source(folder)
        names = source.names()
        if not names:
            raise ValueError(f'{folder} contains no photo (looked for .jpg, .png, .webp and similar, '
                             'also in subfolders). Pass a folder with photos.')
        rows = np.linspace(0, len(names) - 1, MAX_PHOTOS).round().astype(int)
        contents = {names[i]: source.read_bytes(names[i]) for i in np.unique(rows)}
        if len(contents) < len(names):
            console.print(f'Using {len(contents)} of the {len(names)} photos, evenly spread, to take '
                          'only minutes. To use all photos, see docs/first-hour.md.')
    if out.exists():
        console.print(f'The results of an earlier run in {out} are replaced.')
        shutil.rmtree(out, ignore_errors=True)
    for name, content in contents.items():
        path = photos / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def pretrain(num_photos: int, out: Path) -> tuple[Path, dict]:
    """Pretrain for 10 epochs of about 10 iterations; return the checkpoint and the config's changes."""
    repeat = max(1, round(MAX_PHOTOS / num_photos))
    options = {
        'train_dataloader.dataset.data_root': out / 'photos',
        'train_dataloader.dataset.proposals': out / 'proposals.arrow',
        'train_dataloader.dataset.repeat': repeat,
        'default_hooks.scores.images': out / 'photos',
        'default_hooks.scores.proposals': out / 'proposals.arrow',
        'default_hooks.scores.interval': 2,
    }
    run_with_bar(console, ['tools/train.py', PRETRAINING, '--work-dir', str(out / 'pretrain'),
                           '--cfg-options', *(f'{key}={value}' for key, value in options.items())],
                 out / 'pretrain.log', 'pretraining', num_photos * repeat // 8 * 10)
    return out / 'pretrain/epoch_10.pth', options


def judge(checkpoint: Path, options: dict, out: Path) -> bool:
    """Print and return whether pretraining learned, compared with the random initialisation."""
    from projects.soco.engine import CollapseHook
    from projects.soco.evaluation import held_out_dataset, score_objects
    from projects.soco.evaluation.loading import build_model
    from projects.soco.evaluation.rank import rank_of_model
    from projects.soco.launch.configs import load_config
    from projects.soco.pictures.curves import draw_training
    from projects.soco.runs.log import read_run

    cfg = load_config(PRETRAINING, options)
    dataset = held_out_dataset(cfg, out / 'photos', out / 'proposals.arrow')
    scores, ranks = {}, {}
    for name, weights in (('random', None), ('pretrained', checkpoint)):
        model = build_model(cfg, weights, cfg.randomness.seed)
        scores[name] = score_objects(model, dataset, features='object')
        # of the network that a detector starts from
        ranks[name] = rank_of_model(model, dataset, features='object')['online object']
    draw_views_of(options, out)

    records = read_run(out / 'pretrain')
    draw_training(records, out / 'pictures/training.png', obj_std_floor=SPREAD_FLOOR)
    # of the pairs of views alone: the terms against collapse, which `loss` contains, fall by themselves
    pairs = sorted({key for record in records for key in record if re.fullmatch(r'loss_\d+', key)})
    losses = [sum(record[key] for key in pairs) for record in records if 'loss' in record]
    random, learned = scores['random'], scores['pretrained']
    start, end = ranks['random'].effective_rank, ranks['pretrained'].effective_rank
    rank_floor = CollapseHook().rank_share * start
    table = Table(title='Did pretraining learn? (measured on the photos of the training)')
    for column in ('', 'before', 'after', 'expected', ''):
        table.add_column(column, justify='left' if not column else 'right')
    rows = [
        (f'loss of the pairs of views ({-4 * len(pairs)} at best)', losses[0], losses[-1], 'falls',
         losses[-1] < losses[0],
         'Train for longer, or with a lower learning rate: optim_wrapper.optimizer.lr.'),
        ('spread of object features (0: collapse)', random.spread, learned.spread,
         f'above {SPREAD_FLOOR}', learned.spread > SPREAD_FLOOR,
         'All objects look alike to the network: lower the learning rate, or lengthen the warm-up.'),
        (f'effective rank of object features (of {ranks["random"].dimensions})', start, end,
         f'above {rank_floor:.1f}', end > rank_floor,
         f'The object features differ in about {end:.0f} directions, those of random weights in '
         f'{start:.0f}: raise model.regulariser.covariance_weight. {CollapseHook.LOW_RANK}'),
        (f'object found again in another view (chance {learned.chance:.1%})', random.top1,
         learned.top1, 'rises', learned.top1 > random.top1,
         'Train for longer or on more photos (docs/first-hour.md), and look whether the boxes in '
         f'{out}/pictures/proposals.png show objects.'),
    ]
    if learned.top1_same_photo is not None:  # None if every photo has a single object
        before, after = random.top1_same_photo, learned.top1_same_photo
        rows.append((f'the same within one photo (chance {learned.chance_same_photo:.1%})',
                     before, after, 'rises', after > before,
                     'Train for longer or on more photos (docs/first-hour.md): among the few objects '
                     'of one photo, many look alike.'))
    for what, before, after, wanted, good, _ in rows:
        table.add_row(what, f'{before:.3f}', f'{after:.3f}', wanted, 'yes' if good else 'NO')
    console.print(table)
    for what, *_, good, advice in rows:
        if not good:
            console.print(f'NO, {what}: {advice}', soft_wrap=True)
    return all(good for *_, good, _ in rows[:4])


def draw_views_of(options: dict, out: Path) -> None:
    """Draw a photo's proposals, and its views after augmentation with the matched boxes."""
    from projects.soco.datasets import SampleKey
    from projects.soco.engine import ViewDrawer
    from projects.soco.launch.configs import load_config
    from projects.soco.pictures.canvas import save_image
    from projects.soco.pictures.photos import draw_proposals
    drawer = ViewDrawer.from_config(load_config(PRETRAINING, options))
    store = drawer.dataset.store
    counts = np.array([len(store[i].boxes) for i in range(len(store))])
    key = SampleKey(int(np.argmin(np.abs(counts - 40))))  # about 40 boxes are easy to see
    image = drawer.dataset.image_name(key)
    save_image(draw_proposals(*drawer.photo(key), f'{image}: {counts[key.index]} proposals'),
               out / 'pictures/proposals.png')
    save_image(drawer.draw(key), out / 'pictures/views.png')


def hand_over(checkpoint: Path) -> None:
    """Match the checkpoint with the detector and print the number of matched keys."""
    from mmengine.registry import DefaultScope
    from mmengine.utils import import_modules_from_strings

    import projects.soco.compat  # noqa: F401
    from projects.soco.launch.configs import load_config
    from projects.soco.weights.match import match_weights
    from projects.soco.weights.read import read_checkpoint

    cfg = load_config(DETECTOR, {})
    import_modules_from_strings('mmdet.models')
    from mmdet.registry import MODELS
    with DefaultScope.overwrite_default_scope('mmdet'):
        detector = MODELS.build(cfg.model)
    report = match_weights(detector.state_dict(), read_checkpoint(checkpoint)['state_dict'],
                           ('backbone', 'neck', 'roi_head.bbox_head'))
    console.print(report.table())
    if not report.complete:
        raise ValueError(report.explain())


def finetune(checkpoint: Path) -> None:
    """Fine-tune the demonstration detector on the packaged photos and print its AP."""
    os.environ['SOCO_QUICKSTART_PHOTOS'] = str((OUT / 'photos').resolve())
    from projects.soco.launch.configs import load_config
    total = load_config(DETECTOR, {}, register=False).max_iters
    run_with_bar(console, ['tools/train.py', DETECTOR, '--work-dir', str(OUT / 'finetune'),
                           '--cfg-options', f'load_from={checkpoint}'],
                 OUT / 'finetune.log', 'fine-tuning', total)
    found = re.findall(r'coco/(bbox|segm)_mAP: ([\d.]+).*?coco/\1_mAP_50: ([\d.]+)',
                       (OUT / 'finetune.log').read_text())
    for kind, ap, ap50 in found:
        name = 'box' if kind == 'bbox' else 'mask'
        console.print(f'{name} AP {float(ap):.3f}, {name} AP50 {float(ap50):.3f}')
    console.print('Trained and evaluated on the same eight photos: this only shows that the pipeline '
                  "works, and does not measure the detector's quality.", style='bold')


def demonstrate(folder: Path | None) -> None:
    """Run the demonstration, with a folder of photos or with the packaged ones."""
    start = time.monotonic()
    out = OUT if folder is None else own_folder(folder) / 'demo'

    console.rule('(a) photos and proposals')
    collect_photos(folder, out)
    (out / 'pictures').mkdir()
    run_or_exit(['tools/generate_proposals.py', str(out / 'photos'),
                 str(out / 'proposals.arrow'), '--overwrite'])
    from projects.soco.proposals.store import ProposalStore
    count = len(ProposalStore.open(out / 'proposals.arrow'))

    console.rule('(b) SoCo pretraining')
    checkpoint, options = pretrain(count, out)
    learned = judge(checkpoint, options, out)

    console.rule('(c) transfer to Mask R-CNN')
    hand_over(checkpoint)
    if folder is None:
        console.rule('(d) fine-tuning')
        finetune(checkpoint)

    from projects.soco.runs.report import write_report
    report = write_report(out / 'pretrain')

    console.rule('output files')
    for what, path in [('proposals', out / 'proposals.arrow'), ('pretrained weights', checkpoint),
                       ('detector', out / 'finetune'), ('report', report),
                       ('pictures', out / 'pictures')]:
        if path.exists():
            console.print(f'{what:20} {path}', soft_wrap=True)
    for picture in sorted((out / 'pictures').iterdir()):
        console.print(f'{"":20}   {picture.name}')
    if folder is not None:
        console.print('\nWith annotations of these photos, a detector is trained as well, with and '
                      'without pretraining:\n'
                      f'  bash tools/quickstart.sh {shlex.quote(str(folder))} --train train.json '
                      '--val val.json', soft_wrap=True)
    console.print(f'\nDone in {time.monotonic() - start:.0f} s.')
    if folder is None and not learned:
        raise ValueError('Pretraining did not learn (see the table above), but should on these photos. '
                         'Please report it with the log in ' + str(out / 'pretrain.log'))


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('folder', nargs='?', type=Path, help='folder of your own photos; without '
                        f'annotations, at most {MAX_PHOTOS} are used (default: eight photos of '
                        'scikit-image and scikit-learn)')
    own = parser.add_argument_group('with annotations of your own')
    own.add_argument('--train', metavar='FILE', help='annotations to train on: COCO json, or VOC XML '
                     'or YOLO text files (docs/data.md)')
    own.add_argument('--val', metavar='FILE', help='annotations to evaluate on, of other photos')
    own.add_argument('--weights', type=Path, metavar='FILE', help='weights of a backbone or a '
                     'detector: pretraining starts from them, and is compared with them')
    own.add_argument('--epochs', type=int, metavar='N', help='epochs of pretraining (default: '
                     '10,240 photos seen, at least 20 epochs; on a CPU at most 3200 photos seen)')
    own.add_argument('--iters', type=int, metavar='N', help='iterations of each detector (default: '
                     '300, or fewer, to take minutes on a CPU)')
    own.add_argument('--work-dir', type=Path, metavar='DIR', help='folder for everything that is '
                     'written (default: work_dirs/quickstart_<name of the folder>)')
    args = parser.parse_args()
    given = [f'--{name.replace("_", "-")}' for name in ('train', 'val', 'weights', 'epochs', 'iters',
                                                        'work_dir') if getattr(args, name) is not None]
    if given and not (args.folder and args.train and args.val):
        parser.error(f'{given[0]} needs a folder of photos, --train and --val')
    return args


def compare(args: argparse.Namespace) -> None:
    """Go from a folder of photos and annotations to a page that says whether pretraining pays."""
    if args.epochs is not None and args.epochs < 1 or args.iters is not None and args.iters < 4:
        raise ValueError('--epochs must be at least 1, and --iters at least 4.')
    start = time.monotonic()
    console.rule('(a) annotations')
    from projects.soco.study.inputs import read_annotations
    folder = args.work_dir or own_folder(args.folder)
    data = read_annotations(args.folder, args.train, args.val, folder,
                            lambda line: console.print(line, soft_wrap=True))

    import torch

    import projects.soco.compat  # noqa: F401  (before anything of OpenMMLab)
    from projects.soco.detectors.read import read_detector
    from projects.soco.launch.checks import check_work_dir
    from projects.soco.proposals.store import ProposalStore
    from projects.soco.runs.report import write_report
    from projects.soco.study import compare_run, own_photos
    from projects.soco.study.compare import Comparison
    from projects.soco.study.inputs import read_starts
    cuda = torch.cuda.is_available()
    os.environ.update(SOCO_PHOTOS=str(data.images), SOCO_TRAIN=str(data.train), SOCO_VAL=str(data.val))
    weights = [str(args.weights)] if args.weights else []
    texts = ['random', *weights]
    if weights:
        read_starts(texts)  # the file is there, and its name differs
    detector, why = own_photos.choose_detector(args.weights, cuda)
    names, total = own_photos.unlabelled_photos(data)
    epochs, iters = own_photos.lengths(len(names), len(texts) + 1, cuda)
    epochs, iters = args.epochs or epochs, args.iters or iters
    check_work_dir(folder)
    listed = own_photos.as_list(names)
    own_photos.settle_plan(folder, own_photos.Plan(
        str(data.images), *map(hash_of, (listed.encode(), data.train.read_bytes(),
                                         data.val.read_bytes())),
        hash_of(args.weights.read_bytes()) if weights else '', detector, epochs, iters))
    console.print(f'{len(data.rows["images"])} photos to train on, {data.val_photos} to evaluate on, '
                  f'{total} in {args.folder}; classes: {", ".join(data.classes)}', soft_wrap=True)
    console.print(f'{why} ({detector}); {epochs} epochs of pretraining on {len(names)} photos, {iters} '
                  f'iterations of each of {len(texts) + 1} detectors', soft_wrap=True)
    for warning in compare_run.warnings_of(data):
        console.print(warning, style='bold red', soft_wrap=True)

    console.rule('(b) proposals and pretraining')
    photos, pretraining = folder / 'photos.txt', folder / 'pretraining'
    write_whole(photos, listed.encode())
    run_or_exit(['tools/pretrain_detector.py', detector, str(photos), '--root', str(data.images),
                 '--work-dir', str(pretraining), '--epochs', str(epochs), '--batch-size',
                 str(min(own_photos.BATCH, len(names))), '--resume', '--follow-links',
                 *(['--weights', *weights] if weights else [])])
    report = write_report(pretraining / 'run')

    console.rule('(c) the same detector from each start')
    starts, workers = read_starts([*texts, f'soco:{pretraining}']), 1 if cuda else 2
    comparison = Comparison(read_detector(detector)[0], data, starts, [100], 1, folder, iters, workers)
    comparison.check_starts()
    used = len(ProposalStore.open(pretraining / 'proposals.arrow'))
    about, told = own_photos.about_pretraining(pretraining / 'run', used, epochs)
    facts = {**compare_run.facts_of(comparison, f'{why} ({detector})'), 'pretraining': about}
    told = [*compare_run.warnings_of(data), *told,
            'One seed, one pretraining and a short schedule: another seed may differ by several '
            'points. For a result, use tools/compare_starts.py with --seeds 3 (docs/compare.md).']
    compare_run.show(facts, told, console)
    page = compare_run.run_comparison(
        comparison, facts, told, console,
        links={'Report of the pretraining': report.relative_to(folder).as_posix()})

    console.rule('output files')
    for what, path in [('page', page), ('pretrained weights', pretraining / 'detector_start.pth'),
                       ('report of pretraining', report)]:
        console.print(f'{what:22} {path}', soft_wrap=True)
    words = [detector, '--images', data.images, '--train', data.train, '--val', data.val,
             *(word for text in [*texts, f'soco:{pretraining}'] for word in ('--start', text))]
    console.print('\nFor a result, with three seeds and the whole schedule:\n  python '
                  f'tools/compare_starts.py {shlex.join(map(str, words))}', soft_wrap=True)
    if not weights:
        console.print('A few hundred photos are best pretrained from ImageNet weights. They are in the '
                      'environment:\n  python tools/benchmarks/imagenet_lite0.py work_dirs/lite0.pth\n'
                      'Then add --weights work_dirs/lite0.pth, and another --work-dir.')
    console.print(f'\nDone in {time.monotonic() - start:.0f} s.')


def main() -> None:
    args = parse_args()
    try:
        if args.train:
            compare(args)
        else:
            demonstrate(args.folder)
    except Stopped:
        console.print('Stopped before the end; the same command '
                      + ('continues.' if args.train else 'starts anew.'))
        raise


def run_or_exit(command: list[str]) -> None:
    """Run a tool of the project with visible output; exit with its code if it fails."""
    console.print(f'$ {" ".join(command)}', style='dim', soft_wrap=True)
    if code := run_command(command):
        sys.exit(code)


if __name__ == '__main__':
    run_tool(main)
