"""Support for libraries that are older than this project's PyTorch.

Importing this package makes mmdet's and mmcv's operators available (see `ops`). It must be imported
before `mmdet` or `mmcv.ops`.
"""
from . import ops  # noqa: F401
