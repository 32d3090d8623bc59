"""Support for libraries that are older than this project's PyTorch.

Importing this package provides the operators of mmcv that mmdet needs (see `ops`), and the names of
MMSelfSup where its fork is installed (see `host`). Import it before anything of OpenMMLab.
"""
from . import host, ops  # noqa: F401  (host first: it checks what is installed before it is imported)
