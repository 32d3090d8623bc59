"""Show the whole way on a CPU: photos, proposals, SoCo pretraining, a detector that starts from it.

Called by tools/quickstart.sh. Everything it writes lies in work_dirs/quickstart and is made anew.
"""
import argparse
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import time
import warnings
from collections import deque
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from projects.soco.launch import run_tool
from projects.soco.proposals.sources import open_source

OUT = Path('work_dirs/quickstart')
PRETRAINING = 'configs/soco_r18_fpn_quickstart.py'
DETECTOR = 'configs/benchmarks/mmdetection/coco/mask-rcnn_r18_fpn_quickstart.py'
PACKAGED = {
    'skimage': ('data', ['astronaut.png', 'chelsea.png', 'coffee.png', 'motorcycle_left.png',
                         'motorcycle_right.png', 'rocket.jpg']),
    'sklearn': ('datasets/images', ['china.jpg', 'flower.jpg']),
}
MAX_PHOTOS = 80  # as many as 100 iterations of batch 8 show about ten times
SPREAD_FLOOR = 0.2  # below it the object features have all but collapsed; see feature_spread

console = Console(highlight=False)
warnings.filterwarnings('ignore', message='pkg_resources is deprecated')  # mmengine's and mmdet's


def collect_photos(folder: Path | None) -> None:
    """Copy the photos to work on; of a large folder only some, evenly spread."""
    photos = OUT / 'photos'
    if folder is None:
        chosen = {name: Path(importlib.util.find_spec(package).origin).parent / place / name
                  for package, (place, names) in PACKAGED.items() for name in names}
        contents = {name: path.read_bytes() for name, path in chosen.items()}
    else:
        source = open_source(folder)
        names = source.names()
        if not names:
            raise ValueError(f'{folder} holds no photo (looked for .jpg, .png, .webp and the like, '
                             'in its subfolders too). Give a folder that does.')
        rows = np.linspace(0, len(names) - 1, MAX_PHOTOS).round().astype(int)
        contents = {names[i]: source.read_bytes(names[i]) for i in np.unique(rows)}
        if len(contents) < len(names):
            console.print(f'{len(contents)} of the {len(names)} photos are used, evenly spread, so '
                          'that it takes minutes. All of them: see "Pretraining" in README.md.')
    shutil.rmtree(OUT, ignore_errors=True)  # what an earlier run left
    for name, content in contents.items():
        path = photos / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def run_logged(command: list[str], log: Path, what: str, total: int) -> None:
    """Run a training command with a progress bar; its whole output goes to a file.

    Raises:
        ValueError: It failed; the end of its output says why.
    """
    console.print(f'$ {" ".join(command)}', style='dim', soft_wrap=True)
    last, shown = deque(maxlen=12), 0
    columns = (TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
               TextColumn('{task.fields[state]}'))
    process = subprocess.Popen([sys.executable, *command], stdout=subprocess.PIPE,
                               stderr=subprocess.STDOUT, text=True)
    try:
        with Progress(*columns, console=console) as progress, open(log, 'w') as file:
            task = progress.add_task(what, total=total, state='starting (imports take some seconds)')
            for line in process.stdout:
                file.write(line)
                if line.strip():
                    last.append(line.rstrip())
                found = re.search(r'\(train\)\s+(?:\[(\d+)\])?\[\s*(\d+)/\s*(\d+)\]', line)
                if found:
                    epoch, step, length = (int(n or 1) for n in found.groups())
                    done = (epoch - 1) * length + step
                    values = re.findall(r'(loss|obj_std): (-?[\d.]+)', line)
                    state = '  '.join(f'{name} {value}' for name, value in values)
                    progress.update(task, completed=done, state=state)
                    if not console.is_terminal and done - shown >= total // 5:
                        shown = done
                        console.print(f'{what}: {done}/{total}  {state}')
            if process.wait() == 0:
                progress.update(task, completed=total)
    finally:
        process.kill()
    if process.returncode:
        raise ValueError(f'{what} failed; the whole output is in {log}. Its end: '
                         + ' | '.join(line for line in last if 'error' in line.lower())
                         + f' {last[-1] if last else ""}')


def pretrain(num_photos: int) -> tuple[Path, dict]:
    """Pretrain for 10 epochs of about 10 iterations; return the checkpoint and what was changed."""
    repeat = max(1, round(MAX_PHOTOS / num_photos))
    options = {
        'train_dataloader.dataset.data_root': OUT / 'photos',
        'train_dataloader.dataset.proposals': OUT / 'proposals.arrow',
        'train_dataloader.dataset.repeat': repeat,
    }
    run_logged(['tools/train.py', PRETRAINING, '--work-dir', str(OUT / 'pretrain'),
                '--cfg-options', *(f'{key}={value}' for key, value in options.items())],
               OUT / 'pretrain.log', 'pretraining', num_photos * repeat // 8 * 10)
    return OUT / 'pretrain/epoch_10.pth', options


def judge(checkpoint: Path, options: dict) -> bool:
    """Print whether it learned: loss, spread, and retrieval against the random initialisation."""
    import torch
    from mmengine.registry import init_default_scope

    from projects.soco.curves import draw_training, read_scalars
    from projects.soco.engine import read_checkpoint
    from projects.soco.evaluation import score_objects
    from projects.soco.launch import load_config

    cfg = load_config(PRETRAINING, options)
    init_default_scope('mmselfsup')
    from mmselfsup.registry import DATASETS, MODELS
    pipeline = cfg.train_dataloader.dataset.pipeline
    pipeline[1].update(num_proposals=16, jitter_prob=0.0)
    dataset = DATASETS.build(cfg.train_dataloader.dataset)
    scores = {}
    for name in ('random', 'pretrained'):
        torch.manual_seed(cfg.randomness.seed)
        model = MODELS.build(cfg.model)
        init_quietly(model)
        if name == 'pretrained':
            model.load_state_dict(read_checkpoint(checkpoint)['state_dict'])
        scores[name] = score_objects(model, dataset)
    draw_views_of(model, dataset)

    (scalars, ) = (OUT / 'pretrain').glob('*/vis_data/scalars.json')
    records = read_scalars(scalars)
    draw_training(records, OUT / 'pictures/training.png', obj_std_floor=SPREAD_FLOOR)
    losses = [record['loss'] for record in records if 'loss' in record]
    random, learned = scores['random'], scores['pretrained']
    table = Table(title='Did it learn?')
    for column in ('', 'before', 'after', 'wanted', ''):
        table.add_column(column, justify='left' if not column else 'right')
    rows = [
        ('loss (lowest possible: -8)', losses[0], losses[-1], 'falls', losses[-1] < losses[0]),
        ('spread of object features (0: collapse)', random.spread, learned.spread,
         f'above {SPREAD_FLOOR}', learned.spread > SPREAD_FLOOR),
        (f'object found again in the other view, of all {learned.num_objects} (chance '
         f'{learned.chance:.1%})', random.top1, learned.top1, 'rises', learned.top1 > random.top1),
        ('the same among the objects of one photo', random.top1_same_photo, learned.top1_same_photo,
         'rises', learned.top1_same_photo > random.top1_same_photo),
    ]
    for what, before, after, wanted, good in rows:
        table.add_row(what, f'{before:.3f}', f'{after:.3f}', wanted, 'yes' if good else 'NO')
    console.print(table)
    return all(row[-1] for row in rows[:3])


def init_quietly(model) -> None:
    """Initialise without mmengine's two lines per tensor."""
    import logging

    from mmengine.logging import MMLogger
    logger = MMLogger.get_instance('quickstart')
    logger.setLevel(logging.WARNING)
    model.init_weights()


def draw_views_of(model, dataset) -> None:
    """Draw a photo's proposals, and its views after augmentation with the matched boxes."""
    from torch.utils.data import default_collate

    from projects.soco.datasets import SampleKey
    from projects.soco.visualization import draw_proposals, draw_views, save_image
    counts = [len(dataset.store[i].boxes) for i in range(len(dataset.store))]
    index = int(np.argmin(np.abs(np.array(counts) - 40)))  # enough boxes to see, not too many
    row = dataset.store[index]
    dataset.pipeline.transforms[1].num_proposals = 4
    start = dataset.pipeline.transforms[0](dataset.read(SampleKey(index)))
    photo = start['img'][..., ::-1]
    save_image(draw_proposals(photo, row.boxes, f'{row.image}: {len(row.boxes)} proposals'),
               OUT / 'pictures/proposals.png')
    batch = default_collate([dataset[index]])
    prepared = model.data_preprocessor(batch, True)
    views = [model.data_preprocessor.to_pixels(view)[0].numpy() for view in prepared['inputs']]
    bboxes = prepared['bboxes'][0]
    extractor = model.roi_head.bbox_roi_extractor
    rois = bboxes.new_zeros(bboxes[..., 0].numel(), 5)
    rois[:, 1:] = bboxes.reshape(-1, 4)
    levels = extractor.map_roi_levels(rois, extractor.num_inputs).view(bboxes.shape[:-1])
    save_image(draw_views(photo, row.boxes, views, bboxes.numpy(), levels.numpy()),
               OUT / 'pictures/views.png')


def hand_over(checkpoint: Path) -> None:
    """Print how many keys of the detector the checkpoint fills."""
    from mmengine.registry import DefaultScope
    from mmengine.utils import import_modules_from_strings

    import projects.soco.compat  # noqa: F401
    from projects.soco.engine import read_checkpoint
    from projects.soco.engine.transfer import match_weights
    from projects.soco.launch import load_config

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
    from projects.soco.launch import load_config
    total = load_config(DETECTOR, {}, register=False).max_iters
    run_logged(['tools/train.py', DETECTOR, '--work-dir', str(OUT / 'finetune'), '--cfg-options',
                f'load_from={checkpoint}'], OUT / 'finetune.log', 'fine-tuning', total)
    found = re.findall(r'coco/(bbox|segm)_mAP: ([\d.]+).*?coco/\1_mAP_50: ([\d.]+)',
                       (OUT / 'finetune.log').read_text())
    for kind, ap, ap50 in found:
        name = 'box' if kind == 'bbox' else 'mask'
        console.print(f'{name} AP {float(ap):.3f}, {name} AP50 {float(ap50):.3f}')
    console.print('[bold]Trained and evaluated on the same eight photos[/bold]: this shows that the '
                  'way works, and says nothing about how good the detector is.')


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('folder', nargs='?', type=Path, help='photos of your own')
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

    console.rule('(c) handing over to Mask R-CNN')
    hand_over(checkpoint)
    if args.folder is None:
        console.rule('(d) fine-tuning')
        finetune(checkpoint)

    console.rule('where everything lies')
    for what, path in [('proposals', OUT / 'proposals.arrow'), ('pretrained weights', checkpoint),
                       ('detector', OUT / 'finetune'), ('pictures', OUT / 'pictures')]:
        if path.exists():
            console.print(f'{what:20} {path}')
    for picture in sorted((OUT / 'pictures').iterdir()):
        console.print(f'{"":20}   {picture.name}')
    if args.folder is not None:
        console.print('\nFine-tune on your own annotations (a COCO json for these photos):\n'
                      '  SOCO_QUICKSTART_PHOTOS=' + str(args.folder) +
                      ' SOCO_QUICKSTART_ANNOTATIONS=annotations.json \\\n'
                      '      bash tools/benchmarks/mmdetection/dist_train_fpn.sh \\\n'
                      f'      {DETECTOR} {checkpoint} 1', soft_wrap=True)
    console.print(f'\nDone in {time.monotonic() - start:.0f} s.')
    if args.folder is None and not learned:
        raise ValueError('Pretraining did not learn (see the table above). On these photos it '
                         'should: please report it with the log in ' + str(OUT / 'pretrain.log'))


def subprocess_ok(command: list[str]) -> None:
    """Run a tool of the project in sight; stop with its exit code if it fails."""
    console.print(f'$ {" ".join(command)}', style='dim', soft_wrap=True)
    code = subprocess.run([sys.executable, *command]).returncode
    if code:
        sys.exit(code)


if __name__ == '__main__':
    run_tool(main)
