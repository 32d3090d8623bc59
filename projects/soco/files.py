"""Files that appear whole or not at all."""
import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO


@contextlib.contextmanager
def told_where(path: str | Path) -> Iterator[None]:
    """Say of an error of the disk what could not be written, and what to do.

    Args:
        path (str | Path): What is written in the block.

    Raises:
        OSError: In place of that of the block.
    """
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, f'{path} could not be written ({error.strerror or error}); what was '
                      f'there before is intact. Free some disk space or choose another place, then '
                      f'start the same command again.') from error


@contextlib.contextmanager
def whole_file(path: str | Path, mode: str = 'w') -> Iterator[IO]:
    """Open a file that is written beside its place, flushed, and moved there at the block's end.

    Args:
        path (str | Path): The file; one that is there is replaced.
        mode (str): ``'w'`` for UTF-8 text with line ends as they are written, ``'wb'`` for bytes.

    Yields:
        IO: The open file.

    Raises:
        OSError: If it cannot be written. An exception leaves nothing behind.
    """
    partial = Path(f'{path}.partial')
    text = {} if 'b' in mode else dict(encoding='utf-8', newline='')
    try:
        with told_where(path):
            with open(partial, mode, **text) as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            os.replace(partial, path)
    finally:
        with contextlib.suppress(OSError):
            partial.unlink()
