"""The one place that decides how kernels are compiled."""
from collections.abc import Callable

import numba


def kernel(function: Callable) -> Callable:
    """Compile a kernel with numba, keeping the machine code between processes where possible.

    Floating point stays strict (no ``fastmath``): the boxes depend on the last bit. Where neither
    the package folder nor the user's cache folder can be written, the kernel is compiled anew in
    each process instead.

    Args:
        function (Callable): A function of arrays and numbers.

    Returns:
        Callable: The compiled function.
    """
    options = dict(nogil=True, error_model='numpy')
    try:
        return numba.njit(cache=True, **options)(function)
    except RuntimeError:
        return numba.njit(**options)(function)
