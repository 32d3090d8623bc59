"""Training runs as separate processes."""
import threading
import time
from pathlib import Path

import pytest

from projects.soco.launch.errors import Stopped
from projects.soco.runs.follow import run_training

LOG = """
print("Epoch(train) [2][ 5/10]  lr: 1e-3  loss: -1.5000  loss_12: 3.0  obj_std: 0.5", flush=True)
print("Iter(train) [ 70/300]  loss: 2.5", flush=True)
"""


def script(folder: Path, text: str) -> list[str]:
    (folder / 'run.py').write_text(text)
    return [str(folder / 'run.py')]


def test_progress_is_read_and_output_kept(tmp_path: Path):
    seen = []
    for _ in range(2):  # a resumed run appends to the log
        run_training(script(tmp_path, LOG), tmp_path / 'log', 'run', lambda *now: seen.append(now))
    assert seen[:2] == [(15, 'loss -1.5000  obj_std 0.5'), (70, 'loss 2.5')]
    assert (tmp_path / 'log').read_text().count('Epoch(train)') == 2


def test_variables_reach_the_run(tmp_path: Path):
    run_training(script(tmp_path, 'import os; print(os.environ["OMP_NUM_THREADS"])'), tmp_path / 'log',
                 'run', environment={'OMP_NUM_THREADS': '7'})
    assert (tmp_path / 'log').read_text() == '7\n'


def test_a_failure_tells_its_end_and_its_log(tmp_path: Path):
    with pytest.raises(ValueError, match='run 5 failed; the whole output is in .*log. .*no luck'):
        run_training(script(tmp_path, 'raise ValueError("no luck")'), tmp_path / 'log', 'run 5')


@pytest.mark.parametrize('answer', ['sys.exit(75)', 'sys.exit(1)'])
def test_a_run_that_is_stopped_can_go_on(tmp_path: Path, answer: str):
    text = f"""
import signal, sys, time
def leave(*args):
    print("checkpoint", flush=True)
    {answer}
signal.signal(signal.SIGTERM, leave)
print("Iter(train) [ 1/9]", flush=True)
time.sleep(60)
"""
    stop = threading.Event()
    started = time.monotonic()
    with pytest.raises(Stopped):
        run_training(script(tmp_path, text), tmp_path / 'log', 'run', lambda *now: stop.set(), stop)
    assert 'checkpoint' in (tmp_path / 'log').read_text() and time.monotonic() - started < 30


def test_a_run_does_not_outlive_who_follows_it(tmp_path: Path):
    text = 'import time\nprint("Iter(train) [ 1/9]", flush=True)\ntime.sleep(20)\nopen("late", "w")'

    def fail(*now: object) -> None:
        raise KeyboardInterrupt

    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        run_training(script(tmp_path, text), tmp_path / 'log', 'run', fail)
    assert time.monotonic() - started < 15
