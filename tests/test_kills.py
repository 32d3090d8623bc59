"""Training that is killed, again and again, ends as if it had not been; full disks lose nothing.

SOCO_KILLS says how often a run is killed (default 4; docs/reliability.md has a longer run).
"""
import os
import random
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from small import ROOT, assert_same, tiny_config

from projects.soco.engine import find_newest_checkpoint, read_checkpoint

KILLS = int(os.environ.get('SOCO_KILLS', 4))
ENV = {**os.environ, 'PYTHONPATH': str(ROOT), 'OMP_NUM_THREADS': '1'}


def write_config(folder: Path, epochs: int) -> tuple[Path, Path]:
    cfg = tiny_config(folder, photos=8, **{
        'train_cfg.max_epochs': epochs, 'default_hooks.checkpoint.by_epoch': False,
        'default_hooks.checkpoint.interval': 1, 'default_hooks.checkpoint.max_keep_ckpts': 3})
    cfg.dump(folder / 'config.py')
    return folder / 'config.py', Path(cfg.work_dir)


def start(config: Path, *arguments: str, **kwargs) -> subprocess.Popen:
    return subprocess.Popen([sys.executable, str(ROOT / 'tools/train.py'), str(config), *arguments],
                            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=ENV,
                            **kwargs)


def kill_at(process: subprocess.Popen, work_dir: Path, seconds: float, in_write: bool) -> bool:
    """Kill after so long, or then inside the next write of a checkpoint; False if it ended before."""
    began = time.monotonic()
    while process.poll() is None:
        if time.monotonic() - began > seconds and (
                not in_write or any(work_dir.glob('.iter_*.pth.*'))):
            process.send_signal(signal.SIGKILL)
            process.wait()
            return True
        time.sleep(0.0005)
    return False


@pytest.mark.slow
def test_killed_training_ends_to_the_bit_as_training_that_was_not(tmp_path: Path) -> None:
    epochs = 3 * KILLS
    config, work_dir = write_config(tmp_path, epochs)
    whole = start(config, '--work-dir', str(tmp_path / 'whole'))
    output, _ = whole.communicate(timeout=3600)
    assert whole.returncode == 0, output[-2000:]
    rng = random.Random(0)
    killed = torn = 0
    while killed < KILLS:
        done = find_newest_checkpoint(work_dir) if work_dir.is_dir() else None
        process = start(config, '--resume')
        # from the imports up to some iterations on; every other time inside a write
        if not kill_at(process, work_dir, rng.uniform(2, 8), in_write=killed % 2 == 1):
            break
        killed += 1
        torn += len(list(work_dir.glob('.iter_*.pth.*')))
        newest = find_newest_checkpoint(work_dir) if work_dir.is_dir() else None
        assert (newest is None) <= (done is None)  # what was there is never lost
        for path in work_dir.glob('iter_*.pth'):
            read_checkpoint(path)  # and nothing that has the name of a checkpoint is torn
    assert killed == KILLS and torn > 0
    last = start(config, '--resume')
    output, _ = last.communicate(timeout=3600)
    assert last.returncode == 0, output[-2000:]
    assert not list(work_dir.glob('.*.pth.*'))
    ends = [torch.load(folder / f'iter_{4 * epochs}.pth', weights_only=True)
            for folder in (work_dir, tmp_path / 'whole')]
    for key in ('state_dict', 'optimizer', 'param_schedulers'):
        assert_same(ends[0][key], ends[1][key], key)
    print(f'{killed} kills survived of {killed} tried, {torn} of them inside the write of a checkpoint')


@pytest.mark.slow
def test_a_full_disk_leaves_the_last_good_checkpoint(tmp_path: Path) -> None:
    config, work_dir = write_config(tmp_path, 1)
    first = start(config, '--cfg-options', 'train_cfg.max_epochs=1')
    assert first.wait(300) == 0
    newest = find_newest_checkpoint(work_dir)
    before = newest.read_bytes()
    limit = newest.stat().st_size // 2

    def no_space() -> None:  # no file of this process may grow beyond the half of a checkpoint
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    second = start(config, '--resume', '--cfg-options', 'train_cfg.max_epochs=2', preexec_fn=no_space)
    output, _ = second.communicate(timeout=300)
    text = ' '.join(output.split())
    assert second.returncode == 2 and 'could not be written (File too large)' in text, text[-2000:]
    assert 'earlier checkpoints are intact' in text and 'Traceback' not in text
    assert find_newest_checkpoint(work_dir) == newest and newest.read_bytes() == before
    assert not list(work_dir.glob('.*.pth.*'))
