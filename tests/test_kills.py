"""Training that is killed repeatedly gives the same result as without kills; full disks lose no data.

SOCO_KILLS sets how often a run is killed (default 4; docs/reliability.md reports a longer run).
"""
import errno
import logging
import os
import random
import resource
import runpy
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
import torch
from mmengine.hooks import Hook
from mmengine.runner import Runner
from scripts import PYTHON, WARM, free_port
from small import ROOT, assert_same, tiny_config

from projects.soco.launch.checks import check_work_dir
from projects.soco.launch.errors import error_text, run_tool
from projects.soco.weights.read import find_newest_checkpoint, read_checkpoint

KILLS = int(os.environ.get('SOCO_KILLS', 4))
ENV = {**os.environ, 'PYTHONPATH': str(ROOT), 'OMP_NUM_THREADS': '1'}


def write_config(folder: Path, epochs: int) -> tuple[Path, Path]:
    cfg = tiny_config(folder, photos=8, **{
        'train_cfg.max_epochs': epochs, 'default_hooks.checkpoint.by_epoch': False,
        'default_hooks.checkpoint.interval': 1, 'default_hooks.checkpoint.max_keep_ckpts': 3})
    cfg.dump(folder / 'config.py')
    return folder / 'config.py', Path(cfg.work_dir)


def start(config: Path, *arguments: str, **kwargs) -> subprocess.Popen:
    if 'preexec_fn' in kwargs:  # it applies to the process that is started
        python, env = sys.executable, ENV
    else:
        python, env = PYTHON, {**ENV, 'SOCO_WARM_PID': f'{config.parent}/work.pid'}
    return subprocess.Popen([python, str(ROOT / 'tools/train.py'), str(config), *arguments],
                            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=env,
                            **kwargs)


def kill_at(process: subprocess.Popen, work_dir: Path, seconds: float, in_write: bool) -> bool:
    """Kill after `seconds`, or during the next checkpoint write; return False if it ended before."""
    began = time.monotonic()
    while process.poll() is None:
        if time.monotonic() - began > seconds and (
                not in_write or any(work_dir.glob('.iter_*.pth.*'))):
            os.kill(int(Path(f'{work_dir}.pid.{process.pid}').read_text()), signal.SIGKILL)
            process.wait()
            return True
        time.sleep(0.0005)
    return False


@pytest.mark.slow(35)
def test_killed_training_ends_to_the_bit_as_training_that_was_not(tmp_path: Path) -> None:
    epochs = 2 * KILLS
    config, work_dir = write_config(tmp_path, epochs)
    whole = start(config, '--work-dir', str(tmp_path / 'whole'))
    output, _ = whole.communicate(timeout=3600)
    assert whole.returncode == 0, output[-2000:]
    rng = random.Random(0)
    killed = torn = 0
    while killed < KILLS:
        done = find_newest_checkpoint(work_dir) if work_dir.is_dir() else None
        process = start(config, '--resume')
        # between the imports and some iterations; every second kill is during a write
        if not kill_at(process, work_dir, rng.uniform(0.1, 3), in_write=killed % 2 == 1):
            break
        killed += 1
        torn += len(list(work_dir.glob('.iter_*.pth.*')))
        newest = find_newest_checkpoint(work_dir) if work_dir.is_dir() else None
        assert (newest is None) <= (done is None)  # an existing checkpoint is never lost
        for path in work_dir.glob('iter_*.pth'):
            read_checkpoint(path)  # no file with the name of a checkpoint is incomplete
    assert killed == KILLS and torn > 0
    last = start(config, '--resume')
    output, _ = last.communicate(timeout=3600)
    assert last.returncode == 0, output[-2000:]
    assert not list(work_dir.glob('.*.pth.*'))
    ends = [torch.load(folder / f'iter_{4 * epochs}.pth', weights_only=True)
            for folder in (work_dir, tmp_path / 'whole')]
    for key in ('state_dict', 'optimizer', 'param_schedulers'):
        assert_same(ends[0][key], ends[1][key], key)
    print(f'survived {killed} of {killed} kills, {torn} of them during the write of a checkpoint')


@pytest.mark.slow(14)
def test_a_full_disk_leaves_the_last_good_checkpoint(tmp_path: Path) -> None:
    config, work_dir = write_config(tmp_path, 1)
    first = start(config, '--cfg-options', 'train_cfg.max_epochs=1')
    assert first.wait(300) == 0
    newest = find_newest_checkpoint(work_dir)
    before = newest.read_bytes()
    limit = newest.stat().st_size // 2

    def no_space() -> None:  # limit files of this process to half the size of a checkpoint
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    second = start(config, '--resume', '--cfg-options', 'train_cfg.max_epochs=2', preexec_fn=no_space)
    output, _ = second.communicate(timeout=300)
    text = ' '.join(output.split())
    assert second.returncode == 2 and 'could not be written (File too large)' in text, text[-2000:]
    assert 'earlier checkpoints are intact' in text and 'Traceback' not in text
    assert find_newest_checkpoint(work_dir) == newest and newest.read_bytes() == before
    assert not list(work_dir.glob('.*.pth.*'))


SRUN = """#!/usr/bin/env bash
# Simulates a cluster that signals a job after its first checkpoint and returns 137, as if a rank
# had exited too late.
while [[ "$1" == -* ]]; do if [[ "$1" == -p ]]; then shift; fi; shift; done
"$@" & rank=$!
until [[ -e "$WORK_DIR/iter_1.pth" ]] || ! kill -0 $rank; do sleep 0.1; done
kill -s $SENT $rank
wait $rank
exit 137
"""


@pytest.mark.slow
@pytest.mark.parametrize('sent, code', [('TERM', 75), ('KILL', 137)])
def test_slurm_queues_a_job_again_when_it_was_stopped_and_else_not(
        tmp_path: Path, sent: str, code: int) -> None:
    config, work_dir = write_config(tmp_path, 50)
    (tmp_path / 'bin').mkdir()
    (tmp_path / 'bin/srun').write_text(SRUN)
    (tmp_path / 'bin/scontrol').write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/requeued\n')
    for program in (tmp_path / 'bin').iterdir():
        program.chmod(0o755)
    env = dict(ENV, PATH=f'{tmp_path}/bin:{os.environ["PATH"]}', SOCO_VENV=str(WARM), GPUS='1',
               SLURM_JOB_ID='7', SLURM_NTASKS='1', SLURM_PROCID='0', SLURM_LOCALID='0',
               MASTER_ADDR='127.0.0.1', MASTER_PORT=str(free_port()), WORK_DIR=str(work_dir), SENT=sent)
    done = subprocess.run(['bash', str(ROOT / 'tools/slurm_train.sh'), 'part', 'job', str(config)],
                          cwd=tmp_path, env=env, capture_output=True, text=True, timeout=300)
    assert done.returncode == code, done.stderr[-2000:]
    requeued = (tmp_path / 'requeued').read_text() if sent == 'TERM' else 'none'
    assert requeued == ('requeue 7\n' if sent == 'TERM' else 'none')
    assert (tmp_path / 'requeued').exists() == ('is queued again' in done.stdout) == (sent == 'TERM')
    assert not list(tmp_path.glob('.stopped*'))


def build(folder: Path, **changes) -> Runner:
    cfg = tiny_config(folder, photos=8, **{
        'train_cfg.max_epochs': 1, 'default_hooks.checkpoint.by_epoch': False, 'log_level': 'INFO',
        'default_hooks.checkpoint.interval': 1, 'default_hooks.logger.interval': 2,
        'experiment_name': folder.name, **changes})
    del cfg.default_hooks['stop_signal']
    return Runner.from_cfg(cfg)


def test_a_disk_without_place_for_the_log_is_told_and_training_goes_on(
        tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    class FillDisk(Hook):

        def before_train(self, runner: Runner) -> None:
            (file, ) = [h for h in runner.logger.handlers if isinstance(h, logging.FileHandler)]
            file.stream = open('/dev/full', 'w')  # noqa: SIM115  (stays open for the handler)

    runner = build(tmp_path)
    runner.register_hook(FillDisk())
    runner.train()
    read_checkpoint(tmp_path / 'work/iter_4.pth')
    assert 'No space left on device' in capsys.readouterr().err


def test_a_disk_without_place_for_the_curves_ends_training_with_its_checkpoints_intact(
        tmp_path: Path) -> None:
    (tmp_path / 'full.json').symlink_to('/dev/full')
    runner = build(tmp_path, visualizer=dict(type='mmengine.Visualizer', vis_backends=[
        dict(type='LocalVisBackend', scalar_save_file=str(tmp_path / 'full.json'))]))
    with pytest.raises(OSError, match='No space left') as error:
        runner.train()
    message = ' '.join(error_text(error.value).split())
    assert message.startswith('A file could not be written (No space left on device); what was')
    assert find_newest_checkpoint(tmp_path / 'work').name == 'iter_1.pth'


@pytest.mark.parametrize('code', [errno.EROFS, errno.EACCES])
def test_a_work_directory_that_is_read_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                            code: int) -> None:
    """The error of the system is mocked, because root can write everywhere."""

    def refuse(**kwargs) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(tempfile, 'TemporaryFile', refuse)
    with pytest.raises(OSError, match=f'{tmp_path} cannot be written to .*--work-dir'):
        check_work_dir(tmp_path)


def test_training_asks_for_another_work_directory_before_it_builds_anything(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    config, _ = write_config(tmp_path, 1)
    (tmp_path / 'file').touch()
    monkeypatch.setattr(Runner, 'from_cfg', None)
    monkeypatch.setattr(sys, 'argv', ['train.py', str(config), '--work-dir', f'{tmp_path}/file/work'])
    with pytest.raises(SystemExit):
        run_tool(runpy.run_path(str(ROOT / 'tools/train.py'))['main'])
    message = ' '.join(capsys.readouterr().err.split())
    assert 'file/work cannot be written to (Not a directory). Choose another folder' in message
