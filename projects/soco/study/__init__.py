"""Transfer studies: pretraining methods compared by object scores and by detectors' AP.

plan → data → training, objects, detection → summary
"""
