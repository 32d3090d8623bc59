"""SyncBN on two made-up ranks against torch's, and against BN on the joint batch."""
import threading
from collections.abc import Callable

import pytest
import syncs
import torch
from mmcv.cnn import build_norm_layer
from torch import Tensor, nn
from torch.nn.modules import _functions

from projects.soco.models.sync_bn import NonEmptySyncBN, _Normalise, drop_empty_check


class Ranks:
    """Run a function in two threads, which exchange tensors as the ranks of a group."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.barrier = threading.Barrier(2, timeout=20)
        self.sent: dict[int, Tensor] = {}
        self.local = threading.local()
        monkeypatch.setattr(torch.distributed, 'all_gather_into_tensor', self.gather)
        monkeypatch.setattr(torch.distributed, 'all_gather_single', self.gather, raising=False)
        monkeypatch.setattr(torch.distributed, 'all_reduce', self.reduce)

    def _get_backend_name(self) -> str:
        return 'nccl'

    def exchange(self, tensor: Tensor) -> list[Tensor]:
        self.sent[self.local.rank] = tensor.clone()
        self.barrier.wait()
        tensors = [self.sent[0], self.sent[1]]
        self.barrier.wait()
        return tensors

    def gather(self, out: Tensor, tensor: Tensor, group: object, async_op: bool = False) -> None:
        out.view(-1).copy_(torch.cat(self.exchange(tensor)))

    def reduce(self, tensor: Tensor, *args: object, **kwargs: object) -> None:
        tensor.copy_(sum(self.exchange(tensor)))

    def run(self, work: Callable[[int], object]) -> list:
        results: list = [None, None]

        def start(rank: int) -> None:
            self.local.rank = rank
            results[rank] = work(rank)

        threads = [threading.Thread(target=start, args=(rank, )) for rank in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return results


def over(values: Tensor) -> list[int]:
    return [i for i in range(values.ndim) if i != 1]


def shaped(vector: Tensor, like: Tensor) -> Tensor:
    return vector.view(1, -1, *[1] * (like.ndim - 2))


@pytest.fixture
def cuda_ops(monkeypatch: pytest.MonkeyPatch) -> None:
    """The five operators of SyncBN, which torch has for CUDA only, by their definitions."""

    def stats(x, eps):
        return x.mean(over(x)), (x.var(over(x), correction=0) + eps).rsqrt()

    def gather(x, means, invstds, running_mean, running_var, momentum, eps, counts):
        shares = (counts / counts.sum())[:, None]
        mean = (shares * means).sum(0)
        var = (shares * (invstds**-2 - eps + (means - mean)**2)).sum(0)
        running_mean.lerp_(mean, momentum)
        running_var.lerp_(var * counts.sum() / (counts.sum() - 1), momentum)
        return mean, (var + eps).rsqrt()

    def normalise(x, weight, bias, mean, invstd, eps):
        return (x - shaped(mean, x)) * shaped(invstd * weight, x) + shaped(bias, x)

    def reduce(grad, x, mean, invstd, weight, *wanted):
        centred = (grad * (x - shaped(mean, x))).sum(over(x))
        return grad.sum(over(x)), centred, centred * invstd, grad.sum(over(x))

    def gradient(grad, x, mean, invstd, weight, sum_dy, sum_dy_xmu, counts):
        n = counts.sum()
        return shaped(invstd * weight, x) * (
            grad - shaped(sum_dy / n, x)
            - (x - shaped(mean, x)) * shaped(invstd**2 * sum_dy_xmu / n, x))

    for name, op in dict(batch_norm_stats=stats, batch_norm_gather_stats_with_counts=gather,
                         batch_norm_elemt=normalise, batch_norm_backward_reduce=reduce,
                         batch_norm_backward_elemt=gradient).items():
        monkeypatch.setattr(torch, name, op)


@pytest.mark.parametrize('shape, rows', [((3, 4, 5), (4, 4)), ((3, 4, 5), (4, 2)), ((3, ), (5, 5))])
def test_it_is_torchs_and_bn_on_the_joint_batch(monkeypatch, cuda_ops, shape, rows):
    ranks = Ranks(monkeypatch)
    xs = [3 * torch.randn(n, *shape) + rank for rank, n in enumerate(rows)]
    if len(shape) == 3:
        xs[1] = xs[1].contiguous(memory_format=torch.channels_last)
    grads = [torch.randn(x.shape) for x in xs]

    def step(function):
        layers = [nn.BatchNorm1d(3) for _ in rows]

        def work(rank: int) -> tuple:
            layer, x = layers[rank], xs[rank].clone().requires_grad_()
            with torch.no_grad():
                layer.weight.copy_(torch.tensor([0.5, 2, -1]))
                layer.bias.copy_(torch.tensor([1., 0, -3]))
            out = function.apply(x, layer.weight, layer.bias, layer.running_mean, layer.running_var,
                                 1e-5, 0.1, ranks, 2)
            out.backward(grads[rank])
            return (out, x.grad, layer.weight.grad, layer.bias.grad, layer.running_mean,
                    layer.running_var)

        return ranks.run(work), layers

    (ours, layers), (theirs, _) = step(_Normalise), step(_functions.SyncBatchNorm)
    for mine, other in zip(ours, theirs, strict=True):
        for a, b in zip(mine, other, strict=True):
            assert torch.equal(a, b)

    joint = nn.BatchNorm2d(3) if len(shape) == 3 else nn.BatchNorm1d(3)
    joint.load_state_dict({**layers[0].state_dict(), **nn.BatchNorm1d(3).state_dict(),
                           'weight': layers[0].weight, 'bias': layers[0].bias})
    x = torch.cat(xs).requires_grad_()
    out = joint(x)
    out.backward(torch.cat(grads))
    torch.testing.assert_close(torch.cat([ours[0][0], ours[1][0]]), out, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(torch.cat([ours[0][1], ours[1][1]]), x.grad, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(ours[0][2] + ours[1][2], joint.weight.grad, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(ours[0][4], joint.running_mean)
    torch.testing.assert_close(ours[1][5], joint.running_var)


def test_the_host_waits_in_torchs_and_not_in_this(monkeypatch, cuda_ops):

    def gather(out: Tensor, tensor: Tensor, *args: object, **kwargs: object) -> None:
        out.view(-1).copy_(tensor.repeat(2))
        watched.host.pop(out, None)  # what the device has written is on the device

    for name in ('all_gather_into_tensor', 'all_gather_single'):  # torch's own: the latter from 2.14 on
        monkeypatch.setattr(torch.distributed, name, gather, raising=False)
    monkeypatch.setattr(torch.distributed, 'all_reduce', lambda tensor, *args, **kwargs: None)

    class Group:
        _get_backend_name = staticmethod(lambda: 'nccl')

    found = {}
    for function in (_Normalise, _functions.SyncBatchNorm):
        x, layer = torch.rand(4, 3, requires_grad=True), nn.BatchNorm1d(3)
        with syncs.HostSyncs([]) as watched:
            function.apply(x, layer.weight, layer.bias, layer.running_mean, layer.running_var, 1e-5,
                           0.1, Group(), 2).sum().backward()
        found[function] = watched.found
    assert found[_Normalise] == [] and len(found[_functions.SyncBatchNorm]) == 3


def test_layers_are_changed_in_place():
    built = build_norm_layer(dict(type='SyncBN'), 3)[1]  # what configs name is a class that inherits
    model = nn.Sequential(built, nn.Sequential(nn.SyncBatchNorm(3), nn.BatchNorm2d(3)))
    before, weight = list(model.state_dict()), model[0].weight
    assert drop_empty_check(model) == 2 and drop_empty_check(model) == 0
    assert type(model[0]) is type(model[1][0]) is NonEmptySyncBN and type(model[1][1]) is nn.BatchNorm2d
    assert list(model.state_dict()) == before and model[0].weight is weight
    x = torch.rand(4, 3, 2, 2)
    torch.testing.assert_close(model[0](x), nn.BatchNorm2d(3)(x))  # as torch's outside of a GPU run
