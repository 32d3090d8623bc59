from .objects import ObjectScore, held_out_dataset, score_objects

__all__ = ['ObjectScore', 'held_out_dataset', 'score_objects']
