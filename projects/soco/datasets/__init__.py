"""From a row of the proposal store to views and boxes."""
from .dataset import SampleKey, SoCoDataset
from .transforms import LoadProposals, PackSoCoInputs, ProposalCutout, ProposalViews

__all__ = [
    'LoadProposals', 'PackSoCoInputs', 'ProposalCutout', 'ProposalViews', 'SampleKey', 'SoCoDataset'
]
