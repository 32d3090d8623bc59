"""Data set and transforms that turn a row of the proposal store into views and boxes."""
from .. import compat  # noqa: F401  (provides mmselfsup where only its fork is installed)
from .dataset import SampleKey, SoCoDataset
from .transforms import LoadProposals, PackSoCoInputs, ProposalCutout, ProposalViews

__all__ = [
    'LoadProposals', 'PackSoCoInputs', 'ProposalCutout', 'ProposalViews', 'SampleKey', 'SoCoDataset'
]
