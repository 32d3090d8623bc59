"""Metrics that are older than NumPy; the configs of LVIS and Cityscapes import this.

lvis 0.5.3 and cityscapesscripts 2.3.0, the newest on the index, use names that NumPy has taken away.
The module of each that does gets a NumPy with these names; nobody else's does.
"""
import importlib
import importlib.util
from types import ModuleType

import numpy as np

_ALIASES = {
    'lvis.eval': dict(float=float),
    'cityscapesscripts.evaluation.evalInstanceLevelSemanticLabeling': dict(in1d=np.isin),
}


def _mend(name: str, aliases: dict) -> None:
    if importlib.util.find_spec(name.split('.')[0]) is None:
        return  # not installed: `check_layout` tells who needs it
    numpy = ModuleType('numpy')
    vars(numpy).update(vars(np), **aliases)
    vars(importlib.import_module(name))['np'] = numpy


for _name, _names in _ALIASES.items():
    _mend(_name, _names)
