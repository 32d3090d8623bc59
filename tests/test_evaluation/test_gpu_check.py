"""The check of a GPU on a CPU: its parts, their limits, and the file that grows with them."""
import json
import os
import runpy
import subprocess
import sys
import time
from pathlib import Path

import pytest
from scripts import PYTHON
from small import ROOT

from projects.soco.evaluation import gpu_check
from projects.soco.evaluation.gpu_check import Part, make_photos, plan_parts, run_parts
from projects.soco.launch.configs import load_config

MACHINE = dict(device='cpu', name='made up')


@pytest.mark.slow
def test_a_step_is_measured_and_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(gpu_check.sys, 'executable', PYTHON)
    part = next(part for part in plan_parts(ROOT, tmp_path, 'cpu', tiny=True)
                if part.name == 'step, batch 2, without channels_last')
    told: list[str] = []
    row, = run_parts([part], ROOT, tmp_path, 60, tmp_path / 'out.json', MACHINE, told.append)
    assert json.loads((tmp_path / 'out.json').read_text()) == {**MACHINE, 'parts': [row]}
    assert row['state'] == 'ok', row['output']
    assert told == [f'ok: {part.name}, {row["seconds"]:.0f} s']
    figures = row['figures']
    assert figures['images/s'] == pytest.approx(2000 / figures['ms per step'], rel=0.1)
    assert figures['host waits'] is None and figures['GiB'] > 0
    assert {'backbone', 'backward', 'EMA', 'the rest'} <= set(figures['ms by stage'])
    written, = tmp_path.glob('step*.json')
    found = json.loads(written.read_text())
    assert found['batch'] == 2 and found['channels_last'] == 'no' and found['compile'] is False
    assert found['found']['soco_r18_fpn_quickstart']['gflop'] > 0


def parts_of(tmp_path: Path, *codes: str) -> list[Part]:
    return [Part(f'part {i}', 1, [['-c', code]], lambda i=i: {'number': i})
            for i, code in enumerate(codes)]


def test_a_part_that_fails_or_hangs_does_not_stop_the_others(tmp_path: Path):
    parts = parts_of(tmp_path, 'print(1)', 'print("the reason"); exit(3)',
                     'import time; print("begun", flush=True); time.sleep(60)', 'print(2)')
    parts[3] = parts[3]._replace(reason='not today')
    parts.append(parts[0]._replace(read=lambda: dict(number=[][0])))
    out, seen = tmp_path / 'out.json', []
    started = time.monotonic()
    # the tool's own Python: the processes of `scripts.PYTHON` do not end with it
    rows = run_parts([parts[2]._replace(minutes=0.2)], ROOT, tmp_path, 1, out, MACHINE, seen.append)
    assert time.monotonic() - started < 30 and rows[0]['state'] == 'time ran out'
    rows = run_parts(parts[:2] + parts[3:], ROOT, tmp_path, 10, out, MACHINE,
                     lambda line: seen.append(len(json.loads(out.read_text())['parts'])))
    assert [row['state'] for row in rows] == ['ok', 'failed', 'left out', 'failed']
    assert seen[1:] == [1, 2, 3, 4] and 'IndexError' in rows[3]['output']
    assert rows[0]['figures'] == {'number': 0} and rows[1]['figures'] == {}
    assert 'exit code 3' in rows[1]['output'] and 'the reason' in rows[1]['output']
    assert rows[2]['output'] == 'not today'


def test_a_signal_ends_the_part_that_runs(tmp_path: Path):
    process = subprocess.Popen(
        [PYTHON, ROOT / 'tools/gpu_check.py', '--device', 'cpu', '--tiny'], cwd=tmp_path, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        env={**os.environ, 'PYTHONPATH': str(ROOT), 'SOCO_WARM_PID': str(tmp_path / 'pid')})
    while process.poll() is None and len(list(tmp_path.glob('pid.*'))) < 2:
        time.sleep(0.05)
    process.terminate()
    told, _ = process.communicate(timeout=60)
    assert process.returncode == 130, told
    assert 'Stopped; gpu_check.json has' in told and 'Traceback' not in told
    time.sleep(0.5)  # the interpreter of the tests ends its process when it was killed
    for path in tmp_path.glob('pid.*'):
        assert not Path(f'/proc/{path.read_text()}').exists()


@pytest.mark.parametrize('device, devices, cuda', [('cuda', None, '1'), ('cpu', '', None)])
def test_the_tests_of_a_gpu_run_where_there_is_one(tmp_path, monkeypatch, device, devices, cuda):
    for name in ('SOCO_TEST_CUDA', 'CUDA_VISIBLE_DEVICES'):
        monkeypatch.delenv(name, raising=False)
    code = (f'import os; get = os.environ.get; '
            f'assert (get("CUDA_VISIBLE_DEVICES"), get("SOCO_TEST_CUDA")) == ({devices!r}, {cuda!r})')
    row, = run_parts(parts_of(tmp_path, code), ROOT, tmp_path, 10, tmp_path / 'out.json',
                     {**MACHINE, 'device': device}, lambda line: None)
    assert row['state'] == 'ok', row['output']


def test_the_whole_check_ends_in_time(tmp_path: Path):
    rows = run_parts(parts_of(tmp_path, *['import time; time.sleep(60)'] * 3), ROOT, tmp_path, 0.03,
                     tmp_path / 'out.json', MACHINE, lambda line: None)
    assert [row['state'] for row in rows] == ['time ran out'] * 3
    assert sum(row['seconds'] for row in rows) < 20


@pytest.mark.parametrize('device, tiny', [('cpu', True), ('cuda', False)])
def test_every_command_is_one_that_its_tool_takes(device, tiny, tmp_path, monkeypatch):
    make_photos(tmp_path, 2)
    for name, value in dict(PHOTOS='photos', TRAIN='boxes.json', VAL='boxes.json').items():
        monkeypatch.setenv(f'SOCO_{name}', str(tmp_path / value))
    parts = plan_parts(ROOT, tmp_path, device, tiny)
    assert len({part.name for part in parts}) == len(parts) == 9
    assert bool(parts[0].reason) == (device == 'cpu' or not (ROOT / 'tests/test_cuda.py').is_file())
    assert sum(part.minutes for part in parts) <= 12
    assert [part.name for part in parts[1:] if part.reason] == (
        ['step, batch 2, compiled'] if device == 'cpu' else [])
    for part in parts[1:]:
        for tool, *words in part.commands:
            monkeypatch.setattr(sys, 'argv', [tool, *words])
            args = runpy.run_path(str(ROOT / tool))['parse_args']()
            if tool == 'tools/train.py':
                cfg = load_config(args.config, args.cfg_options, register=False)
                small = tiny or 'detector' in part.name
                assert cfg.train_dataloader.batch_size == (2 if small else 128)


def test_made_up_photos_have_their_boxes(tmp_path: Path):
    import cv2

    from projects.soco.proposals.store import ProposalStore
    make_photos(tmp_path, 2)
    store = ProposalStore(tmp_path / 'boxes.arrow')
    content = json.loads((tmp_path / 'boxes.json').read_text())
    assert len(store) == 2 and len(content['annotations']) == 16
    last = content['annotations'][-1]
    x, y, w, h = last['bbox']
    photo = cv2.imread(str(tmp_path / 'photos' / content['images'][1]['file_name']))
    assert photo.shape == (375, 500, 3) and x >= 0 and x + w < 500 and y + h < 375
    assert photo[y + 8:y + h - 8, x + 8:x + w - 8].std(axis=(0, 1)).max() < 5  # drawn last, one colour
