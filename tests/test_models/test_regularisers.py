"""The terms against collapse: values computed by hand, VICReg's formulas, another library's numbers."""
import json
import math
from pathlib import Path

import pytest
import torch
from mmselfsup.registry import MODELS
from torch.nn import functional as F

from projects.soco.models.regularisers import VarianceCovariance


def of(values, **weights) -> float:
    return float(VarianceCovariance(**weights)(torch.as_tensor(values, dtype=torch.float32)))


def test_by_hand():
    together = [[1., 1.], [-1., -1.]]  # variances and covariance 2
    assert of(together) == pytest.approx(0.16 * (2**2 + 2**2) / 2)
    apart = [[0.5, 0.], [-0.5, 0.], [0., 0.5], [0., -0.5]]  # variances 1/6, no covariance
    assert of(apart) == pytest.approx(1 - math.sqrt(1 / 6 + 1e-4))
    assert of(apart, variance_weight=3) == pytest.approx(3 * (1 - math.sqrt(1 / 6 + 1e-4)))
    assert of([[5., 5.]] * 3) == pytest.approx(1 - 0.01)  # all equal: the hinge is all that is left
    assert of([[3., 0.], [-3., 0.], [0., 3.], [0., -3.]]) == 0


def test_is_vicregs():
    """The formulas of the paper's code, with statistics of torch, in float64."""
    z = torch.randn(40, 6, generator=torch.Generator().manual_seed(0)).double() * 0.7
    z[:, 1] += z[:, 0]
    z.requires_grad_()
    covariance = z.T.cov()
    expected = 2 * F.relu(1 - (z.var(dim=0) + 1e-4).sqrt()).mean() + 0.5 * (
        covariance - covariance.diagonal().diag()).pow(2).sum() / 6
    mine = z.detach().float().requires_grad_()
    found = VarianceCovariance(2, 0.5)(mine)
    assert float(found) == pytest.approx(float(expected), rel=1e-5)
    found.backward()
    expected.backward()
    torch.testing.assert_close(mine.grad.double(), z.grad, rtol=1e-4, atol=1e-6)


LIGHTLY = json.loads((Path(__file__).parents[1] / 'data' / 'vicreg_lightly.json').read_text())


@pytest.mark.parametrize('case', LIGHTLY['cases'])
def test_agrees_with_lightly(case):
    """The file says how its numbers were made with `lightly.loss.VICRegLoss`."""
    i, j = torch.meshgrid(torch.arange(case['n']).double(), torch.arange(case['dimensions']).double(),
                          indexing='ij')
    z = case['scale'] * torch.sin((i + 1) * (j + 2)) + 0.3 * torch.cos(i + 1)
    z = z.float().requires_grad_()
    loss = VarianceCovariance(case['variance_weight'], case['covariance_weight'])(z)
    loss.backward()
    assert loss.item() == pytest.approx(case['loss'], rel=2e-5, abs=1e-6)
    assert z.grad[1].tolist() == pytest.approx(case['gradient'], rel=1e-3, abs=1e-5)
    assert float(z.grad.norm()) == pytest.approx(case['gradient_norm'], rel=1e-4, abs=1e-6)


def test_is_computed_in_float32_under_autocast():
    z = torch.randn(32, 8, generator=torch.Generator().manual_seed(0))
    with torch.autocast('cpu', torch.bfloat16):
        assert VarianceCovariance()(z) == VarianceCovariance()(z.clone())
        half = VarianceCovariance()(z.bfloat16())
    assert half.dtype == torch.float32 and of(z) == float(VarianceCovariance()(z))
    assert half == VarianceCovariance()(z.bfloat16().float())


def test_descent_turns_one_direction_into_many():
    from projects.soco.evaluation.rank import effective_rank
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(64, 1, generator=generator) * torch.randn(1, 8, generator=generator)
    z = (z + 0.01 * torch.randn(64, 8, generator=generator)).requires_grad_()
    assert effective_rank(z.detach()) < 1.1
    optimizer = torch.optim.Adam([z], lr=0.05)
    for _ in range(200):
        optimizer.zero_grad()
        VarianceCovariance()(z).backward()
        optimizer.step()
    assert effective_rank(z.detach()) > 6


@pytest.mark.parametrize('weight', ['variance_weight', 'covariance_weight'])
def test_negative_weights_are_refused(weight):
    with pytest.raises(ValueError, match='at least 0, not'):
        MODELS.build(dict(type='VarianceCovariance', **{weight: -1}))
