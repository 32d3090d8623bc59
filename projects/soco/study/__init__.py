"""A study of what pretraining gives a detector: from one config to a table and a picture.

plan → data → training, objects, detection → summary
"""
