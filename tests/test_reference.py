"""The reference implementation against numbers from the official code."""
import json
import math
from pathlib import Path

import pytest
import torch
from torch import Tensor

import reference

PARITY = Path(__file__).parent / 'data' / 'parity'
SMALL = dict(fpn_channels=16, head_channels=16, fc_channels=32, hidden=24, projection=16)


def built(name: str) -> tuple[dict, reference.SoCo]:
    data = reference.load_parity(PARITY / f'{name}.json')
    return data, reference.fill(reference.build(data['kind'], data['arch']), data['seed'])


@pytest.fixture(scope='module')
def fpn() -> tuple[dict, reference.SoCo]:
    return built('fpn_r18')


@pytest.fixture(scope='module')
def c4() -> tuple[dict, reference.SoCo]:
    return built('c4_r50')


def losses_of(data: dict, model: reference.SoCo, mode: str = 'assigned') -> dict[str, Tensor]:
    views = reference.fill_views(data['sizes'], data['batch'], data['seed'])
    return model(views, data['boxes'], mode=mode)


def check_eval(data: dict, model: reference.SoCo, mode: str) -> None:
    model.eval()
    with torch.no_grad():
        losses = losses_of(data, model, mode)
    for pair, value in data['pairs'].items():
        want = value.get('loss', data['loss'])          # a C4 file has one pair, so only one loss
        assert losses[f'loss_{pair}'].item() == pytest.approx(want, abs=1e-4)
    assert losses['loss'].item() == pytest.approx(data['loss'], abs=1e-4)


def small_case(kind: str) -> tuple[reference.SoCo, list, Tensor]:
    """Return a narrow model with parity values, views of 224 and 96 px, and boxes on every level."""
    model = reference.fill(reference.build(kind, 'resnet18', **SMALL), seed=3)
    num_views = reference.NUM_VIEWS[kind]
    views = reference.fill_views([224] + [96] * (num_views - 1), batch=2, seed=3)
    gen = torch.Generator().manual_seed(0)
    corner = torch.rand(2, num_views - 1, 2, 4, 2, generator=gen) * 6
    side = torch.tensor([16., 60., 84., 30.]).view(1, 1, 1, 4, 1) + corner
    boxes = torch.cat([corner, corner + side], dim=-1)
    boxes[:, :, 0] *= 2.3                               # view 1 is about 2.3 times as large
    assert set(reference.assign_levels(boxes[:, :, 0].reshape(-1, 4)).tolist()) == {0, 1, 2, 3}
    return model, views, boxes


@pytest.mark.parametrize('name', ['fpn_r18', 'fpn_star_r18', 'c4_r50'])
def test_keys_are_the_official_ones(name: str) -> None:
    data = json.loads((PARITY / f'{name}.json').read_text())
    with torch.device('meta'):
        state = reference.build(data['kind'], data['arch']).state_dict()
    ours = {k: list(v.shape) for k, v in state.items() if not k.endswith('num_batches_tracked')}
    assert ours == data['keys']


@pytest.mark.parametrize('mode', ['assigned', 'all_levels'])
def test_fpn_parity(fpn: tuple[dict, reference.SoCo], mode: str) -> None:
    check_eval(*fpn, mode)


@pytest.mark.slow
@pytest.mark.parametrize('mode', ['assigned', 'all_levels'])
def test_star_parity(mode: str) -> None:
    check_eval(*built('fpn_star_r18'), mode)


@pytest.mark.slow
@pytest.mark.parametrize('mode', ['assigned', 'all_levels'])
def test_c4_parity(c4: tuple[dict, reference.SoCo], mode: str) -> None:
    check_eval(*c4, mode)


@pytest.mark.slow
def test_c4_parity_in_train_mode(c4: tuple[dict, reference.SoCo]) -> None:
    data, model = c4
    model.train().zero_grad()
    loss = losses_of(data, model)['loss']
    loss.backward()
    assert loss.item() == pytest.approx(data['train_mode']['loss'], abs=1e-4)
    params = dict(model.named_parameters())
    for name, norm in data['train_mode']['grad_norms'].items():
        assert params[name].grad.norm().item() == pytest.approx(norm, rel=1e-3), name
    assert all(p.grad is None for n, p in params.items() if n.split('.')[0].endswith('_k'))


def test_fpn_features_parity(fpn: tuple[dict, reference.SoCo]) -> None:
    data, model = fpn
    view1 = reference.fill_views(data['sizes'][:1], data['batch'], data['seed'])[0]
    with torch.no_grad():
        feats = model.eval().features(view1)
    for feat, want in zip(feats, data['fpn_view1'], strict=True):
        assert list(feat.shape) == want['shape']
        probe = feat.flatten()[::feat.numel() // 8][:8]
        torch.testing.assert_close(probe, torch.tensor(want['probe']), rtol=1e-4, atol=1e-3)
        assert feat.abs().mean().item() == pytest.approx(want['absmean'], rel=1e-4)
        # The mean is a small difference of large numbers, so the tolerance is relative to their size.
        assert feat.mean().item() == pytest.approx(want['mean'], abs=1e-4 * want['absmean'])


@pytest.mark.parametrize('name', ['fpn_r18', 'fpn_star_r18'])
def test_level_assignment_parity(name: str) -> None:
    data = reference.load_parity(PARITY / f'{name}.json')
    for p, pair in enumerate(sorted(data['pairs'])):
        for side in (0, 1):
            levels = reference.assign_levels(data['boxes'][:, p, side].reshape(-1, 4))
            want = torch.tensor(data['pairs'][pair][f'levels{side + 1}']).flatten()
            assert torch.equal(levels, want), (pair, side)


def test_level_borders_belong_to_the_lower_level() -> None:
    sides = torch.tensor([48., 48.1, 96., 96.1, 192., 192.1, 224.])
    boxes = torch.stack([torch.zeros(7), torch.zeros(7), sides, sides], dim=1)
    assert reference.assign_levels(boxes).tolist() == [0, 1, 1, 2, 2, 3, 3]


@pytest.mark.parametrize('kind', sorted(reference.NUM_VIEWS))
def test_both_modes_agree_in_eval_mode(kind: str) -> None:
    model, views, boxes = small_case(kind)
    model.eval()
    assigned = model(views, boxes)
    every = model(views, boxes, mode='all_levels')
    assert set(assigned) == {f'loss_1{v}' for v in range(2, len(views) + 1)} | {'loss'}
    for name, value in assigned.items():
        torch.testing.assert_close(value, every[name], rtol=0, atol=1e-5)
    assert assigned['loss'].item() == pytest.approx(
        sum(v.item() for k, v in assigned.items() if k != 'loss'), abs=1e-6)


def test_modes_differ_only_through_the_roi_branch_statistics() -> None:
    model, views, boxes = small_case('SoCo_FPN')
    model.train()
    assigned, every = (model(views, boxes, mode=m)['loss'] for m in ('assigned', 'all_levels'))
    assert abs(assigned - every) > 1e-3
    for name in ('head', 'projector', 'predictor', 'head_k', 'projector_k'):
        getattr(model, name).eval()
    assigned, every = (model(views, boxes, mode=m)['loss'] for m in ('assigned', 'all_levels'))
    torch.testing.assert_close(assigned, every, rtol=0, atol=1e-5)


def test_target_uses_its_own_batch_statistics_and_gets_no_gradient() -> None:
    model, views, boxes = small_case('SoCo_FPN')
    before = model.head_k.bn1.running_mean.clone()
    model.train()(views, boxes)['loss'].backward()
    assert not torch.equal(model.head_k.bn1.running_mean, before)
    for name, p in model.named_parameters():
        assert (p.grad is None) == name.split('.')[0].endswith('_k'), name


def test_loss_of_hand_computed_features() -> None:
    pred_a, proj_b = torch.tensor([[1., 0.], [3., 4.]]), torch.tensor([[2., 0.], [4., 3.]])
    pred_b, proj_a = torch.tensor([[0., 1.], [1., 1.]]), torch.tensor([[1., 0.], [-1., -1.]])
    # cosines 1 and 24/25, then 0 and -1
    want = -2 * (1 + 24 / 25) / 2 - 2 * (0 - 1) / 2
    loss = reference.cosine_loss(pred_a, proj_b, pred_b, proj_a)
    assert loss.item() == pytest.approx(want, abs=1e-6)
    assert reference.cosine_loss(pred_a, pred_a, pred_b, pred_b).item() == pytest.approx(-4)


def test_target_update_moves_parameters_only() -> None:
    model = reference.build('SoCo_FPN', 'resnet18', **SMALL)
    with torch.no_grad():
        model.projector.linear1.bias.fill_(1.)
        model.projector_k.linear1.bias.fill_(3.)
        model.projector.bn1.running_mean.fill_(7.)
    model.update_target(0.75)
    assert torch.equal(model.projector_k.linear1.bias, torch.full((24,), 2.5))
    assert torch.equal(model.projector_k.bn1.running_mean, torch.zeros(24))


def test_lars_parity() -> None:
    spec = json.loads((PARITY / 'optimisation.json').read_text())['lars']
    seed, shapes = spec['seed'], spec['shapes']
    params = {n: torch.zeros(s) if n == 'zero.weight' else reference.fill_value(n, seed, s)
              for n, s in shapes.items()}
    buffers: dict[str, Tensor] = {}
    for step, want in enumerate(spec['first4_and_norm_after_each_step']):
        grads = {n: reference.fill_value(f'grad{step}:{n}', seed, s) for n, s in shapes.items()}
        reference.lars_step(params, grads, buffers, spec['lr'], spec['momentum'],
                            spec['weight_decay'], spec['trust_coefficient'], spec['eps'])
        for name, values in want.items():
            got = params[name].flatten()[:4].tolist() + [params[name].norm().item()]
            assert got == pytest.approx(values, rel=1e-6, abs=1e-7), (step, name)


def test_learning_rate_parity() -> None:
    spec = json.loads((PARITY / 'optimisation.json').read_text())['lr']
    per_epoch = spec['iters_per_epoch']
    for iteration, want in spec['lr_used_at_iteration'].items():
        got = reference.learning_rate(
            int(iteration), spec['peak_lr'], spec['warmup_epochs'] * per_epoch,
            spec['epochs'] * per_epoch, spec['warmup_multiplier'], spec['eta_min'])
        assert math.isclose(got, want, rel_tol=1e-6), iteration


def test_momentum_parity() -> None:
    spec = json.loads((PARITY / 'optimisation.json').read_text())['momentum']
    for k, want in spec['momentum_at_k'].items():
        got = reference.target_momentum(int(k), spec['total_iters'], spec['base'])
        assert math.isclose(got, want, rel_tol=1e-12), k
