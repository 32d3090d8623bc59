"""The package `lvis` under current NumPy; the configs of LVIS import this.

lvis 0.5.3, the newest on the index, uses `np.float`, which NumPy 1.24 took away. Its own module gets
a NumPy with that alias; nobody else's does.
"""
from types import ModuleType

import lvis.eval
import numpy as np

_numpy = ModuleType('numpy')
vars(_numpy).update(vars(np), float=float)
lvis.eval.np = _numpy
