"""Fixes for the LVIS and Cityscapes metrics; their configs import this module.

lvis 0.5.3 and cityscapesscripts 2.3.0, the latest on the index, use names that NumPy has removed. The
modules that use them get a copy of the NumPy namespace with these names; no other module is affected.

In mmdet's Cityscapes metric, rank 0 clears the result folder while other ranks may already be writing
to it. Here, all ranks wait until it is cleared.
"""
import functools
import importlib
import importlib.util
from types import ModuleType

import numpy as np
from mmengine.dist import barrier

from .. import compat  # noqa: F401  (provides mmcv's ops; must precede mmdet)

_ALIASES = {
    'lvis.eval': dict(float=float),
    'cityscapesscripts.evaluation.evalInstanceLevelSemanticLabeling': dict(in1d=np.isin),
}


def _mend(name: str, aliases: dict) -> None:
    if importlib.util.find_spec(name.split('.')[0]) is None:
        return  # not installed; `check_layout` reports it if it is needed
    numpy = ModuleType('numpy')
    vars(numpy).update(vars(np), **aliases)
    vars(importlib.import_module(name))['np'] = numpy


def _wait_for_clearing() -> None:
    from mmdet.evaluation import CityScapesMetric
    built = CityScapesMetric.__init__

    @functools.wraps(built)
    def init(self, *args, **kwargs) -> None:
        built(self, *args, **kwargs)
        barrier()

    CityScapesMetric.__init__ = init


for _name, _names in _ALIASES.items():
    _mend(_name, _names)
_wait_for_clearing()
