"""SyncBN that never makes the host wait for the device."""
import torch
from torch import Tensor, distributed, nn
from torch.nn.modules import _functions


class _Normalise(_functions.SyncBatchNorm):
    """torch's SyncBN without the selection of the ranks that have samples; same backward pass.

    torch drops the statistics of ranks with an empty batch by three boolean masks. The shape of what a
    mask selects is needed on the host, which waits for the device three times per layer.
    """

    @staticmethod
    def forward(ctx, input: Tensor, weight: Tensor | None, bias: Tensor | None,
                running_mean: Tensor | None, running_var: Tensor | None, eps: float, momentum: float,
                process_group: distributed.ProcessGroup, world_size: int) -> Tensor:
        """Normalise over the batches of all ranks; the arguments are those of torch's function."""
        if not input.is_contiguous(memory_format=torch.channels_last):
            input = input.contiguous()
        mean, invstd = torch.batch_norm_stats(input, eps)
        rows = input.numel() // input.size(1)
        own = torch.cat([mean, invstd, mean.new_full((1, ), rows)])
        everyone = own.new_empty(world_size, len(own))
        distributed.all_gather_into_tensor(everyone.view(-1), own, process_group)
        means, invstds, counts = everyone.split((len(mean), len(mean), 1), dim=1)
        mean, invstd = torch.batch_norm_gather_stats_with_counts(
            input, means, invstds, running_mean, running_var, momentum, eps, counts.reshape(-1))
        ctx.save_for_backward(input, weight, mean, invstd, counts.to(torch.int32))
        ctx.process_group = process_group
        return torch.batch_norm_elemt(input, weight, bias, mean, invstd, eps)


class NonEmptySyncBN(nn.SyncBatchNorm):
    """torch's SyncBN for training in which every rank has a sample in every batch.

    Forward pass, gradients and running statistics are those of `torch.nn.SyncBatchNorm`, also for
    batches of unequal size. Without a GPU, or without several processes, it is that class.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Normalise (N, C, ...), in training over the batches of all ranks."""
        if not (self.training and input.is_cuda and distributed.is_initialized()):
            return super().forward(input)
        group = self.process_group or distributed.group.WORLD
        world_size = distributed.get_world_size(group)
        if world_size == 1 or self.momentum is None or not self.track_running_stats:
            return super().forward(input)
        self.num_batches_tracked.add_(1)
        return _Normalise.apply(input, self.weight, self.bias, self.running_mean, self.running_var,
                                self.eps, self.momentum, group, world_size)


def drop_empty_check(model: nn.Module) -> int:
    """Turn torch's SyncBN layers into `NonEmptySyncBN`, in place; names and tensors stay.

    Args:
        model (nn.Module): A model that trains on batches that are empty on no rank.

    Returns:
        int: Number of layers that were changed.
    """
    layers = [layer for layer in model.modules()  # MMEngine's 'SyncBN' is a class that inherits
              if isinstance(layer, nn.SyncBatchNorm) and not isinstance(layer, NonEmptySyncBN)]
    for layer in layers:
        layer.__class__ = NonEmptySyncBN
    return len(layers)
