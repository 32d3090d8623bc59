"""Tests of half precision on any device."""
import pytest
import torch
from mmengine.model import BaseModel
from mmengine.optim import build_optim_wrapper
from torch import nn

from projects.soco.engine import AutocastOptimWrapper


class Model(BaseModel):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 2)

    def forward(self, inputs: torch.Tensor, mode: str = 'loss') -> dict:
        out = self.layer(inputs)
        self.seen = out.dtype
        return dict(loss=out.float().square().mean())


@pytest.fixture
def model(device: torch.device) -> Model:
    return Model().to(device)


def test_forward_is_half_and_weights_are_not(model: Model, device: torch.device):
    wrapper = build_optim_wrapper(model, dict(
        type='AutocastOptimWrapper', optimizer=dict(type='SGD', lr=0.1)))
    assert isinstance(wrapper, AutocastOptimWrapper)
    before = model.layer.weight.detach().clone()
    inputs = torch.randn(3, 4, device=device)
    with wrapper.optim_context(model):
        losses = model(inputs)
    assert model.seen == torch.bfloat16
    wrapper.update_params(losses['loss'])
    assert model.layer.weight.dtype == torch.float32 and not torch.equal(model.layer.weight, before)
    model(inputs)
    assert model.seen == torch.float32  # only inside the context


def test_steps_are_nearly_those_of_full_precision(model: Model, device: torch.device):
    inputs, weights = torch.randn(8, 4, device=device), []
    start = {key: value.clone() for key, value in model.state_dict().items()}
    for kind in ('OptimWrapper', 'AutocastOptimWrapper'):
        model.load_state_dict(start)
        wrapper = build_optim_wrapper(model, dict(type=kind, optimizer=dict(type='SGD', lr=0.1)))
        with wrapper.optim_context(model):
            losses = model(inputs)
        wrapper.update_params(losses['loss'])
        weights.append(model.layer.weight.detach().clone())
    assert not torch.equal(*weights)
    torch.testing.assert_close(*weights, atol=2e-2, rtol=0)
