"""The benchmarks of scaling and start-up run and report the documented values."""
import argparse
import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from scripts import PYTHON
from small import ROOT, make_photos, make_store

QUICKSTART = 'configs/soco_r18_fpn_quickstart.py'


def run(*command: str) -> subprocess.CompletedProcess:
    return subprocess.run([PYTHON, *command], cwd=ROOT, capture_output=True, text=True,
                          timeout=600)


@pytest.mark.slow(30)
def test_scaling_with_and_without_data(tmp_path: Path):
    make_photos(tmp_path / 'photos', 16)
    store = make_store(tmp_path / 'proposals.arrow', tmp_path / 'photos')
    config = tmp_path / 'narrow.py'
    config.write_text(f"_base_ = '{ROOT / QUICKSTART}'\nmodel = dict(backbone=dict(base_channels=16), "
                      'neck=dict(in_channels=[16, 32, 64, 128]))')
    done = run('tools/benchmark_scaling.py', str(config), '--ranks', '1', '2', '--batch', '2',
               '--steps', '1', '--rounds', '1', '--images', str(tmp_path / 'photos'), '--proposals',
               str(store), '--device', 'cpu', '--json', str(tmp_path / 'out.json'))
    assert done.returncode == 0, done.stderr[-2000:]
    one, two = json.loads((tmp_path / 'out.json').read_text())['figures']
    assert (one['processes'], two['processes']) == (1, 2)
    assert one['step_efficiency'] == one['data_efficiency'] == 1 and one['communication'] == 0
    assert two['step_rate'] == pytest.approx(2 * 2 / two['seconds']['step'])
    assert two['step_efficiency'] == pytest.approx(two['step_rate'] / 2 / one['step_rate'])
    assert 0 <= two['communication'] < 1 and 'efficiency' in done.stdout


def test_inputs_stay_where_training_leaves_them(monkeypatch: pytest.MonkeyPatch):
    """With device ids, DDP would move the boxes to the GPU, which then waits for each step."""
    from projects.soco.launch.configs import load_config
    spec = importlib.util.spec_from_file_location('tool', ROOT / 'tools/benchmark_scaling.py')
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    found = {}

    class Wrapper:
        def __init__(self, module: torch.nn.Module, device_ids: object = 'all', **options: object):
            found.update(device_ids=device_ids, **options)

    monkeypatch.setattr('mmengine.model.MMDistributedDataParallel', Wrapper)
    monkeypatch.setattr(torch.nn.Module, 'to', lambda self, *a, **k: self)  # no GPU is needed
    monkeypatch.chdir(ROOT)
    tool.Trainer(argparse.Namespace(config=QUICKSTART, device='cuda'), world=2)
    theirs = load_config('configs/soco_r50_fpn_400e.py', {}).model_wrapper_cfg
    assert found == dict(device_ids=None, broadcast_buffers=False) == {
        key: theirs[key] for key in found}


@pytest.mark.slow
@pytest.mark.parametrize('arguments, message', [
    (('--images', 'x'), 'belong together'), (('--ranks', '0'), 'at least 1'),
    (('--batch', '1'), 'at least 2')])
def test_scaling_refuses(arguments, message):
    done = run('tools/benchmark_scaling.py', QUICKSTART, '--device', 'cpu', *arguments)
    assert done.returncode == 2 and message in ' '.join(done.stderr.split())


def test_the_generator_starts_without_torch():
    code = ('import runpy, sys\nsys.argv = ["generate_proposals.py", "--help"]\n'
            'try:\n    runpy.run_path("tools/generate_proposals.py", run_name="__main__")\n'
            'except SystemExit:\n    pass\n'
            'assert not {"torch", "mmengine", "numba"} & set(sys.modules)')
    assert subprocess.run([sys.executable, '-c', code], cwd=ROOT).returncode == 0


@pytest.mark.slow
def test_start_up():
    done = run('tools/benchmark_startup.py', '--rounds', '1')
    assert done.returncode == 0, done.stderr[-2000:]
    assert 'to the first iteration' in done.stdout and '--help' in done.stdout


def test_the_check_of_annotations_is_timed():
    done = run('tools/benchmark_startup.py', '--annotations', '20', '50')
    assert done.returncode == 0, done.stderr[-2000:]
    assert 'without iscrowd and area' in done.stdout and 'CPU seconds' in done.stdout
