"""Compilation of all kernels with numba, and the cache of their machine code."""
import hashlib
import os
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numba

KERNEL_FILES = ('jit.py', 'forest.py', 'grouping.py', 'segmentation.py')


@cache
def cache_folder() -> Path | None:
    """Return the folder that caches the machine code between processes.

    Its name contains a digest of all kernel files, because numba does not notice when a kernel in
    another file that a cached kernel calls has changed.

    Returns:
        Path | None: The first writable folder of: numba's own `CACHE_DIR` if that is set, the package's
        `__pycache__`, the user's cache. None if none of them is writable.
    """
    package = Path(__file__).parent
    digest = hashlib.sha256(b''.join((package / name).read_bytes() for name in KERNEL_FILES))
    user = Path(os.environ.get('XDG_CACHE_HOME') or Path.home() / '.cache') / 'mmsoco'
    places = [Path(numba.config.CACHE_DIR)] if numba.config.CACHE_DIR else []
    for place in [*places, package / '__pycache__', user]:
        folder = place / f'kernels-{digest.hexdigest()[:16]}'
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder):
                return folder
        except OSError:
            continue
    return None


def kernel(function: Callable) -> Callable:
    """Compile a kernel with numba.

    Floating-point arithmetic is strict (no `fastmath`), because the boxes depend on the last bit. If no
    cache folder is writable, the kernel is compiled again in each process.

    Args:
        function (Callable): A function of arrays and numbers, in one of `KERNEL_FILES`.

    Returns:
        Callable: The compiled function.
    """
    folder = cache_folder()
    before = numba.config.CACHE_DIR
    try:
        if folder is not None:
            numba.config.CACHE_DIR = str(folder)
        return numba.njit(cache=folder is not None, nogil=True, error_model='numpy')(function)
    finally:
        numba.config.CACHE_DIR = before
