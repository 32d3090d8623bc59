"""Training runs as separate processes."""
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from projects.soco.launch.errors import Stopped
from projects.soco.runs.follow import SIGNALS, asked_to_stop, run_command, run_training

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


def test_a_tool_is_found_from_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    run_training(['tools/check_install.py', '--help'], tmp_path / 'log', 'run')
    assert 'usage: check_install.py' in (tmp_path / 'log').read_text()


def test_variables_reach_the_run(tmp_path: Path):
    run_training(script(tmp_path, 'import os; print(os.environ["OMP_NUM_THREADS"])'), tmp_path / 'log',
                 'run', environment={'OMP_NUM_THREADS': '7'})
    assert (tmp_path / 'log').read_text() == '7\n'


def test_a_failure_tells_its_end_and_its_log(tmp_path: Path):
    with pytest.raises(ValueError, match='run 5 failed; the whole output is in .*log. .*no luck'):
        run_training(script(tmp_path, 'raise ValueError("no luck")'), tmp_path / 'log', 'run 5')


STOPS = """
import signal, sys, time
def leave(*args):
    print("checkpoint", flush=True)
    open("left", "w")
    sys.exit({code})
signal.signal(signal.SIGTERM, leave)
print("Iter(train) [ 1/9]", flush=True)
open("begun", "w")
time.sleep(60)
"""


@pytest.mark.parametrize('code', [75, 1])
def test_a_run_that_is_stopped_can_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int):
    monkeypatch.chdir(tmp_path)
    stop = threading.Event()
    started = time.monotonic()
    with pytest.raises(Stopped):
        run_training(script(tmp_path, STOPS.format(code=code)), tmp_path / 'log', 'run',
                     lambda *now: stop.set(), stop)
    assert 'checkpoint' in (tmp_path / 'log').read_text() and time.monotonic() - started < 30


@pytest.fixture
def heard() -> Iterator[None]:
    """Hear all signals, also where the tests were started in the background, which ignores some."""
    default: dict = dict.fromkeys(SIGNALS, signal.SIG_DFL)
    default[signal.SIGINT] = signal.default_int_handler
    before = {number: signal.signal(number, handler) for number, handler in default.items()}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures('heard')
@pytest.mark.parametrize(('number', 'code'), [
    (signal.SIGTERM, 75), (signal.SIGINT, 1), (signal.SIGHUP, 0)])  # 0: at its last iteration
@pytest.mark.parametrize('visible', [False, True])
def test_a_signal_to_this_process_stops_the_run_first(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals, code: int,
        visible: bool):
    monkeypatch.chdir(tmp_path)
    command, before = script(tmp_path, STOPS.format(code=code)), signal.getsignal(number)

    def ask() -> None:
        while not Path('begun').exists():
            time.sleep(0.01)
        os.kill(os.getpid(), number)

    threading.Thread(target=ask, daemon=True).start()
    with pytest.raises(Stopped) as stopped:
        run_command(command) if visible else run_training(command, tmp_path / 'log', 'run')
    assert stopped.value.code == 75 and Path('left').exists()
    assert signal.getsignal(number) == before


def test_a_signal_that_is_ignored_stays_so(monkeypatch: pytest.MonkeyPatch):
    """nohup ignores SIGHUP for all that it starts."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with asked_to_stop() as stop:
            os.kill(os.getpid(), signal.SIGHUP)
        assert not stop.is_set()
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.usefixtures('heard')
def test_the_second_ctrl_c_kills(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    text = 'import signal, time\nsignal.signal(15, signal.SIG_IGN)\nopen("begun", "w")\ntime.sleep(60)'

    def ask() -> None:
        while not Path('begun').exists():
            time.sleep(0.01)
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.1)

    threading.Thread(target=ask, daemon=True).start()
    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        run_command(script(tmp_path, text))
    assert time.monotonic() - started < 15


def test_a_run_does_not_outlive_who_follows_it(tmp_path: Path):
    text = 'import time\nprint("Iter(train) [ 1/9]", flush=True)\ntime.sleep(20)\nopen("late", "w")'

    def fail(*now: object) -> None:
        raise KeyboardInterrupt

    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        run_training(script(tmp_path, text), tmp_path / 'log', 'run', fail)
    assert time.monotonic() - started < 15
