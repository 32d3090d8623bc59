"""The target of BYOL: MMSelfSup's, without a look at the device."""
import pytest
import syncs
import torch
from mmengine.logging import MessageHub
from mmselfsup.models.utils import CosineEMA
from torch import nn

from projects.soco.models.byol import ForeachCosineEMA


@pytest.fixture
def networks() -> list[nn.Module]:
    """The online network in four iterations."""
    return [nn.Sequential(nn.Conv2d(2, 3, 1), nn.BatchNorm2d(3)) for _ in range(4)]


def test_it_is_mmselfsups(networks):
    hub = MessageHub.get_current_instance()
    hub.update_info('max_iters', 5)
    for network in networks:
        network[1].running_mean.normal_()
    ours, theirs = (kind(networks[0], momentum=0.9) for kind in (ForeachCosineEMA, CosineEMA))
    assert list(ours.state_dict()) == list(theirs.state_dict())
    for i, network in enumerate(networks):
        hub.update_info('iter', i)
        ours.update_parameters(network)
        theirs.update_parameters(network)
        for a, b in zip(ours.state_dict().values(), theirs.state_dict().values(), strict=True):
            torch.testing.assert_close(a, b, atol=1e-7, rtol=1e-6)  # its momentum is in float32
    assert not torch.equal(ours.module[0].weight, networks[-1][0].weight)


def test_the_host_waits_for_mmselfsups_only(networks):
    hub = MessageHub.get_current_instance()
    hub.update_info('max_iters', 5)
    hub.update_info('iter', 1)
    found = {}
    for kind in (ForeachCosineEMA, CosineEMA):
        average = kind(networks[0])
        average.steps += 1
        with syncs.HostSyncs([]) as watched:
            average.update_parameters(networks[1])
        found[kind] = watched.found
    assert found[ForeachCosineEMA] == [] and len(found[CosineEMA]) > len(list(networks[0].parameters()))
