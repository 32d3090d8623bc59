"""Reading of detectron2's .pkl, a pickle of NumPy arrays, without running code from the file."""
import math
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor


class _Dtype:
    """The type of an array, as text."""

    def __init__(self, name: str, *args: Any) -> None:
        self.name, self.order = str(name), '<'

    def __setstate__(self, state: tuple) -> None:
        self.order = state[1]

    def made(self) -> np.dtype:
        name = self.name.lstrip('<>|=')
        if name not in ('f2', 'f4', 'f8', 'i1', 'i2', 'i4', 'i8', 'u1', 'b1'):
            raise pickle.UnpicklingError(f'an array of type {self.name}')
        return np.dtype('>' + name if '>' in (self.order, self.name[:1]) else name)


class _Array:
    """What a file says about an array; NumPy sees only its bytes, in `tensor`."""

    def __init__(self, shape: tuple = (), dtype: Any = 'f4', data: bytes = b'') -> None:
        self.__setstate__((1, shape, dtype, False, data))

    def __setstate__(self, state: tuple) -> None:
        _, self.shape, dtype, self.fortran, self.data = state
        self.dtype = dtype if isinstance(dtype, _Dtype) else _Dtype(dtype)

    def tensor(self) -> Tensor:
        data = self.data.encode('latin1') if isinstance(self.data, str) else bytes(self.data)
        dtype = self.dtype.made()
        if len(data) != math.prod(self.shape) * dtype.itemsize:
            raise pickle.UnpicklingError(f'{len(data)} bytes for an array of shape {self.shape}')
        array = np.frombuffer(data, dtype).reshape(self.shape, order='F' if self.fortran else 'C')
        return torch.from_numpy(array.astype(dtype.newbyteorder('='), order='C'))


def _encode(text: str, coding: str = 'latin1') -> bytes:
    """Return the bytes of an array that Python 2 or an old protocol wrote as text."""
    return text.encode('latin1')


class _Ignored:
    """A number of NumPy outside the weights, such as the epoch."""

    def __init__(self, *args: Any) -> None:
        pass


# The only names that a file may use, and what stands for them.
_NAMES = {'numpy.ndarray': _Array, 'numpy.dtype': _Dtype, 'collections.OrderedDict': dict,
          '_codecs.encode': _encode, 'builtins.bytearray': bytearray,
          'builtins.bytes': lambda *args: b''}  # protocol 0 makes only empty ones so
for _module in ('numpy.core.multiarray', 'numpy._core.multiarray'):
    _NAMES[f'{_module}._reconstruct'] = lambda *args: _Array()
    _NAMES[f'{_module}.scalar'] = _Ignored


class _ArrayUnpickler(pickle.Unpickler):
    """Unpickler that knows the names of `_NAMES` only."""

    def find_class(self, module: str, name: str) -> Any:
        """Return what stands for a name.

        Raises:
            pickle.UnpicklingError: If the name is not one of `_NAMES`.
        """
        full = f'{module}.{name}'.replace('__builtin__', 'builtins')
        if full not in _NAMES:
            raise pickle.UnpicklingError(f'it uses {module}.{name}')
        return _NAMES[full]


def load_arrays(path: Path) -> dict[str, Any]:
    """Read a .pkl of detectron2.

    Args:
        path (Path): The file.

    Returns:
        dict[str, Any]: Its content, with tensors in place of the arrays under `model`.

    Raises:
        ValueError: If it contains more than arrays and plain values, is cut off, or has the weights of
            Caffe2's Detectron.
    """
    try:
        with open(path, 'rb') as file:
            content = _ArrayUnpickler(file, encoding='latin1').load()
        if isinstance(content, dict) and 'blobs' in content:
            raise ValueError(f"{path} contains `blobs`: it is of Caffe2's Detectron, whose names are "
                             "not read. Use the weights that detectron2's model zoo has instead.")
        model = content.get('model', content) if isinstance(content, dict) else content
        weights = {str(name): value.tensor() if isinstance(value, _Array) else value
                   for name, value in model.items()}
    except OSError:
        raise
    except ValueError as error:
        if str(path) in str(error):
            raise
        raise _refusal(path, error) from error
    except Exception as error:  # on other bytes the unpickler may raise any error
        raise _refusal(path, error) from error
    return {'model': weights}


def _refusal(path: Path, error: Exception) -> ValueError:
    reason = (str(error).splitlines() or [type(error).__name__])[0]
    return ValueError(f'{path} is a pickle that contains more than arrays and plain values, which '
                      f'could run code when loaded, or it is cut off; it was not loaded ({reason}). '
                      'Use the .pth that it was made from, or a .safetensors file.')
