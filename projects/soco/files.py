"""Files that are written whole or not at all: the one writer of the project."""
import contextlib
import fcntl
import glob
import hashlib
import os
import re
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import IO

PathLike = str | os.PathLike
ADVICE = 'Free some disk space or choose another place, then start the same command again.'


def project_folder() -> Path:
    """Return the folder of tools/ and configs/: the checkout, or `.mim` of the installed package."""
    package = Path(__file__).resolve().parent
    checkout = package.parents[1]
    return checkout if (checkout / 'configs/metafile.yml').is_file() else package / '.mim'


def tool_path(name: str) -> str:
    """Return a path under which a tool can be started from the current folder.

    Args:
        name (str): Path of the tool in the project, such as 'tools/train.py'.

    Returns:
        str: `name` in the project's own folder, and the whole path elsewhere.
    """
    path = project_folder() / name
    return name if os.path.abspath(name) == str(path) else str(path)


def run_checkpoints(work_dir: PathLike) -> list[Path]:
    """Return the files of a work directory that are named as a run names its checkpoints."""
    return [path for path in Path(work_dir).glob('*.pth')
            if re.fullmatch(r'(epoch|iter)_\d+\.pth', path.name)]


class NotWrittenError(OSError):
    """A file could not be written; the message names the file and what to do."""

    def __str__(self) -> str:
        return str(self.args[1])


@contextlib.contextmanager
def naming_file(path: PathLike, advice: str = ADVICE) -> Iterator[None]:
    """Turn an error of the file system inside the block into one that names the file.

    Args:
        path (PathLike): The file that the block writes.
        advice (str): What the user can do; the last sentence of the message.

    Raises:
        NotWrittenError: In place of an `OSError` of the block.
    """
    try:
        yield
    except NotWrittenError:
        raise
    except OSError as error:
        raise NotWrittenError(
            error.errno, f'{path} could not be written ({error.strerror or error}); what was there '
            f'before is intact. {advice}') from error


@contextlib.contextmanager
def whole_file(path: PathLike, mode: str = 'w', advice: str = ADVICE) -> Iterator[IO]:
    """Open a file that appears at its path only when the block ends without an error.

    It is written under a temporary name of its own in the same folder, flushed to the disk, and
    renamed. Several writers of one path do not disturb each other: the last to finish wins. Temporary
    files of writers that were killed are removed.

    Args:
        path (PathLike): The file; an existing one is replaced.
        mode (str): 'w' for UTF-8 text with line ends as they are written, 'wb' for bytes.
        advice (str): What the user can do when it cannot be written.

    Yields:
        IO: The open file.

    Raises:
        NotWrittenError: It cannot be written. Nothing is left behind.
    """
    path = Path(path)
    text = {} if 'b' in mode else dict(encoding='utf-8', newline='')
    remove_torn(path)
    temporary = path.with_name(f'.{path.name}.{secrets.token_hex(4)}')
    try:
        # 'x' and not mkstemp: the file gets the permissions that the user's umask gives
        with naming_file(path, advice), open(temporary, mode.replace('w', 'x'), **text) as file:
            with contextlib.suppress(OSError):  # a file system without locks
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # its writer lives
            yield file
            file.flush()
            os.fsync(file.fileno())
            os.replace(temporary, path)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def write_whole(path: PathLike, data: bytes | memoryview, advice: str = ADVICE) -> None:
    """Write bytes with `whole_file`; missing folders are made.

    Raises:
        NotWrittenError: The file cannot be written; an existing one is intact.
    """
    with naming_file(path, advice):
        Path(path).parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path, 'wb', advice) as file:
        file.write(data)


def remove_torn(path: PathLike) -> None:
    """Remove the temporary files that killed writers of a path have left.

    Args:
        path (PathLike): The path; its name may be a glob pattern, such as '*.pth'.
    """
    folder, name = os.path.split(path)
    for found in glob.glob(f'{glob.escape(folder or ".")}/.{name}.' + '[0-9a-f]' * 8):
        with contextlib.suppress(OSError), open(found, 'rb') as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # fails while its writer lives
            os.unlink(found)


def hash_of(content: bytes) -> str:
    """Return a hash of 12 hex digits."""
    return hashlib.sha256(content).hexdigest()[:12]
