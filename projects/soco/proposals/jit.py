"""The one place that decides how kernels are compiled and where the machine code is kept."""
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
    """The folder that keeps the machine code between processes.

    Its name holds a digest of all kernel files: numba itself would not notice that a kernel of
    another file, which a kept kernel calls, has changed.

    Returns:
        Path | None: A writable folder: in numba's own ``CACHE_DIR`` where that is set, else in the
        package's ``__pycache__``, else in the user's cache; None where none can be written.
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

    Floating point stays strict (no ``fastmath``): the boxes depend on the last bit. Where no
    folder can be written, the kernel is compiled anew in each process.

    Args:
        function (Callable): A function of arrays and numbers, in one of :data:`KERNEL_FILES`.

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
