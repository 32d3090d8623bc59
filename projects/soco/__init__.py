"""SoCo: self-supervised pretraining for object detection (arXiv 2106.02637).

This module defines only the version and filters of warnings, so that worker processes can import
`projects.soco.proposals` without torch. The configs import the subpackages that register
components through `custom_imports`.
"""
import warnings

# MMEngine imports pkg_resources, at every config anew, and each time setuptools warns its developers.
warnings.filterwarnings('ignore', message='pkg_resources is deprecated')
# What users of several processes cannot change: MMEngine's argument of DDP, and a gather whose
# successor the oldest accepted torch lacks.
warnings.filterwarnings('ignore', message='`broadcast_buffers` is deprecated')
warnings.filterwarnings('ignore', message=r'torch\.distributed\.nn\.functional\.all_gather is deprec')

__version__ = '0.1.0'
