"""Support for libraries that are older than this project's PyTorch.

Importing this package provides the operators of mmcv that mmdet needs (see `ops`), the names of
MMSelfSup where its fork is installed (see `host`), and pictures in MLflow (see `mlflow`). Import it
before anything of OpenMMLab.
"""
from . import host, mlflow, ops  # noqa: F401  (host first: it checks what is installed)
