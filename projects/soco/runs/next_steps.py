"""The commands that continue from a pretraining run."""
import shlex
from collections.abc import Mapping
from typing import Any, NamedTuple

from .read import Run

DETECTORS = 'configs/benchmarks/mmdetection/{}.py'
# (family, depth or name of the backbone, channels of the FPN, channels of the box head): the detector
# with the same parts.
FITTING = {
    ('fpn', 18, 64, 256): 'coco/mask-rcnn_r18_fpn_quickstart',
    ('fpn', 50, 256, 1024): 'coco/mask-rcnn_r50_fpn_ms-1x_coco',
    ('fpn', 101, 256, 1024): 'coco/mask-rcnn_r101_fpn_ms-1x_coco',
    ('fpn', 'tf_efficientnet_lite0', 64, 256): 'own_photos/faster-rcnn_effnetlite0_fpn',
    ('c4', 50, None, None): 'coco/mask-rcnn_r50_c4_ms-1x_coco',
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


def fitting_detector(model: Mapping[str, Any]) -> str | None:
    """Return the detector config of the project with the backbone, neck and box head of a model.

    Args:
        model (Mapping[str, Any]): `model` of a pretraining config.

    Returns:
        str | None: Path of the config, relative to the project; None if there is no such detector.
    """
    backbone, neck, roi_head = (model.get(part) or {} for part in ('backbone', 'neck', 'roi_head'))
    family = 'c4' if roi_head.get('type') == 'SoCoC4RoIHead' else 'fpn'
    which = backbone.get('depth', backbone.get('model_name'))
    sizes = neck.get('out_channels'), (roi_head.get('bbox_head') or {}).get('fc_out_channels')
    return next((DETECTORS.format(name) for (kind, known, *widths), name in FITTING.items()
                 if (kind, known) == (family, which)
                 and all(size in (None, width) for size, width in zip(sizes, widths))), None)


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
    detector = fitting_detector(run.part('model'))
    if detector is None:
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
    line = _line(f'bash tools/benchmarks/mmdetection/dist_train_{family}.sh', detector, *words)
    photos = shlex.quote(str(run.part('train_dataloader.dataset').get('data_root', 'DIR')))
    if 'quickstart' in detector:
        line = f'SOCO_QUICKSTART_PHOTOS={photos} {line}'
    elif 'own_photos' in detector:
        line = f'SOCO_PHOTOS={photos} SOCO_TRAIN=train.json SOCO_VAL=val.json {line}'
        note = ('train.json and val.json are COCO files of boxes for these photos. ' + note)
    return Command(title, line, note)


def _line(command: str, *words: Any) -> str:
    return ' '.join([command, *(shlex.quote(str(word)) for word in words)])
