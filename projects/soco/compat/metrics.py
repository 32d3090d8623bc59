"""Metrics that are older than NumPy; the configs of LVIS and Cityscapes import this.

lvis 0.5.3 and cityscapesscripts 2.3.0, the newest on the index, use names that NumPy has taken away.
The module of each that does gets a NumPy with these names; nobody else's does.

mmdet's Cityscapes metric has rank 0 clear the folder of results while other ranks may be writing into
it already: here all wait for the clearing.
"""
import functools
import importlib
import importlib.util
from types import ModuleType

import numpy as np
from mmengine.dist import barrier

from .. import compat  # noqa: F401  (serves mmcv's ops before mmdet asks for them)

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
