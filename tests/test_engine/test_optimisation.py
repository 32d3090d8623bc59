"""Tests of LARS, learning rate and momentum against the official numbers."""
import json
from types import SimpleNamespace

import pytest
import torch
from mmengine.hooks import Hook, LoggerHook, RuntimeInfoHook
from mmengine.logging import MessageHub
from mmengine.optim import OptimWrapper
from mmengine.registry import PARAM_SCHEDULERS
from small import ROOT
from syncs import HostSyncs

import reference
from projects.soco.engine import DeferredInfoHook, MomentumUpdateHook, SoCoLARS, cosine_momentum

OFFICIAL = json.loads((ROOT / 'tests/data/parity/optimisation.json').read_text())


def parity_params() -> dict[str, torch.nn.Parameter]:
    spec = OFFICIAL['lars']
    params = {name: torch.nn.Parameter(reference.fill_value(name, spec['seed'], shape))
              for name, shape in spec['shapes'].items()}
    params['zero.weight'].data.zero_()
    return params


def test_lars_takes_the_official_steps():
    spec, params = OFFICIAL['lars'], parity_params()
    optimizer = SoCoLARS(params.values(), lr=spec['lr'], momentum=spec['momentum'],
                         weight_decay=spec['weight_decay'],
                         trust_coefficient=spec['trust_coefficient'], eps=spec['eps'])
    for step, expected in enumerate(spec['first4_and_norm_after_each_step']):
        for name, param in params.items():
            param.grad = reference.fill_value(f'grad{step}:{name}', spec['seed'], param.shape)
        optimizer.step()
        for name, values in expected.items():
            ours = [*params[name].flatten()[:4].tolist(), float(params[name].detach().norm())]
            assert ours == pytest.approx(values, rel=1e-6, abs=1e-7), (step, name)


def test_lars_passes_over_what_has_no_gradient_and_keeps_gradients():
    params = parity_params()
    optimizer = SoCoLARS(params.values(), lr=1.0)
    before = params['fc.weight'].detach().clone()
    params['conv.weight'].grad = grad = torch.ones_like(params['conv.weight'])
    optimizer.step()
    assert torch.equal(params['fc.weight'], before)
    assert (grad == 1).all()
    assert len(optimizer.state) == 1


def test_lars_goes_on_in_another_memory_format():
    start, grads = torch.randn(4, 3, 3, 3), torch.randn(3, 4, 3, 3, 3)
    params = [torch.nn.Parameter(start.clone()) for _ in range(2)]
    optimizers = [SoCoLARS([param], lr=0.5) for param in params]
    for step, grad in enumerate(grads):
        for param, optimizer in zip(params, optimizers):
            param.grad = torch.empty_like(param).copy_(grad)
            optimizer.step()
        if step == 0:
            params[1].data = params[1].data.to(memory_format=torch.channels_last)
    assert params[1].stride() != params[0].stride()
    torch.testing.assert_close(params[1], params[0], atol=1e-7, rtol=1e-6, check_stride=False)


def test_lars_under_a_gradient_scaler_takes_the_same_steps_and_waits_for_nothing():
    exact, scaled = parity_params(), parity_params()
    optimizers = [SoCoLARS(params.values(), lr=0.7) for params in (exact, scaled)]
    scaler = torch.amp.GradScaler('cpu', init_scale=2.0**10)
    with HostSyncs([]) as syncs:
        for step in range(4):
            factors = {name: reference.fill_value(f'grad{step}:{name}', 1, p.shape)
                       for name, p in exact.items()}
            if step == 1:
                factors['conv.weight'][0] = float('inf')
            for params in (exact, scaled):
                for p in params.values():
                    p.grad = None
            loss = sum((factors[name] * p).sum() for name, p in scaled.items())
            scaler.scale(loss).backward()
            scaler.step(optimizers[1])
            scaler.update()
            if step != 1:  # the scaled optimizer has to skip this step
                sum((factors[name] * p).sum() for name, p in exact.items()).backward()
                optimizers[0].step()
    assert syncs.found == []
    assert scaler.get_scale() == 2.0**9
    for name, param in scaled.items():
        assert torch.isfinite(param).all()
        torch.testing.assert_close(param, exact[name], rtol=1e-6, atol=1e-7)
        for key, value in optimizers[1].state[param].items():
            torch.testing.assert_close(value, optimizers[0].state[exact[name]][key])


def test_lars_refuses_settings_that_make_no_sense():
    with pytest.raises(ValueError, match='momentum=1.5'):
        SoCoLARS([torch.nn.Parameter(torch.ones(1))], lr=1.0, momentum=1.5)


def test_learning_rates_are_the_official_ones():
    spec = OFFICIAL['lr']
    optimizer = SoCoLARS([torch.nn.Parameter(torch.ones(1))], lr=spec['peak_lr'])
    wrapper = OptimWrapper(optimizer)
    share, total = spec['warmup_epochs'] / spec['epochs'], spec['epochs'] * spec['iters_per_epoch']
    schedulers = [
        PARAM_SCHEDULERS.build(config, default_args=dict(optimizer=wrapper, end=total)) for config in (
            dict(type='WarmupLR', start_factor=1 / spec['warmup_multiplier'], share=share),
            dict(type='CosineLR', eta_min=spec['eta_min'], begin=share))]
    used = []
    for _ in range(total):
        used.append(optimizer.param_groups[0]['lr'])
        for scheduler in schedulers:
            scheduler.step()
    for iteration, rate in spec['lr_used_at_iteration'].items():
        assert used[int(iteration)] == pytest.approx(rate, rel=1e-6), iteration


@pytest.mark.parametrize('end', [1, 2, 3, 7, 40, 1000])
def test_schedules_are_shares_of_a_run_of_any_length(end):
    """Warm-up and cosine together are the closed form, whatever the length."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=1.0)
    schedulers = [PARAM_SCHEDULERS.build(config, default_args=dict(optimizer=optimizer, end=end))
                  for config in (dict(type='WarmupLR', start_factor=0.1, share=0.1),
                                 dict(type='CosineLR', eta_min=0., begin=0.1))]
    used = []
    for _ in range(end):
        used.append(optimizer.param_groups[0]['lr'])
        optimizer.step()
        for scheduler in schedulers:
            scheduler.step()
    warm_up = max(1, round(0.1 * end))
    assert used == pytest.approx([
        reference.learning_rate(i, 1.0, warm_up, end, multiplier=10, eta_min=0) for i in range(end)])


def test_steps_are_shares_of_the_run():
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=1.0)
    scheduler = PARAM_SCHEDULERS.build(dict(type='StepsLR', shares=[6 / 9, 8 / 9]),
                                       default_args=dict(optimizer=optimizer, end=90))
    used = []
    for _ in range(90):
        used.append(optimizer.param_groups[0]['lr'])
        optimizer.step()
        scheduler.step()
    assert used == pytest.approx([1.0] * 60 + [0.1] * 20 + [0.01] * 10)


@pytest.mark.parametrize('config', [
    dict(type='WarmupLR', share=1.0), dict(type='CosineLR', begin=-0.1),
    dict(type='StepsLR', shares=[8, 11]), dict(type='WarmupLR', share=0.1, by_epoch=True)])
def test_what_is_no_share_is_refused(config):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=1.0)
    with pytest.raises(ValueError, match='as a share of the run'):
        PARAM_SCHEDULERS.build(config, default_args=dict(optimizer=optimizer, end=10))


def test_momentum_is_the_official_one():
    spec = OFFICIAL['momentum']
    for k, value in spec['momentum_at_k'].items():
        assert cosine_momentum(spec['base'], int(k), spec['total_iters']) == pytest.approx(
            value, rel=1e-9)


class Target(torch.nn.Module):
    """A model that records the momentum that the hook applies."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = []

    def momentum_update(self, momentum: float) -> None:
        self.asked.append(momentum)


@pytest.mark.parametrize('per_step', [1, 2, 3])
def test_the_target_moves_once_per_optimizer_step(per_step):
    model, logged = Target(), []
    hub = SimpleNamespace(update_scalar=lambda key, value: logged.append((key, value)))
    hook = MomentumUpdateHook(momentum=0.99)
    for iteration in range(12):
        runner = SimpleNamespace(iter=iteration, max_iters=12, model=model, message_hub=hub,
                                 optim_wrapper=SimpleNamespace(_accumulative_counts=per_step))
        hook.before_train_iter(runner, iteration)
    steps = 12 // per_step
    assert model.asked == [cosine_momentum(0.99, k, steps) for k in range(steps)]
    assert logged == [('train/momentum', m) for m in model.asked]
    assert model.asked[0] == pytest.approx(0.99) and model.asked[-1] < 1


def logged(hook: Hook, iterations: int, per_epoch: int, save_after: int) -> tuple[list, dict]:
    """Return the histories at each log, every 4 iterations and at epoch ends, and in a checkpoint."""
    runner = SimpleNamespace(
        hooks=[hook, LoggerHook(interval=4)], train_dataloader=range(per_epoch),
        message_hub=MessageHub(f'{type(hook).__name__}{iterations}'))
    seen, saved = [], {}
    for i in range(iterations):
        outputs = dict(loss=torch.tensor(float(i), requires_grad=True),
                       obj_std=torch.tensor(1 / (i + 1)))
        hook.after_train_iter(runner, i % per_epoch, outputs=outputs)
        if i % per_epoch % 4 == 3 or i % per_epoch == per_epoch - 1:
            seen.append({k: h.data[0].tolist() for k, h in runner.message_hub.log_scalars.items()})
        if i + 1 == save_after:
            checkpoint = dict(message_hub=runner.message_hub.state_dict())
            hook.before_save_checkpoint(runner, checkpoint)
            scalars = checkpoint['message_hub']['log_scalars']
            saved = {k: h.data[0].tolist() for k, h in scalars.items()}
    return seen, saved


@pytest.mark.parametrize('save_after', [4, 7, 10])
def test_deferred_values_are_there_when_they_are_read(save_after):
    seen, saved = logged(DeferredInfoHook(), 13, per_epoch=10, save_after=save_after)
    assert (seen, saved) == logged(RuntimeInfoHook(), 13, per_epoch=10, save_after=save_after)
    assert seen[-1]['train/loss'] == [float(i) for i in range(10)]
    assert len(saved['train/obj_std']) == save_after


def test_nothing_waits_between_two_logs():
    hook = DeferredInfoHook()
    runner = SimpleNamespace(hooks=[hook, LoggerHook(interval=4)], train_dataloader=range(100),
                             message_hub=MessageHub('waits'))
    with HostSyncs([]) as syncs:
        for i in range(3):
            hook.after_train_iter(runner, i, outputs=dict(loss=torch.tensor(1.) + i))
        assert syncs.found == []
        hook.after_train_iter(runner, 3, outputs=dict(loss=torch.ones(()) + 3))
    assert runner.message_hub.get_scalar('train/loss').data[0].tolist() == [1, 2, 3, 4]


def test_momentum_must_be_a_share():
    with pytest.raises(ValueError, match='1.2'):
        MomentumUpdateHook(momentum=1.2)
