"""Object proposals: generators of boxes, and stores that keep the boxes in a memory-mapped file.

Importing this package is cheap: only the modules that use numba and pyarrow import them.
"""
from typing import Any

__all__ = ['ImageProposals', 'ProposalStore', 'StoreWriter']


def __getattr__(name: str) -> Any:
    if name in __all__:
        from . import store
        return getattr(store, name)
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
