"""The record of a run, WORK_DIR/run.json: code, versions, hardware, and how it ended."""
import contextlib
import importlib.metadata
import json
import os
import platform
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import __version__
from ..files import whole_file
from ..launch.errors import Stopped
from .config_changes import nearest_known

if TYPE_CHECKING:  # a report reads a record without waiting for the import of torch
    from mmengine.runner import Runner

RECORD = 'run.json'
PACKAGES = ('torch', 'torchvision', 'mmengine', 'mmcv', 'mmcv-lite', 'mmdet', 'mmselfsup',
            'onedl-mmengine', 'onedl-mmcv', 'onedl-mmdetection', 'onedl-mmpretrain', 'numpy')
ROOT = Path(__file__).resolve().parents[3]
# Keys and types that describe_session writes.
KINDS = dict(started=str, config=str, known_configs=list, version=str, commit=str, processes=int,
             versions=dict, cpu=str, cores=int, memory_gib=int, gpus=list)


@contextlib.contextmanager
def recorded(runner: 'Runner', config: str) -> Iterator[None]:
    """Record the training of the block in the work directory, at its start and at its end.

    A resumed run adds a session to the record. Another run replaces the record. Only the main process
    writes.

    Args:
        runner (Runner): The runner that trains in the block.
        config (str): The config file of the run.

    Yields:
        None: Nothing.

    Raises:
        OSError: If the disk is full or read-only.
    """
    from mmengine.dist import is_main_process
    if not is_main_process():
        yield
        return
    path = Path(runner.work_dir) / RECORD
    earlier = []
    if runner._resume:
        with contextlib.suppress(FileNotFoundError, ValueError):  # a bad record must not stop a run
            earlier = read_record(path)
    session = describe_session(config)
    _write(path, [*earlier, session])
    try:
        yield
    except BaseException as error:
        session.update(ended=_now(), how=_how(error))
        with contextlib.suppress(OSError):  # raise the first error instead
            _write(path, [*earlier, session])
        raise
    session.update(ended=_now(), how='finished')
    _write(path, [*earlier, session])


def read_record(path: str | Path) -> list[dict[str, Any]]:
    """Read the sessions of a run.

    Args:
        path (str | Path): A `run.json`.

    Returns:
        list[dict]: Output of `describe_session` for each session, oldest first. Sessions that ended
        also have `ended` and `how`.

    Raises:
        FileNotFoundError: If the file does not exist.
        ValueError: If it is not a record.
    """
    try:
        sessions = json.loads(Path(path).read_bytes())['sessions']
        wrong = [key for session in sessions for key, kind in KINDS.items()
                 if not isinstance(session[key], kind)]
        if wrong or not sessions:
            raise ValueError(f'{wrong[0]} has another type' if wrong else 'it contains no session')
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f'{path} is not the record of a run ({type(error).__name__}: {error}). It '
                         'can be removed: training does not need it.') from error
    return sessions


def describe_session(config: str) -> dict[str, Any]:
    """Describe a session that starts now: config, code, versions and hardware.

    Args:
        config (str): The config file.

    Returns:
        dict[str, Any]: Values for JSON, with the keys and types of `KINDS`.
    """
    from mmengine.dist import get_world_size
    return dict(
        started=_now(), config=str(config), known_configs=nearest_known(config),
        version=__version__, commit=code_version(), processes=get_world_size(),
        versions={'python': platform.python_version(), **_package_versions()}, **describe_hardware())


def code_version() -> str:
    """Return the commit of the checkout, with '-dirty' if files differ from it; '' without git."""
    if not (ROOT / '.git').exists():
        return ''
    try:
        return subprocess.run(
            ['git', '-C', str(ROOT), 'describe', '--always', '--dirty', '--abbrev=12', '--exclude=*'],
            capture_output=True, text=True, timeout=20, check=True,
            env={**os.environ, 'GIT_OPTIONAL_LOCKS': '0'}).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ''


def _package_versions() -> dict[str, str]:
    versions = {}
    for name in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[name] = importlib.metadata.version(name)
    return versions


def describe_hardware() -> dict[str, Any]:
    """Describe processor, cores, memory and GPUs of this machine."""
    import torch
    names = []
    with contextlib.suppress(OSError):
        lines = Path('/proc/cpuinfo').read_text().splitlines()
        names = [line.partition(':')[2].strip() for line in lines if line.startswith('model name')]
    gpus = [torch.cuda.get_device_properties(i) for i in range(torch.cuda.device_count())]
    return dict(
        cpu=names[0] if names else platform.processor() or platform.machine(),
        cores=len(os.sched_getaffinity(0)),
        memory_gib=round(os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE') / 2**30),
        gpus=[f'{gpu.name}, {gpu.total_memory / 2**30:.0f} GiB' for gpu in gpus])


def _how(error: BaseException) -> str:
    if isinstance(error, Stopped):
        return 'stopped by a signal'
    if isinstance(error, KeyboardInterrupt):
        return 'interrupted from the keyboard'
    return f'failed: {error or type(error).__name__}'[:1000]


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec='seconds')


def _write(path: Path, sessions: list[dict[str, Any]]) -> None:
    with whole_file(path) as file:
        json.dump(dict(sessions=sessions), file, indent=2)
