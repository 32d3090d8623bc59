"""Proposals: from pixels to a file of boxes that opens at once.

Importing this package is light; numba and pyarrow are loaded by the modules that need them.
"""
from typing import Any

__all__ = ['ImageProposals', 'ProposalStore', 'StoreWriter']


def __getattr__(name: str) -> Any:
    if name in __all__:
        from . import store
        return getattr(store, name)
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
