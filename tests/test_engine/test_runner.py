"""The log of a run begins with what a person reads; the rest is in its details.txt."""
import os
import warnings
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.logging import print_log
from mmengine.runner import Runner
from small import tiny_config

from projects.soco.engine.runner import DETAILS, SummaryRunner

PARTS = ('task', 'model', 'data', 'length', 'optimiser', 'weights', 'device', 'output', 'details')


@pytest.fixture(scope='module')
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the work directory of a run."""
    folder = tmp_path_factory.mktemp('My photos, 2024')
    cfg = tiny_config(folder, photos=8, log_level='INFO', train_cfg__max_epochs=1,
                      default_hooks__logger__interval=1, optim_wrapper__accumulative_counts=2)
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        SummaryRunner.from_cfg(cfg).train()
    return Path(cfg.work_dir)


def read_one(work_dir: Path, pattern: str) -> str:
    path, = work_dir.glob(pattern)
    return path.read_text()


def test_a_summary_comes_first(trained: Path):
    lines = read_one(trained, '*/*.log').splitlines()
    first = next(i for i, line in enumerate(lines) if 'Epoch(train)' in line)
    assert lines[0].endswith('summary') and first <= 15
    told = {line.split()[0]: line.strip().partition(' ')[2].strip() for line in lines[1:len(PARTS) + 1]}
    assert tuple(told) == PARTS
    assert told['model'].startswith('SoCo, mmdet.ResNet-18, SoCoFPN; ')
    assert told['data'] == (f'8 images: {trained.parent}/photos, proposals '
                            f'{trained.parent}/proposals.arrow')
    assert told['length'] == ('epochs: 1, iterations: 4, optimizer steps: 2, batch: 4 (2 per process × '
                              '2 accumulated)')
    assert told['optimiser'] == 'AdamW, learning rate 0.001, OptimWrapper'
    assert told['weights'] == 'random initialisation' and told['device'].endswith('1 process')
    assert str(trained) in told['output'] and DETAILS in told['details']


def test_environment_hooks_and_initialisation_are_in_the_details(trained: Path):
    text = read_one(trained, f'*/{DETAILS}')
    for part in ('System environment', 'PyTorch:', 'seed: 0', 'Hooks will be executed', 'Config:',
                 'backbone.conv1.weight - torch.Size'):
        assert part in text, part
    assert list(trained.glob('*.py')) and list(trained.glob('*/vis_data/config.py'))


@pytest.mark.parametrize(('given', 'evaluates', 'expected'), [
    ({}, True, 7200), ({}, False, None), (dict(timeout=60), True, 60)])
def test_ranks_wait_for_the_one_that_evaluates(given: dict, evaluates: bool, expected: int | None,
                                               monkeypatch: pytest.MonkeyPatch):
    """NCCL ends ranks that wait for ten minutes; LVIS takes longer."""
    asked = []
    monkeypatch.setattr('mmengine.runner.runner.init_dist',
                        lambda launcher, **kwargs: asked.append((launcher, kwargs)))
    monkeypatch.setattr('mmengine.runner.runner.set_multi_processing', lambda **kwargs: None)
    runner = SummaryRunner.__new__(SummaryRunner)
    runner._launcher, runner._distributed = 'pytorch', True
    runner.cfg = Config(dict(val_evaluator=dict(type='LVISMetric')) if evaluates else dict())
    runner.setup_env(dict(dist_cfg=dict(backend='nccl', **given)))
    timeout = {} if expected is None else dict(timeout=expected)
    assert asked == [('pytorch', dict(backend='nccl', **timeout))]


def test_determinism_needs_a_variable_for_cublas(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr('mmengine.runner.runner.set_multi_processing', lambda **kwargs: None)
    monkeypatch.setenv('CUBLAS_WORKSPACE_CONFIG', '')  # so that it is taken back
    for deterministic in (False, True):
        monkeypatch.delenv('CUBLAS_WORKSPACE_CONFIG', raising=False)
        runner = SummaryRunner.__new__(SummaryRunner)
        runner._distributed = False
        runner.cfg = Config(dict(randomness=dict(deterministic=deterministic)))
        runner.setup_env({})
        assert ('CUBLAS_WORKSPACE_CONFIG' in os.environ) == deterministic


def test_what_a_run_starts_from_is_told(tmp_path: Path, trained: Path,
                                        monkeypatch: pytest.MonkeyPatch):
    checkpoint = str(trained / 'epoch_1.pth')
    cfg = tiny_config(tmp_path, photos=4, log_level='INFO', load_from=checkpoint)
    monkeypatch.setattr(Runner, 'call_hook', lambda *args, **kwargs: None)
    runner = SummaryRunner.from_cfg(cfg)
    runner.build_train_loop(runner._train_loop)
    assert f'weights    from {checkpoint}' in read_one(tmp_path / 'work', '*/*.log')
    runner._resume = True
    runner.build_train_loop(runner._train_loop)
    assert f'weights    resumed from {checkpoint}' in read_one(tmp_path / 'work', '*/*.log')


def test_warnings_while_a_runner_is_built_reach_the_log(tmp_path: Path,
                                                        monkeypatch: pytest.MonkeyPatch):
    import logging
    build = Runner.build_model

    def warn(self: Runner, model: dict):
        print_log('only for those who look', 'current')
        print_log('the norm is odd', 'current', logging.WARNING)
        return build(self, model)

    monkeypatch.setattr(Runner, 'build_model', warn)
    SummaryRunner.from_cfg(tiny_config(tmp_path, photos=4, log_level='INFO'))
    log, details = (read_one(tmp_path / 'work', f'*/{name}') for name in ('*.log', DETAILS))
    assert 'the norm is odd' in log and 'the norm is odd' in details
    assert 'only for those who look' in details and 'only for' not in log


@pytest.mark.parametrize('scope, layer', [('mmselfsup', 'NonEmptySyncBN'), ('mmdet', 'SyncBatchNorm')])
def test_sync_bn_in_pretraining_does_not_wait(scope: str, layer: str, monkeypatch: pytest.MonkeyPatch):
    runner = SummaryRunner.__new__(SummaryRunner)
    runner.cfg, runner._distributed = Config(dict(default_scope=scope)), True
    monkeypatch.setattr(Runner, 'wrap_model', lambda self, wrapper, model: model)
    model = runner.wrap_model(None, torch.nn.Sequential(torch.nn.SyncBatchNorm(3)))
    assert type(model[0]).__name__ == layer
