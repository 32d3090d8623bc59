"""A user's detector: what of it can be pretrained, the pretraining config, and the way back."""
from .. import compat  # noqa: F401  (provides mmcv's ops before mmdet imports them)
