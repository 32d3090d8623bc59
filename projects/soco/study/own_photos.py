"""From photos and annotations to a comparison: its detector, its length, and what it is about."""
import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from ..annotations.read import read_json
from ..detectors.build import build_detector
from ..detectors.derive import default_epochs
from ..detectors.read import read_detector
from ..files import write_whole
from ..proposals.sources import open_source
from ..runs.read import read_work_dir
from ..runs.report import warnings_of
from ..weights.match import brought_parts, fit_names, match_weights
from ..weights.read import load_content
from .inputs import Annotations

OWN_PHOTOS = 'configs/benchmarks/mmdetection/own_photos/faster-rcnn_{}_fpn.py'
# Name in OWN_PHOTOS, and what it is. The first one that weights fit is used.
DETECTORS = {
    'effnetlite0': 'EfficientNet-Lite0 at 288 × 192 pixels, the size at which a CPU takes minutes',
    'r18': 'ResNet-18 at 288 × 192 pixels',
    'r50': 'ResNet-50 at 1333 × 800 pixels, for a GPU'}
BATCH = 16  # of the recipe for own photos
ITERATIONS = 300  # of the detectors' configs; on a CPU, of all starts together
IMAGES = 3200  # that pretraining sees on a CPU at most
PLAN = 'quickstart.json'
_USE = ("Use ImageNet's weights of EfficientNet-Lite0 (python tools/benchmarks/imagenet_lite0.py "
        'OUT.pth)')


class Plan(NamedTuple):
    """What a work directory is for. Nothing of it may change while its results are used.

    Attributes:
        photos (str): Folder of the photos.
        pretraining (str): Hash of the names of the photos that pretraining sees.
        train (str): Hash of the annotations to train on.
        val (str): Hash of the annotations to evaluate on.
        weights (str): Hash of the weights to start from; '' for none.
        detector (str): Config of the detector.
        epochs (int): Epochs of pretraining.
        iters (int): Iterations of each detector.
    """

    photos: str
    pretraining: str
    train: str
    val: str
    weights: str
    detector: str
    epochs: int
    iters: int


def choose_detector(weights: Path | None, cuda: bool) -> tuple[str, str]:
    """Choose the detector of the project for photos of a user's own that weights fit.

    Args:
        weights (Path, optional): Weights to start from. None chooses the one for a CPU.
        cuda (bool): Whether there is a CUDA GPU.

    Returns:
        tuple[str, str]: Path of its config, and a sentence on why it was chosen.

    Raises:
        ValueError: If the weights fit none of them, or the one that they fit needs a GPU.
    """
    if weights is None:
        name = next(iter(DETECTORS))
        return OWN_PHOTOS.format(name), f'Faster R-CNN with {DETECTORS[name]}'
    state = load_content(str(weights), 'cpu')['state_dict']
    for name, what in DETECTORS.items():
        path = OWN_PHOTOS.format(name)
        ours = build_detector(read_detector(path)[0])[0].state_dict()
        fitted = {new: state[key] for key, new in fit_names(ours, state).items()}
        if not match_weights(ours, fitted, brought_parts(ours, fitted)).complete:
            continue
        if name == 'r50' and not cuda:
            raise ValueError(f'{weights} fits {path}, which needs a GPU, and there is none. {_USE}, or '
                             'those of a ResNet-18.')
        return path, f'Faster R-CNN with {what}: {weights.name} fits it'
    raise ValueError(f'{weights} fits none of the detectors for own photos ({", ".join(DETECTORS)}). '
                     f'{_USE}; or compare a detector of your own: docs/compare.md.')


def lengths(photos: int, starts: int, cuda: bool) -> tuple[int, int]:
    """Return the epochs of pretraining and the iterations of each detector.

    With a GPU, they are those of tools/pretrain_detector.py and of the detectors' configs. On a CPU,
    they are shorter (our choice, to stay near a quarter of an hour for 300 photos and three starts on
    two cores): pretraining sees at most `IMAGES` images, and all detectors share `ITERATIONS`
    iterations.

    Args:
        photos (int): Photos that pretraining sees, at least 1.
        starts (int): Starts that are compared, at least 1.
        cuda (bool): Whether there is a CUDA GPU.
    """
    epochs = default_epochs(photos)
    if cuda:
        return epochs, ITERATIONS
    return max(1, min(epochs, IMAGES // photos)), ITERATIONS // starts


def unlabelled_photos(data: Annotations) -> tuple[list[str], int]:
    """Return the photos for pretraining: all of the folder, without those of val.

    Args:
        data (Annotations): The annotations.

    Returns:
        tuple[list[str], int]: Their names, and the number of photos of the folder.

    Raises:
        ValueError: If fewer than two photos are left.
    """
    names = open_source(data.images, follow_links=True).names()
    held_out = {row['file_name'] for row in read_json(data.val)['images']}
    left = [name for name in names if name not in held_out]
    if len(left) < 2:
        raise ValueError(f'{data.images} has {len(names)} photos, and all but {len(left)} of them are '
                         f'in {data.val}. Pretraining uses no photo of val, so that val can judge it: '
                         'split the photos into train and val.')
    return left, len(names)


def as_list(names: Sequence[str]) -> str:
    """Return names as the text of a list of images, with `./` before a name that it would not take.

    Args:
        names (Sequence[str]): Names of photos.

    Raises:
        ValueError: If a name ends with a space or has a line break.
    """
    odd = [name for name in names if name != name.rstrip() or len(name.splitlines()) > 1]
    if odd:
        raise ValueError(f'The photo {odd[0]!r} has a name that a list cannot contain, since it ends '
                         'with a space or has a line break. Rename it.')
    return ''.join(f'./{name}\n' if name.startswith(('#', ' ')) else f'{name}\n' for name in names)


def settle_plan(folder: Path, plan: Plan) -> None:
    """Write the plan into the work directory, or check that it is the one that is there.

    Args:
        folder (Path): The work directory.
        plan (Plan): The plan.

    Raises:
        ValueError: If the folder was made for another plan.
    """
    path, values = folder / PLAN, plan._asdict()
    if path.is_file():
        earlier = read_json(path)
        differs = [key for key, value in values.items() if earlier.get(key) != value]
        if differs:
            raise ValueError(f'{folder} has results of another {" and ".join(differs)} '
                             f'({", ".join(f"{key} {earlier.get(key)}" for key in differs)}). Use '
                             'another --work-dir, or delete that folder to start again.')
    write_whole(path, json.dumps(values, indent=1).encode())


def about_pretraining(run_dir: Path, photos: int, epochs: int) -> tuple[str, list[str]]:
    """Return a sentence about a finished pretraining, and its warnings.

    Args:
        run_dir (Path): Work directory of the run.
        photos (int): Photos that it saw.
        epochs (int): Its epochs.
    """
    run = read_work_dir(run_dir)
    parts = [f'{photos} photos without labels, none of val, {epochs} epochs, '
             f'{run.seconds / 60:.0f} min']
    for key, what, digits in (('loss', 'loss', 2), ('obj_rank', 'effective rank of features', 1)):
        values = [record[key] for record in run.records if key in record]
        if values:
            parts.append(f'{what} {values[0]:.{digits}f} → {values[-1]:.{digits}f}')
    return '; '.join(parts), [f'Pretraining: {warning}' for warning in warnings_of(run)]
