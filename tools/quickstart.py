"""Run the full pipeline on a CPU: photos, proposals, SoCo pretraining, fine-tuning of a detector.

Called by tools/quickstart.sh. It replaces work_dirs/quickstart and writes nothing elsewhere.
"""
import argparse
import importlib.util
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
import warnings
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from projects.soco.launch.errors import run_tool
from projects.soco.runs.progress import run_with_bar

OUT = Path('work_dirs/quickstart')
PRETRAINING = 'configs/soco_r18_fpn_quickstart.py'
DETECTOR = 'configs/benchmarks/mmdetection/coco/mask-rcnn_r18_fpn_quickstart.py'
BOX_DETECTOR = 'configs/benchmarks/mmdetection/own_photos/faster-rcnn_r18_fpn.py'
PACKAGED = {
    'skimage': ('data', ['astronaut.png', 'chelsea.png', 'coffee.png', 'motorcycle_left.png',
                         'motorcycle_right.png', 'rocket.jpg']),
    'sklearn': ('datasets/images', ['china.jpg', 'flower.jpg']),
}
MAX_PHOTOS = 80  # 100 iterations of batch 8 use each about ten times
SPREAD_FLOOR = 0.2  # below, the object features have nearly collapsed; see feature_spread

console = Console(highlight=False)
warnings.filterwarnings('ignore', message='pkg_resources is deprecated')  # mmengine's and mmdet's


def collect_photos(folder: Path | None) -> None:
    """Copy the photos to use, at most `MAX_PHOTOS` evenly spread ones of a folder."""
    photos = OUT / 'photos'
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
    shutil.rmtree(OUT, ignore_errors=True)  # remove the files of an earlier run
    for name, content in contents.items():
        path = photos / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def pretrain(num_photos: int) -> tuple[Path, dict]:
    """Pretrain for 10 epochs of about 10 iterations; return the checkpoint and the config's changes."""
    repeat = max(1, round(MAX_PHOTOS / num_photos))
    options = {
        'train_dataloader.dataset.data_root': OUT / 'photos',
        'train_dataloader.dataset.proposals': OUT / 'proposals.arrow',
        'train_dataloader.dataset.repeat': repeat,
        'default_hooks.scores.images': OUT / 'photos',
        'default_hooks.scores.proposals': OUT / 'proposals.arrow',
        'default_hooks.scores.interval': 2,
    }
    run_with_bar(console, ['tools/train.py', PRETRAINING, '--work-dir', str(OUT / 'pretrain'),
                           '--cfg-options', *(f'{key}={value}' for key, value in options.items())],
                 OUT / 'pretrain.log', 'pretraining', num_photos * repeat // 8 * 10)
    return OUT / 'pretrain/epoch_10.pth', options


def judge(checkpoint: Path, options: dict) -> bool:
    """Print and return whether pretraining learned, compared with the random initialisation."""
    from projects.soco.engine import CollapseHook
    from projects.soco.evaluation import held_out_dataset, score_objects
    from projects.soco.evaluation.loading import build_model
    from projects.soco.evaluation.rank import rank_of_model
    from projects.soco.launch.configs import load_config
    from projects.soco.pictures.curves import draw_training
    from projects.soco.runs.log import read_run

    cfg = load_config(PRETRAINING, options)
    dataset = held_out_dataset(cfg, OUT / 'photos', OUT / 'proposals.arrow')
    scores, ranks = {}, {}
    for name, weights in (('random', None), ('pretrained', checkpoint)):
        model = build_model(cfg, weights, cfg.randomness.seed)
        scores[name] = score_objects(model, dataset, features='object')
        # of the network that a detector starts from
        ranks[name] = rank_of_model(model, dataset, features='object')['online object']
    draw_views_of(options)

    records = read_run(OUT / 'pretrain')
    draw_training(records, OUT / 'pictures/training.png', obj_std_floor=SPREAD_FLOOR)
    losses = [record['loss'] for record in records if 'loss' in record]
    random, learned = scores['random'], scores['pretrained']
    start, end = ranks['random'].effective_rank, ranks['pretrained'].effective_rank
    rank_floor = CollapseHook().rank_share * start
    table = Table(title='Did pretraining learn?')
    for column in ('', 'before', 'after', 'expected', ''):
        table.add_column(column, justify='left' if not column else 'right')
    rows = [
        ('loss (-8 at best)', losses[0], losses[-1], 'falls', losses[-1] < losses[0]),
        ('spread of object features (0: collapse)', random.spread, learned.spread,
         f'above {SPREAD_FLOOR}', learned.spread > SPREAD_FLOOR),
        (f'effective rank of object features (of {ranks["random"].dimensions})', start, end,
         f'above {rank_floor:.1f}', end > rank_floor),
        (f'object found again in another view (chance {learned.chance:.1%})', random.top1,
         learned.top1, 'rises', learned.top1 > random.top1),
    ]
    if learned.top1_same_photo is not None:  # None if every photo has a single object
        before, after = random.top1_same_photo, learned.top1_same_photo
        rows.append((f'the same within one photo (chance {learned.chance_same_photo:.1%})',
                     before, after, 'rises', after > before))
    for what, before, after, wanted, good in rows:
        table.add_row(what, f'{before:.3f}', f'{after:.3f}', wanted, 'yes' if good else 'NO')
    console.print(table)
    if end <= rank_floor:
        console.print(f'The object features differ in about {end:.0f} directions, those of random '
                      f'weights in {start:.0f}: they have collapsed, and a detector can be worse off '
                      'with them than without. See docs/results/collapse.md.')
    return all(row[-1] for row in rows[:4])


def draw_views_of(options: dict) -> None:
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
               OUT / 'pictures/proposals.png')
    save_image(drawer.draw(key), OUT / 'pictures/views.png')


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
    console.print('[bold]Trained and evaluated on the same eight photos[/bold]: this only shows that '
                  "the pipeline works, and does not measure the detector's quality.")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('folder', nargs='?', type=Path, help='folder of your own photos (default: '
                        'eight photos of scikit-image and scikit-learn)')
    args = parser.parse_args()
    start = time.monotonic()

    console.rule('(a) photos and proposals')
    collect_photos(args.folder)
    (OUT / 'pictures').mkdir()
    subprocess_ok(['tools/generate_proposals.py', str(OUT / 'photos'),
                   str(OUT / 'proposals.arrow'), '--overwrite'])
    from projects.soco.proposals.store import ProposalStore
    count = len(ProposalStore.open(OUT / 'proposals.arrow'))

    console.rule('(b) SoCo pretraining')
    checkpoint, options = pretrain(count)
    learned = judge(checkpoint, options)

    console.rule('(c) transfer to Mask R-CNN')
    hand_over(checkpoint)
    if args.folder is None:
        console.rule('(d) fine-tuning')
        finetune(checkpoint)

    from projects.soco.runs.report import write_report
    report = write_report(OUT / 'pretrain')

    console.rule('output files')
    for what, path in [('proposals', OUT / 'proposals.arrow'), ('pretrained weights', checkpoint),
                       ('detector', OUT / 'finetune'), ('report', report),
                       ('pictures', OUT / 'pictures')]:
        if path.exists():
            console.print(f'{what:20} {path}')
    for picture in sorted((OUT / 'pictures').iterdir()):
        console.print(f'{"":20}   {picture.name}')
    if args.folder is not None:
        console.print('\nFine-tune on your own annotations (COCO files of boxes for these photos):\n'
                      f'  SOCO_PHOTOS={shlex.quote(str(args.folder))} SOCO_TRAIN=train.json '
                      'SOCO_VAL=val.json \\\n'
                      '      bash tools/benchmarks/mmdetection/dist_train_fpn.sh \\\n'
                      f'      {BOX_DETECTOR} {checkpoint} 1', soft_wrap=True)
    console.print(f'\nDone in {time.monotonic() - start:.0f} s.')
    if args.folder is None and not learned:
        raise ValueError('Pretraining did not learn (see the table above), but should on these photos. '
                         'Please report it with the log in ' + str(OUT / 'pretrain.log'))


def subprocess_ok(command: list[str]) -> None:
    """Run a tool of the project with visible output; exit with its code if it fails."""
    console.print(f'$ {" ".join(command)}', style='dim', soft_wrap=True)
    code = subprocess.run([sys.executable, *command]).returncode
    if code:
        sys.exit(code)


if __name__ == '__main__':
    run_tool(main)
