"""SoCo: self-supervised pretraining for object detection (arXiv 2106.02637).

This module defines only the version, so that worker processes can import
`projects.soco.proposals` without torch. The configs import the subpackages that register
components through `custom_imports`.
"""

__version__ = '0.1.0'
