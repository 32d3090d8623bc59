"""Tests of the hook that keeps a detector in channels_last on a CPU."""
from types import SimpleNamespace

import torch
from torch import nn

from projects.soco.engine import ChannelsLastHook


def network(device: str = 'cpu') -> nn.Module:
    torch.manual_seed(0)
    layers = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 4, 3)
    return nn.Sequential(*layers).to(device)


def test_features_follow_the_weights_and_the_step_is_the_same():
    plain, last = network(), network()
    ChannelsLastHook().before_run(SimpleNamespace(model=last))
    inputs = torch.randn(2, 3, 9, 7)
    ours, theirs = last(inputs), plain(inputs)
    assert ours.is_contiguous(memory_format=torch.channels_last) and not ours.is_contiguous()
    torch.testing.assert_close(ours, theirs)
    for model, out in ((last, ours), (plain, theirs)):
        out.square().sum().backward()
        torch.optim.SGD(model.parameters(), lr=0.1).step()
    for a, b in zip(last.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(a, b)


def test_on_another_device_nothing_is_changed():
    model = network('meta')
    ChannelsLastHook().before_run(SimpleNamespace(model=model))
    assert model[0].weight.is_contiguous()
