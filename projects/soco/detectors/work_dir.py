"""The work directory of a detector's pretraining, and the checks that it is the one of this run."""
from pathlib import Path
from typing import NamedTuple

from mmengine.config import Config

from ..files import write_whole
from .read import plain


class WorkDir(NamedTuple):
    """Paths of a work directory.

    Attributes:
        path (Path): The directory.
        detector (Path): The config of the detector, as it was read.
        config (Path): The pretraining config.
        proposals (Path): The proposals of the photos.
        run (Path): Work directory of the training run: checkpoints, log, curves, report.
        start (Path): Weights that the detector starts from.
        contrastive (Path): Those before localisation, where there is such a step.
        objects (Path): Proposals as annotations, for localisation.
        localisation (Path): Config of the localisation; its run is in the folder of the same name.
    """

    path: Path
    detector: Path
    config: Path
    proposals: Path
    run: Path
    start: Path
    contrastive: Path
    objects: Path
    localisation: Path

    @classmethod
    def at(cls, path: Path) -> 'WorkDir':
        """Return the paths of the work directory at `path`."""
        return cls(path, path / 'detector.py', path / 'pretraining.py', path / 'proposals.arrow',
                   path / 'run', path / 'detector_start.pth', path / 'contrastive_start.pth',
                   path / 'objects.json', path / 'localisation.py')


def check_own(work: WorkDir, detector: Config) -> None:
    """Check that a work directory is new, or that of this detector.

    Args:
        work (WorkDir): The directory.
        detector (Config): The output of `read_detector`.

    Raises:
        ValueError: If it is of another run; the message says of which.
    """
    if not work.path.exists():
        return
    if not work.path.is_dir():
        raise ValueError(f'{work.path} is a file, not a folder. Choose another --work-dir.')
    others = sorted(path.name for path in work.path.iterdir())
    if not work.detector.exists():
        if others:
            raise ValueError(f'{work.path} is the folder of something else (it contains {others[0]}). '
                             'Choose another --work-dir.')
        return
    earlier = Config.fromfile(work.detector, import_custom_modules=False)
    if plain(earlier.get('model')) != plain(detector.model):
        raise ValueError(f'{work.path} is the work directory of another detector (its config is '
                         f'{work.detector}). Choose another --work-dir, or delete that folder.')


def write_detector(work: WorkDir, detector: Config) -> None:
    """Write the config of the detector, which says whose work directory it is.

    Args:
        work (WorkDir): The directory, after `check_own`.
        detector (Config): The output of `read_detector`.
    """
    write_whole(work.detector, detector.pretty_text.encode())


def write_config(work: WorkDir, derived: Config, about: str, resume: bool) -> bool:
    """Write the pretraining config of a work directory; an edited one is kept when a run is resumed.

    Args:
        work (WorkDir): The directory.
        derived (Config): The output of `derive`.
        about (str): Comment at the top of the pretraining config.
        resume (bool): Whether an existing run goes on.

    Returns:
        bool: Whether the pretraining config that was there is used, although it differs.

    Raises:
        ValueError: If the run exists already, or its config differs, and `resume` is False.
    """
    text = ''.join(f'# {line}'.rstrip() + '\n' for line in about.splitlines()) + derived.pretty_text
    differs = work.config.exists() and work.config.read_text(encoding='utf-8') != text
    trained = any(work.run.glob('*.pth'))
    if (differs or trained) and not resume:
        why = ('contains a run that has trained already' if trained else
               f'contains {work.config.name}, which was edited or made with other options')
        raise ValueError(f'{work.path} {why}. Add --resume to go on with what is there (the config in '
                         'the folder then counts, not the options), or choose another --work-dir.')
    if not differs:
        write_whole(work.config, text.encode())
    return differs
