"""SoCo: self-supervised pretraining for object detection (arXiv 2106.02637).

This module defines only the version and a filter of warnings, so that worker processes can import
`projects.soco.proposals` without torch. The configs import the subpackages that register
components through `custom_imports`.
"""
import warnings

# MMEngine imports pkg_resources, at every config anew, and each time setuptools warns its developers.
warnings.filterwarnings('ignore', message='pkg_resources is deprecated')

__version__ = '0.1.0'
