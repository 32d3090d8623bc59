from .objects import ObjectScore, score_objects

__all__ = ['ObjectScore', 'score_objects']
