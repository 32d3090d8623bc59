"""Support for libraries that are older than this project's PyTorch.

Importing this package provides the operators of mmcv that mmdet needs (see `ops`). Import it before
`mmdet` or `mmcv.ops`.
"""
from . import ops  # noqa: F401
