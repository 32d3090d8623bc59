"""The commands that continue from a pretraining run."""
import shlex
from typing import Any, NamedTuple

from .read import Run

DETECTORS = 'configs/benchmarks/mmdetection/coco/mask-rcnn_{}.py'
# (family, depth, channels of the FPN, channels of the box head): the detector with the same parts.
FITTING = {
    ('fpn', 18, 64, 256): 'r18_fpn_quickstart',
    ('fpn', 50, 256, 1024): 'r50_fpn_ms-1x_coco',
    ('fpn', 101, 256, 1024): 'r101_fpn_ms-1x_coco',
    ('c4', 50, None, None): 'r50_c4_ms-1x_coco',
}


class Command(NamedTuple):
    """A command that continues from a run.

    Args:
        title (str): What the command does.
        line (str): The command line; '' if there is none.
        note (str): A remark on the command. Defaults to ''.
    """
    title: str
    line: str
    note: str = ''


def commands(run: Run) -> list[Command]:
    """List the commands that continue from a run, with its paths filled in.

    Args:
        run (Run): See `read_work_dir`.

    Returns:
        list[Command]: The commands. Empty without checkpoint and config.
    """
    found = []
    if not run.finished and run.config_path:
        found.append(Command('Finish the run', _line(
            'bash tools/dist_train.sh', run.config_path, run.processes, '--work-dir', run.work_dir,
            '--resume')))
    if run.checkpoint is None:
        return found
    found.append(transfer_command(run))
    found.append(Command(
        'Convert the weights to the names of another library',
        _line('python tools/convert_weights.py', run.checkpoint,
              run.work_dir / f'{run.checkpoint.stem}_detectron2.pkl', '--to', 'detectron2'),
        '--to also accepts torchvision and mmdet. MMDetection needs no conversion.'))
    return found


def score_command(run: Run) -> str:
    """Return the command that scores a run's objects on held-out photos.

    Args:
        run (Run): See `read_work_dir`. A missing config or checkpoint becomes a placeholder in capital
            letters.

    Returns:
        str: The command line.
    """
    return _line('python tools/evaluate_objects.py', run.config_path or 'CONFIG',
                 run.checkpoint or 'CHECKPOINT', '--random', '--images', 'DIR')


def browse_command(run: Run) -> str:
    """Return the command that draws views of a run's photos."""
    return _line('python tools/browse_views.py', run.config_path or 'CONFIG')


def transfer_command(run: Run) -> Command:
    """Return the command that fine-tunes the detector with the same backbone, neck and box head.

    Args:
        run (Run): See `read_work_dir`. It must have a checkpoint.

    Returns:
        Command: The command. Its line is '' if no detector config of the project has the same parts.
    """
    title = 'Fine-tune a detector'
    family = 'c4' if run.part('model.roi_head').get('type') == 'SoCoC4RoIHead' else 'fpn'
    neck, box_head = run.part('model.neck'), run.part('model.roi_head.bbox_head')
    sizes = (neck.get('out_channels'), box_head.get('fc_out_channels'))
    name = next((name for (kind, depth, *widths), name in FITTING.items()
                 if (kind, depth) == (family, run.part('model.backbone').get('depth'))
                 and all(size in (None, width) for size, width in zip(sizes, widths))), None)
    if name is None:
        return Command(title, '', 'No detector config of the project has this backbone, neck and box '
                       'head. Inherit from one in configs/benchmarks/mmdetection and set the same '
                       'sizes: docs/transfer.md.')
    note = ('The number at the end is the number of GPUs. Other detectors and data sets: '
            'docs/transfer.md.')
    words = [run.checkpoint, run.processes]
    missing = [part for part, there in (('neck', neck), ('roi_head.bbox_head', box_head)) if not there]
    if family == 'fpn' and missing:
        parts = [p for p in ('backbone', 'neck', 'roi_head.bbox_head') if p not in missing]
        words += ['--cfg-options', f'default_hooks.pretrained.require=[{",".join(parts)}]']
        note = ('The number after the checkpoint is the number of GPUs. This pretraining has no '
                f'{" and no ".join(missing)}: the detector initialises them randomly.')
    line = _line(f'bash tools/benchmarks/mmdetection/dist_train_{family}.sh', DETECTORS.format(name),
                 *words)
    if name.endswith('quickstart'):
        photos = run.part('train_dataloader.dataset').get('data_root', 'DIR')
        line = f'SOCO_QUICKSTART_PHOTOS={shlex.quote(str(photos))} {line}'
    return Command(title, line, note)


def _line(command: str, *words: Any) -> str:
    return ' '.join([command, *(shlex.quote(str(word)) for word in words)])
