"""Detection of host-device synchronisations in a training step, without a GPU."""
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakIdKeyDictionary

aten = torch.ops.aten
# Operators whose result, or the shape of it, is needed on the host.
WAITING = {aten._local_scalar_dense.default, aten.nonzero.default, aten.masked_select.default,
           aten.bincount.default, aten.equal.default, aten.is_nonzero.default,
           aten._unique2.default, aten.repeat_interleave.Tensor}
# Operators that synchronise only if an index is a mask.
INDEXING = {aten.index.Tensor, aten.index_put.default, aten.index_put_.default}
# Methods that read memory of CPU tensors without calling an operator.
READING = {Tensor.tolist, Tensor.numpy, Tensor.cpu}


class HostSyncs(TorchDispatchMode):
    """Record in `found` the operators that would synchronise, in forward and backward passes.

    The tensors in `host` and tensors computed only from them, or from no tensor, count as CPU tensors.
    All others (weights, views) count as GPU tensors.

    Args:
        host (Iterable[Tensor]): Tensors that the data loader leaves on the CPU.
    """

    def __init__(self, host: Iterable[Tensor]) -> None:
        super().__init__()
        self.found: list[str] = []
        self.host = WeakIdKeyDictionary()
        self.keep(host)
        self.reads = _Reads(self)

    def keep(self, tensors: Iterable[Tensor]) -> None:
        """Mark tensors as CPU tensors."""
        for tensor in tensors:
            self.host[tensor] = True

    def on_host(self, *values: Any) -> bool:
        """Return whether all tensors among the values count as CPU tensors."""
        return all(t in self.host for t in tree_leaves(values) if isinstance(t, Tensor))

    def __enter__(self) -> 'HostSyncs':
        self.reads.__enter__()
        return super().__enter__()

    def __exit__(self, *args: Any) -> None:
        super().__exit__(*args)
        self.reads.__exit__(*args)

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict = None) -> Any:
        on_host = self.on_host(args, kwargs)
        masked = func in INDEXING and any(
            i is not None and i.dtype in (torch.bool, torch.uint8) for i in args[1])
        if not on_host and (func in WAITING or masked):
            self.found.append(str(func))
        out = func(*args, **(kwargs or {}))
        if on_host:
            self.keep(t for t in tree_leaves(out) if isinstance(t, Tensor))
        return out


class _Reads(TorchFunctionMode):

    def __init__(self, syncs: HostSyncs) -> None:
        super().__init__()
        self.syncs = syncs

    def __torch_function__(self, func: Any, types: Any, args: tuple = (), kwargs: dict = None) -> Any:
        if func in READING and not self.syncs.on_host(args):
            self.syncs.found.append(func.__name__)
        return func(*args, **(kwargs or {}))
