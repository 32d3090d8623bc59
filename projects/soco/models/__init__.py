"""The SoCo model, its neck, its RoI heads and its data preprocessors."""
from .. import compat  # noqa: F401  (provides mmcv's ops; must precede mmdet)
from .byol import ForeachBYOL
from .data_preprocessor import ImageViewsPreprocessor, SoCoDataPreprocessor
from .necks import SoCoFPN
from .regularisers import VarianceCovariance
from .roi_heads import SoCoBBoxHead, SoCoC4RoIHead, SoCoRoIExtractor, SoCoRoIHead
from .soco import SoCo, assign_levels, feature_spread

__all__ = [
    'ForeachBYOL', 'ImageViewsPreprocessor', 'SoCo', 'SoCoBBoxHead', 'SoCoC4RoIHead',
    'SoCoDataPreprocessor', 'SoCoFPN', 'SoCoRoIExtractor', 'SoCoRoIHead', 'VarianceCovariance',
    'assign_levels', 'feature_spread'
]
