"""The commands that continue from a pretraining run."""
import os
import shlex
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from ..files import tool_path
from ..weights.convert import resnet_depth
from .config_changes import CONFIGS, config_values
from .read import Run

DETECTORS = 'configs/benchmarks/mmdetection/{}.py'
# Detectors of the project, of which the first with the parts of a pretraining is suggested: for the
# data set that the name says (with masks, or the quickstart's photos), and for photos of a user's own,
# of which boxes are all that is needed.
FOR_A_DATA_SET = (
    'coco/mask-rcnn_r18_fpn_quickstart',
    'coco/mask-rcnn_r50_fpn_ms-1x_coco',
    'coco/mask-rcnn_r101_fpn_ms-1x_coco',
    'coco/mask-rcnn_r50_c4_ms-1x_coco',
)
_DATA_VARIABLES = 'SOCO_PHOTOS', 'SOCO_TRAIN', 'SOCO_VAL'  # of configs of own_photos/
FOR_OWN_PHOTOS = (
    'own_photos/faster-rcnn_r18_fpn',
    'own_photos/faster-rcnn_r50_fpn',
    'own_photos/faster-rcnn_effnetlite0_fpn',
)
# What tools/pretrain_detector.py writes: a config with this key, and beside it the detector's config.
HAND_OVER, DETECTOR_FILE = 'hand_over', 'detector.py'
# Photos for which there are COCO's annotations, or those of the quickstart.
_COCO_RECIPES = ('data/imagenet', 'data/coco')
_PACKAGED = 'astronaut.png'


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
    if run.is_detector:
        config = run.config_path or 'CONFIG'
        return [*found, Command('Evaluate the detector', _line('python tools/test.py', config,
                                                               run.checkpoint),
                                'Inference in a notebook: docs/transfer.md.')]
    found.append(transfer_command(run))
    if run.part(HAND_OVER):  # other libraries have no names for the parts of any detector
        return found
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


def fitting_detector(model: Mapping[str, Any], own_photos: bool = False) -> str | None:
    """Return the detector config of the project with the backbone, neck and box head of a model.

    Args:
        model (Mapping[str, Any]): `model` of a pretraining config.
        own_photos (bool): Whether the photos are a user's own. Defaults to False: a config for COCO is
            preferred.

    Returns:
        str | None: Path of the config, relative to the project; None if there is no such detector.
    """
    return _find(own_photos, *_sizes(model))


def detectors_of_weights(state: Mapping[str, Tensor], family: str) -> tuple[str, list[str]]:
    """Describe weights for mmdet, and list the detector configs of the project that they fit.

    Args:
        state (Mapping[str, Tensor]): Tensors with mmdet's names.
        family (str): 'FPN' or 'C4'.

    Returns:
        tuple[str, list[str]]: Such as 'ResNet-50, FPN of 256 channels, box head of 1024', and the paths
        of the configs, relative to the project.
    """
    name = resnet_depth(state)
    if name is None:
        inputs = [state[key].shape[1] for i in range(4)
                  if (key := f'neck.lateral_convs.{i}.conv.weight') in state]
        name = next((kind for model in map(_model, FOR_OWN_PHOTOS)
                     if isinstance(kind := _sizes(model)[1], str)
                     and model['neck']['in_channels'] == inputs), 'another backbone')
    depth = name.rpartition('-')[2]
    backbone: int | str = int(depth) if depth.isdigit() else name
    neck, head = (len(state[key]) if key in state else None for key in (
        'neck.lateral_convs.0.conv.weight', 'roi_head.bbox_head.shared_fcs.0.weight'))
    words = [name, f'FPN of {neck} channels' if neck else '', f'box head of {head}' if head else '']
    whole = family == 'C4' or neck and head
    found = [_find(own, family.lower(), backbone, neck, head) for own in (False, True)] if whole else []
    return ', '.join(filter(None, words)), list(dict.fromkeys(filter(None, found)))


def _find(own_photos: bool, *sizes: int | str | None) -> str | None:
    names = FOR_OWN_PHOTOS if own_photos else (*FOR_A_DATA_SET, *FOR_OWN_PHOTOS)
    return next((DETECTORS.format(name) for name in names if _fit(sizes, _sizes(_model(name)))), None)


def _fit(sizes: tuple, theirs: tuple) -> bool:
    """Return whether a detector has the sizes of a pretraining, which may lack neck and box head."""
    return sizes[:2] == theirs[:2] and all(
        size in (None, width) for size, width in zip(sizes[2:], theirs[2:]))


def _sizes(model: Mapping[str, Any]) -> tuple[str, int | str | None, int | None, int | None]:
    """Return the family, depth or name of the backbone, channels of the FPN, width of the box head."""
    backbone, neck, roi_head = (model.get(part) or {} for part in ('backbone', 'neck', 'roi_head'))
    is_c4 = bool(roi_head.get('shared_head'))
    head = {} if is_c4 else roi_head.get('bbox_head') or {}
    return ('c4' if is_c4 else 'fpn', backbone.get('depth', backbone.get('model_name')),
            neck.get('out_channels'), head.get('fc_out_channels'))


@cache
def _model(name: str) -> dict[str, Any]:
    """Return the model of a detector's config, whatever data the environment names for it."""
    named = {key: os.environ.pop(key) for key in _DATA_VARIABLES if key in os.environ}
    try:
        return config_values(CONFIGS / 'benchmarks/mmdetection' / f'{name}.py')['model']
    finally:
        os.environ.update(named)


def _has_own_photos(data_root: str) -> bool:
    """Return whether photos are neither those of a recipe for COCO nor those of the quickstart."""
    return not (data_root.startswith(_COCO_RECIPES) or Path(data_root, _PACKAGED).is_file())


def transfer_command(run: Run) -> Command:
    """Return the command that fine-tunes the detector with the same backbone, neck and box head.

    Args:
        run (Run): See `read_work_dir`. It must have a checkpoint.

    Returns:
        Command: The command. Its line is '' if no detector config of the project has the same parts and
        fits the photos: one for boxes only, unless they are those of a recipe for COCO.
    """
    title = 'Fine-tune a detector'
    if run.part(HAND_OVER):
        return _own_detector_command(run, title)
    family = 'c4' if run.part('model.roi_head').get('type') == 'SoCoC4RoIHead' else 'fpn'
    neck, box_head = run.part('model.neck'), run.part('model.roi_head.bbox_head')
    photos = str(run.part('train_dataloader.dataset').get('data_root', 'DIR'))
    own = _has_own_photos(photos)
    detector = fitting_detector(run.part('model'), own)
    if detector is None:
        which, such = ((' for own photos', ' (such as own_photos/faster-rcnn_r50_fpn.py)') if own else
                       ('', ''))
        return Command(title, '', f'No detector config of the project{which} has this backbone, neck '
                       f'and box head. Inherit from one in configs/benchmarks/mmdetection{such} and '
                       'set the same sizes: docs/transfer.md.')
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
    if 'quickstart' in detector:
        line = f'SOCO_QUICKSTART_PHOTOS={shlex.quote(photos)} {line}'
    elif own:
        line = f'SOCO_PHOTOS={shlex.quote(photos)} SOCO_TRAIN=train.json SOCO_VAL=val.json {line}'
        note = ('train.json and val.json are COCO files of boxes for these photos; masks are not '
                f'needed. {note}')
    return Command(title, line, note)


def _own_detector_command(run: Run, title: str) -> Command:
    """Return the command that fine-tunes the detector that a run's config was derived from."""
    assert run.checkpoint is not None
    detector = run.checkpoint.parent.parent / DETECTOR_FILE  # of a published file: the name alone
    return Command(
        title, _line('python tools/train.py', detector, '--pretrained', run.checkpoint),
        'The config is that of the detector from which the run was derived. Set its classes and data '
        'in a config that inherits from it: docs/detectors.md.')


def _line(command: str, *words: Any) -> str:
    """Return a command line that starts a tool of the project from the current folder."""
    program, tool = command.split()
    return ' '.join([program, *(shlex.quote(str(word)) for word in (tool_path(tool), *words))])
