"""Measures of object features that need no fine-tuned detector."""
from .objects import ObjectScore, held_out_dataset, score_objects
from .rank_hook import FeatureRankHook
from .score_hook import ObjectScoreHook

__all__ = ['FeatureRankHook', 'ObjectScore', 'ObjectScoreHook', 'held_out_dataset', 'score_objects']
