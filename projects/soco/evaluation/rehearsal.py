"""A training step's forward pass as on a GPU, without one: precision, host waits and memory.

Tensors of the device are fake: they have a shape, a type and a device, but no values, so a recipe at
its full batch takes seconds and no memory. What a data loader leaves on the CPU is real. The backward
pass and the optimiser cannot run this way.
"""
import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple
from unittest.mock import patch

import torch
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode, unset_fake_temporarily
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map, tree_map_only

from ..models.sync_bn import drop_empty_check
from .step import AMP_TYPES, made_up_data

DEVICE = torch.device('cuda')
LAYERS = (nn.Conv2d, nn.Linear, nn.modules.batchnorm._BatchNorm)


class Rehearsal(NamedTuple):
    """The result of `rehearse`.

    Args:
        inputs (dict[str, set[torch.dtype]]): Name of each conv, linear and norm layer to the types of
            its inputs.
        losses (dict[str, torch.dtype]): Name of each output of the model to its type.
        weights (int): Bytes of the weights of both networks, the gradients and the optimiser's buffers.
        buckets (int): Bytes of the gradients' second copy, which several GPUs need.
        saved (int): Bytes of the views, and of what the forward pass keeps for the backward pass.
        batch_size (int): Images in the batch.
    """

    inputs: dict[str, set[torch.dtype]]
    losses: dict[str, torch.dtype]
    weights: int
    buckets: int
    saved: int
    batch_size: int

    @property
    def total(self) -> int:
        """Bytes of all of these: a lower bound of the peak, see `docs/benchmarks.md`."""
        return self.weights + self.buckets + self.saved

    def largest_batch(self, memory: float, step: int = 8) -> int:
        """Return the largest batch that fits, with a tenth of the memory and 2 GiB left free.

        What is left is for the gradients of activations, the workspaces of convolutions, gaps between
        blocks, and what CUDA itself takes (our choice; not measured).

        Args:
            memory (float): Memory of the GPU in bytes.
            step (int): The batch is a multiple of this. Defaults to 8.

        Returns:
            int: Images; 0 if not even `step` of them fit.
        """
        room = 0.9 * memory - 2 * 2**30 - self.weights - self.buckets
        return max(0, int(room * self.batch_size / self.saved) // step * step)


def rehearse(cfg: Config, amp: str, batch_size: int | None = None) -> Rehearsal:
    """Run preprocessor and loss of a pretraining config on a made-up GPU.

    Args:
        cfg (Config): A pretraining config.
        amp (str): Precision: 'no', 'fp16' or 'bf16'.
        batch_size (int, optional): Images per GPU, even. Defaults to None: the config's.

    Returns:
        Rehearsal: What was found.

    Raises:
        torch._subclasses.fake_tensor.DataDependentOutputException: If the host would wait for a value
            on the device.
    """
    cfg = copy.deepcopy(cfg)
    cfg.model.data_preprocessor.compile_colours = False  # a compiler cannot run inside
    batch_size = batch_size or cfg.train_dataloader.batch_size
    data = _repeat(made_up_data(cfg, 2), batch_size // 2)
    kept = _Kept()
    with DefaultScope.overwrite_default_scope(cfg.default_scope), torch.device('meta'):
        model = MODELS.build(cfg.model).train()
    drop_empty_check(model)  # as the Runner does
    with pretend_gpu(amp) as fake:
        _move_to_gpu(model)
        weights = {id(t.untyped_storage()): t.untyped_storage().nbytes()
                   for t in (*model.parameters(), *model.buffers())}
        kept.known.update(weights)
        inputs = _watch_inputs(model)
        with HostTensors(fake):
            prepared = model.data_preprocessor(data, True)
            for view in prepared['inputs']:  # the step holds them to its end
                kept.pack(view)
            with torch.autograd.graph.saved_tensors_hooks(kept.pack, lambda t: t):
                losses = model.loss(**prepared)
        gradients = sum(p.numel() * p.element_size() for p in model.parameters() if p.requires_grad)
        return Rehearsal(inputs, {name: value.dtype for name, value in losses.items()},
                         sum(weights.values()) + 2 * gradients, gradients, kept.bytes, batch_size)


def _repeat(data: Any, times: int) -> Any:
    """Repeat a collated batch."""
    return tree_map_only(Tensor, lambda t: torch.cat([t] * times), data)


def _move_to_gpu(model: nn.Module) -> None:
    """Give a model on 'meta' fake weights and buffers on the device, in the same memory format."""
    for module in model.modules():
        for tensors in (module._parameters, module._buffers):
            for name, tensor in tensors.items():
                if tensor is not None:
                    moved = torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype,
                                                device=DEVICE)
                    if isinstance(tensor, nn.Parameter):
                        moved = nn.Parameter(moved, tensor.requires_grad)
                    tensors[name] = moved  # type: ignore[assignment]
    model.data_preprocessor.to(DEVICE)


def _watch_inputs(model: nn.Module) -> dict[str, set[torch.dtype]]:
    """Return a dict that receives the types of the inputs of the model's layers by name."""
    found: dict[str, set[torch.dtype]] = {}

    def watch(name: str, layer: nn.Module) -> None:
        layer.register_forward_pre_hook(
            lambda module, args: found.setdefault(name, set()).add(args[0].dtype))

    for name, layer in model.named_modules():
        if isinstance(layer, LAYERS):
            watch(name, layer)
    return found


class _Kept:
    """Counts the bytes of what autograd saves, each storage once; `known` ones are not counted."""

    def __init__(self) -> None:
        self.known: dict[int, Any] = {}
        self.alive: list[Any] = []  # a freed storage's id may be used again
        self.bytes = 0

    def pack(self, tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if tensor.device.type == DEVICE.type and id(storage) not in self.known:
            self.known[id(storage)] = storage.nbytes()
            self.alive.append(storage)
            self.bytes += storage.nbytes()
        return tensor


@contextmanager
def pretend_gpu(amp: str = 'no') -> Iterator[FakeTensorMode]:
    """Let tensors on 'cuda' be made, with autocast on, with or without a GPU.

    Args:
        amp (str): Precision: 'no', 'fp16' or 'bf16'. Defaults to 'no'.

    Yields:
        FakeTensorMode: The mode, which is active.
    """
    before = torch.is_autocast_enabled('cuda'), torch.get_autocast_dtype('cuda')
    torch.autocast_increment_nesting()
    # torch.autocast('cuda') switches itself off where there is no GPU, so its state is set directly.
    torch.set_autocast_enabled('cuda', amp != 'no')
    torch.set_autocast_dtype('cuda', AMP_TYPES.get(amp, torch.float16))
    try:
        # Page-locked memory cannot be had without a GPU.
        with patch.object(Tensor, 'pin_memory', lambda tensor, *args: tensor), FakeTensorMode() as fake:
            yield fake
    finally:
        if torch.autocast_decrement_nesting() == 0:
            torch.clear_autocast_cache()
        torch.set_autocast_enabled('cuda', before[0])
        torch.set_autocast_dtype('cuda', before[1])


class HostTensors(TorchDispatchMode):
    """Inside a fake mode, compute with real CPU tensors, and make them fake when they are sent.

    Without it, the values of boxes would be lost, from which the model counts its levels on the CPU.

    Args:
        fake (FakeTensorMode): The mode.
    """

    def __init__(self, fake: FakeTensorMode) -> None:
        super().__init__()
        self.fake = fake

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (),
                           kwargs: dict | None = None) -> Any:
        kwargs = kwargs or {}
        leaves = tree_leaves((args, kwargs))
        tensors = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
        devices = [leaf for leaf in leaves if isinstance(leaf, torch.device)]
        if any(isinstance(tensor, FakeTensor) for tensor in tensors) or not (tensors or devices):
            return func(*args, **kwargs)  # a real tensor among fake ones is refused
        if any(device.type == DEVICE.type for device in devices):
            args, kwargs = tree_map(
                lambda leaf: self.fake.from_tensor(leaf) if isinstance(leaf, Tensor) else leaf,
                (args, kwargs))
            return func(*args, **kwargs)
        with unset_fake_temporarily():
            return func(*args, **kwargs)
