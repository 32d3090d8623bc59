"""What a driver and its cards mean, with a mock nvidia-smi on the PATH."""
import os
import subprocess
import sys
from pathlib import Path

import pytest
from small import ROOT

from projects.soco.launch import driver
from projects.soco.launch.checks import check_devices
from projects.soco.launch.configs import load_config

H100, A100 = 'NVIDIA H100 80GB HBM3, 9.0', 'NVIDIA A100-SXM4-40GB, 8.0'
V100, B200 = 'Tesla V100-SXM2-16GB, 7.0', 'NVIDIA B200, 10.0'


@pytest.fixture
def nvidia_smi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Return a function that puts a program with given answers on the PATH, or none."""
    monkeypatch.delenv('CUDA_VISIBLE_DEVICES', raising=False)

    def put(*cards: str, version: str = '580.65.06', knows: bool = True, fails: str = '') -> None:
        rows = [f'{version}, {card if knows else card.rpartition(",")[0]}' for card in cards]
        lines = ['#!/bin/sh']
        if not knows:
            lines += ['case "$1" in *compute_cap*) echo "Not a valid field to query."; exit 2;; esac']
        lines += [f'echo "{fails}"; exit 9'] if fails else [f'echo "{row}"' for row in rows]
        path = tmp_path / 'nvidia-smi'
        path.write_text('\n'.join(lines) + '\n')
        path.chmod(0o755)

    monkeypatch.setenv('PATH', f'{tmp_path}:/usr/bin:/bin')
    return put


def test_cards_that_fit(nvidia_smi):
    nvidia_smi(H100, H100, A100)
    assert driver.describe(driver.read_driver()) == (
        True, '2 × NVIDIA H100 80GB HBM3, 1 × NVIDIA A100-SXM4-40GB, driver 580.65.06: fits the '
              'wheels of CUDA 13.0.')


@pytest.mark.parametrize(('cards', 'version', 'cuda', 'told'), [
    ([A100], '570.86.10', '13.0', ('too old for the wheels of CUDA 13.0', 'driver 580 or newer',
                                   'wheels of CUDA 12.6', 'SOCO_TORCH_INDEX=ADDRESS')),
    ([A100], '470.82.01', '12.6', ('driver 525 or newer', )),
    ([V100, H100], '580.65.06', '13.0', ('no kernels for Tesla V100-SXM2-16GB (compute capability 7.0)',
                                         'CUDA 12.6')),
    ([B200], '580.65.06', '12.6', ('no kernels for NVIDIA B200 (compute capability 10.0)',
                                   'without SOCO_TORCH_INDEX')),
])
def test_what_does_not_fit_and_the_way_out(cards, version, cuda, told, nvidia_smi):
    nvidia_smi(*cards, version=version)
    fits, text = driver.describe(driver.read_driver(), cuda)
    assert not fits and all(part in text for part in told), text


@pytest.mark.parametrize(('cards', 'version', 'cuda'), [
    ([V100], '535.54.03', '12.6'), ([A100], '525.60.13', '12.8'), ([B200], '570.86.10', '12.8')])
def test_other_wheels_fit(cards, version, cuda, nvidia_smi):
    nvidia_smi(*cards, version=version)
    assert driver.describe(driver.read_driver(), cuda)[0]


def test_a_driver_that_does_not_know_the_capability(nvidia_smi):
    nvidia_smi(V100, version='450.51.06', knows=False)
    found = driver.read_driver()
    assert found == driver.Driver('450.51.06', (('Tesla V100-SXM2-16GB', None), ))
    assert 'too old' in driver.describe(found)[1]


def test_no_driver_a_broken_one_and_hidden_devices(nvidia_smi, monkeypatch):
    monkeypatch.setattr('shutil.which', lambda name: None)
    assert driver.read_driver() is None and 'No NVIDIA driver was found' in driver.why_no_device('13.0')
    monkeypatch.setattr(driver, 'read_driver', lambda: driver.Driver(None, problem='NVML: no match.'))
    assert 'there, but it fails: NVML: no match. The driver' in driver.why_no_device('13.0')
    assert 'built without CUDA' in driver.why_no_device(None)
    monkeypatch.setenv('CUDA_VISIBLE_DEVICES', '')
    assert "CUDA_VISIBLE_DEVICES='' hides all devices" in driver.why_no_device('13.0')


def test_a_program_that_fails(nvidia_smi):
    nvidia_smi(fails="couldn't communicate with the NVIDIA driver.")
    assert driver.read_driver() == driver.Driver(
        None, problem="couldn't communicate with the NVIDIA driver.")


def test_a_run_that_finds_no_device_says_why(nvidia_smi):
    nvidia_smi(A100, version='535.54.03')
    cfg = load_config(str(ROOT / 'configs/soco_r50_fpn_400e.py'), {})
    told = r'no CUDA device.*A100-SXM4-40GB, driver 535.54.03: too old.*Run it'
    with pytest.raises(ValueError, match=told):
        check_devices(cfg, asked=8, found=0)


@pytest.mark.parametrize(('index', 'told'), [
    ('', 'need driver 580'), ('simple/cu126', 'fits the wheels of CUDA 12.6')])
def test_set_up_asks_before_torch_is_there(index: str, told: str, nvidia_smi):
    nvidia_smi(A100, version='535.54.03')
    done = subprocess.run([sys.executable, '-IS', str(ROOT / 'projects/soco/launch/driver.py'), index],
                          capture_output=True, text=True, env=dict(os.environ))
    assert done.returncode == 0 and told in done.stdout, done.stderr


def test_the_pinned_version_is_that_of_the_wheels():
    import torch
    if torch.version.cuda is None or '+' not in torch.__version__:
        pytest.skip('this torch is not the wheel of the default index')
    assert torch.version.cuda == driver.PINNED_CUDA
    names = torch._C._cuda_getArchFlags().split()
    capabilities = [int(name.removeprefix('sm_')) / 10 for name in names]
    low, high = driver._CAPABILITIES[driver.PINNED_CUDA]
    assert min(capabilities) == low and max(capabilities) <= high
