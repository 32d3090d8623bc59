"""Tests of the hook that keeps a detector in channels_last on a CPU."""
from types import SimpleNamespace

import pytest
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


@pytest.mark.parametrize('layer, converted', [
    (nn.Conv2d(16, 8, 1, stride=2), True), (nn.Conv2d(12, 8, 1), True),
    (nn.Conv2d(12, 8, 3, stride=2), True), (nn.Conv2d(12, 8, 1, stride=2), False),
    (nn.Conv2d(32, 32, 1, stride=(2, 1), groups=4), False)])
def test_a_network_with_a_layer_that_would_crash_stays_as_it_is(layer: nn.Module, converted: bool):
    """The weights of a 1 x 1 convolution are in both formats: look at another layer's."""
    model = nn.Sequential(network(), layer)
    ChannelsLastHook().before_run(SimpleNamespace(model=model))
    assert model[0][0].weight.is_contiguous() != converted
