"""What pretraining gives a detector: transfer studies, and comparisons of starts on a user's data.

Studies: plan → data → run (training, objects, detection) → summary. Comparisons: own_photos (for the
quickstart) → compare → compare_run → compare_page with the verdict. Both use jobs and records.
"""
