"""What set-up refuses before it writes anything."""
import os
import subprocess
from pathlib import Path

import pytest
from small import ROOT


def set_up(*arguments: str, **environment: str) -> tuple[int, str]:
    done = subprocess.run(['bash', str(ROOT / 'tools/setup_env.sh'), *arguments], text=True,
                          capture_output=True, env={**os.environ, **environment})
    return done.returncode, ' '.join((done.stdout + done.stderr).split())


@pytest.mark.parametrize('arguments, told', [
    (['--host', 'mmlab'], "--host takes 'openmmlab' or 'onedl', not 'mmlab'."),
    (['--host'], "--host takes 'openmmlab' or 'onedl', not ''."),
    (['--mmcv=full'], "--mmcv takes 'lite' or 'source', not 'full'."),
    (['--host', 'onedl', '--mmcv', 'source'], '--mmcv source is for --host openmmlab'),
    (['--hots', 'onedl'], 'Unknown argument: --hots')])
def test_wrong_arguments(arguments: list[str], told: str, tmp_path: Path):
    code, printed = set_up(*arguments, SOCO_VENV=str(tmp_path / 'venv'))
    assert code == 2 and told in printed and not (tmp_path / 'venv').exists()


@pytest.mark.parametrize('version', ['3.10', '3.14'])
def test_another_python(version: str, tmp_path: Path):
    python = tmp_path / 'python'
    python.write_text(f'#!/bin/sh\necho {version}\n')
    python.chmod(0o755)
    code, printed = set_up(SOCO_VENV=str(tmp_path / 'venv'), PYTHON=str(python))
    assert code == 2 and 'Python 3.11, 3.12 or 3.13 is needed' in printed and f'({version})' in printed
    assert not (tmp_path / 'venv').exists()


def test_a_folder_that_is_not_an_environment(tmp_path: Path):
    (tmp_path / 'venv').mkdir()
    (tmp_path / 'venv/precious').touch()
    code, printed = set_up(SOCO_VENV=str(tmp_path / 'venv'))
    assert code == 2 and 'was not created by this script' in printed
    assert (tmp_path / 'venv/precious').exists()
