"""SoCo: self-supervised pretraining for object detection (arXiv 2106.02637).

Only the version lives here, so that `projects.soco.proposals` can be imported in worker
processes without torch. The rooms that register something are named in the configs'
`custom_imports`.
"""

__version__ = '0.1.0'
