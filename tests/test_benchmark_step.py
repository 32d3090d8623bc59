"""The step benchmark, and the correctness and cost of its reference."""
import argparse
import runpy
import subprocess
import time

import pytest
import torch
from mmengine.config import Config
from official_step import OfficialLARS, OfficialSoCo, build_official, official_contender
from scripts import PYTHON
from small import ROOT
from torch.utils.flop_counter import FlopCounterMode

import reference
from projects.soco.evaluation.cost import made_up_batch
from projects.soco.evaluation.step import Stopwatch, made_up_data, measure_steps, project_contender

SMALL = dict(arch='resnet18', fpn_channels=16, head_channels=12, fc_channels=24, hidden=20,
             projection=8)
RECIPE = ROOT / 'configs/soco_r50_fpn_400e.py'
CPU = torch.device('cpu')


def small_recipe() -> Config:
    """Return the R50-FPN recipe with ResNet-18, narrow layers and small views."""
    cfg = Config.fromfile(RECIPE)
    cfg.model.backbone.depth = 18
    cfg.model.neck.update(in_channels=[64, 128, 256, 512], out_channels=16)
    cfg.model.roi_head.bbox_roi_extractor.update(out_channels=16, level_sizes=(14, 27, 55))
    cfg.model.roi_head.bbox_head.update(in_channels=16, conv_out_channels=12, fc_out_channels=24)
    cfg.model.projector.update(in_channels=24, hid_channels=20, out_channels=8)
    cfg.model.head.predictor.update(in_channels=8, hid_channels=20, out_channels=8)
    cfg.train_dataloader.dataset.pipeline[1].views = [dict(size=s) for s in (64, 64, 48)]
    return cfg


@pytest.mark.parametrize('kind, sizes', [('SoCo_FPN', [160, 160, 96]), ('SoCo_C4', [96, 96]),
                                         ('SoCo_FPN_Star', [128, 128, 96, 64])])
def test_the_reference_step_is_the_reference_on_all_levels(kind: str, sizes: list):
    """Losses and all gradients, with BN using batch statistics."""
    slow = reference.fill(reference.build(kind, **SMALL), seed=3).train()
    official = OfficialSoCo(kind=kind, **SMALL).train()
    official.load_state_dict(slow.state_dict())
    views = reference.fill_views(sizes, 2, seed=3)
    side = torch.linspace(0.15, 1, 2 * (len(sizes) - 1) * 8).view(2, -1, 2, 4, 1)
    boxes = torch.cat([(1 - side) / 2, (1 - side) / 3, (1 + side) / 2, (1 + 2 * side) / 3], dim=-1)
    boxes = boxes * torch.tensor([[sizes[0], size] for size in sizes[1:]]).view(1, -1, 2, 1, 1)
    assert kind == 'SoCo_C4' or set(reference.assign_levels(boxes.reshape(-1, 4)).tolist()) >= {0, 1, 2}

    expected = slow(views, boxes, mode='all_levels')
    expected.pop('loss').backward()
    losses = official.loss(views, boxes)
    sum(losses.values()).backward()
    assert losses.keys() == expected.keys()
    for key, value in losses.items():
        torch.testing.assert_close(value, expected[key], atol=1e-6, rtol=1e-6)
    for (name, ours), theirs in zip(official.named_parameters(), slow.parameters(), strict=True):
        if not theirs.requires_grad:
            assert not ours.requires_grad and ours.grad is None, name
            continue
        # a masked row gives a zero gradient, a row that is not selected gives none
        wanted = torch.zeros_like(ours) if theirs.grad is None else theirs.grad
        assert (ours.grad - wanted).norm() <= 1e-4 * wanted.norm() + 1e-7, name


def test_the_reference_optimiser_takes_the_official_steps():
    torch.manual_seed(1)
    shapes = dict(conv=(4, 3, 3, 3), fc=(5, 4), bias=(5, ), zero=(2, 2))
    ours = {n: torch.nn.Parameter(torch.zeros(s) if n == 'zero' else torch.randn(s))
            for n, s in shapes.items()}
    theirs, buffers = {n: p.detach().clone() for n, p in ours.items()}, {}
    optimizer = OfficialLARS(ours.values(), lr=0.5)
    for _ in range(3):
        grads = {n: torch.randn(s) for n, s in shapes.items()}
        for name, param in ours.items():
            param.grad = grads[name].clone()
        optimizer.step()
        reference.lars_step(theirs, grads, buffers, lr=0.5)
    for name, param in ours.items():
        torch.testing.assert_close(param.detach(), theirs[name], atol=1e-7, rtol=1e-6)


@pytest.mark.slow
def test_the_reference_takes_194_gflop():
    cfg = Config.fromfile(RECIPE)
    views, boxes = made_up_batch(cfg, 2)
    model = build_official(cfg).train()
    with FlopCounterMode(display=False) as counter:
        sum(model.loss(views, boxes).values()).backward()
    assert counter.get_total_flops() / 2 / 1e9 == pytest.approx(194, abs=1)


def test_a_config_without_a_reference_is_refused():
    with pytest.raises(ValueError, match='LARS'):
        official_contender(Config.fromfile(ROOT / 'configs/soco_r18_fpn_quickstart.py'), CPU, 'no')
    cfg = small_recipe()
    cfg.model.neck = None
    with pytest.raises(ValueError, match='SoCo-FPN'):
        build_official(cfg)


def test_a_stage_is_timed_without_the_stages_inside_it():

    class Work:

        def outer(self):
            time.sleep(0.02)
            self.inner()

        def inner(self):
            time.sleep(0.05)

    work, stopwatch = Work(), Stopwatch(CPU)
    stopwatch.watch(work, 'outer', 'out')
    stopwatch.watch(work, 'inner', 'in')
    work.outer()  # outside a measurement nothing is recorded
    taken = stopwatch.measure(lambda: (work.outer(), work.inner(), time.sleep(0.03)))
    assert taken.keys() == {'', 'out', 'in'}
    assert 18 < taken['out'] < 45 and 98 < taken['in'] < 150 and 28 < taken[''] < 60


@pytest.mark.parametrize('amp', ['no', 'bf16'])
def test_steps_of_both_are_timed_in_turn(amp: str):
    cfg = small_recipe()
    contenders = {}

    def build(name, make):
        contenders[name] = make(cfg, CPU, amp)
        return contenders[name]

    found = measure_steps(
        {'ours': lambda: build('ours', project_contender),
         'theirs': lambda: build('theirs', official_contender)},
        made_up_data(cfg, 2), CPU, steps=1)
    assert list(found) == ['ours', 'theirs']
    stages = {'', 'preprocessor', 'backbone', 'neck', 'roi_head', 'projector', 'loss', 'backward',
              'optimiser', 'EMA'}
    for timing in found.values():
        assert timing.stages.keys() == stages and timing.syncs is None
        assert all(value > 0 for value in timing.stages.values())
        assert sum(timing.stages.values()) == pytest.approx(timing.step, rel=1e-9)
        assert timing.stages[''] < 0.3 * timing.step  # time outside all stages
        assert timing.memory > 0
    assert found['theirs'].gflop > 1.02 * found['ours'].gflop
    for contender in contenders.values():  # real training steps were run
        weights = [p for p in contender.model.parameters() if p.requires_grad]
        assert all(torch.isfinite(p).all() for p in weights)
        assert len(contender.optim_wrapper.optimizer.state) == len(weights)


def test_a_batch_of_one_is_refused():
    wrong = subprocess.run([PYTHON, ROOT / 'tools/benchmark_step.py', '--batch', '1'],
                           capture_output=True, text=True, cwd=ROOT)
    assert wrong.returncode == 2 and '--batch' in wrong.stderr


def test_each_contender_computes_the_levels_of_its_own_config():
    """All contenders get the batch of the first one."""
    first, other = (Config.fromfile(RECIPE.with_name(name)) for name in (
        'soco_r50_fpn_400e.py', 'soco_r50_fpn_without_p2_400e.py'))
    data = made_up_data(first, 2)
    for cfg, levels in ((first, [0, 0, 0]), (other, [1, 1, 0])):
        contender = project_contender(cfg, CPU, 'no')
        assert contender.prepare(data)['finest_levels'] == levels


def test_both_memory_formats_of_each_config_are_timed(monkeypatch: pytest.MonkeyPatch):
    tool = runpy.run_path(str(ROOT / 'tools/benchmark_step.py'))
    made = []
    monkeypatch.setattr('projects.soco.evaluation.step.project_contender',
                        lambda cfg, device, amp, last, compiled: made.append((cfg, last)))
    args = argparse.Namespace(amp='no', channels_last='both', compile=False, reference=False)
    builders = tool['gather_builders'](args, dict(a=1, b=2), CPU)
    for build in builders.values():
        build()
    assert list(builders) == ['a', 'a, channels_last', 'b', 'b, channels_last']
    assert made == [(1, False), (1, True), (2, False), (2, True)]
