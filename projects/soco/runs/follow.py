"""Run a training command as a process of its own, and follow it by what it logs."""
import os
import re
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from ..launch.errors import DIVERGED, STOPPED, Stopped


class DivergedError(ValueError):
    """A training ended because its loss or its weights were no longer finite."""


LOOK = 0.5  # seconds between two looks at whether to stop


def run_training(command: Sequence[str], log: str | Path, what: str,
                 report: Callable[[int, str], None] = lambda done, state: None,
                 stop: threading.Event | None = None,
                 environment: Mapping[str, str] | None = None, held: Sequence[int] = ()) -> None:
    """Run a command of `tools/train.py`; its whole output goes to a file.

    Args:
        command (Sequence[str]): Script and arguments, for this Python.
        log (str | Path): The file; what is there is kept, and added to.
        what (str): The name of the run, in messages.
        report (Callable): Called at each line of the training's log with the iterations done and the
            losses, as a text.
        stop (threading.Event, optional): When it is set, the run is asked to write a checkpoint and
            leave (SIGTERM).
        environment (Mapping[str, str], optional): Variables that are set for it.
        held (Sequence[int]): File descriptors that it keeps open, such as that of a lock on its work
            directory. Defaults to none.

    Raises:
        Stopped: It was stopped, and can go on.
        DivergedError: Its numbers were no longer finite.
        ValueError: It failed; the end of its output says why.
    """
    last: deque[str] = deque(maxlen=12)
    # Where it can be asked to stop, Ctrl-C is this process's to hear: the run has its own session.
    process = subprocess.Popen([sys.executable, *command], stdout=subprocess.PIPE,
                               stderr=subprocess.STDOUT, text=True, start_new_session=stop is not None,
                               env={**os.environ, **(environment or {})}, pass_fds=held)
    over = threading.Event()
    if stop is not None:
        threading.Thread(target=_ask_to_stop, args=(process, stop, over), daemon=True).start()
    try:
        with open(log, 'a', buffering=1) as file:  # people look into it meanwhile
            for line in process.stdout or ():
                file.write(line)
                if line.strip():
                    last.append(line.rstrip())
                found = re.search(r'\(train\)\s+(?:\[(\d+)\])?\[\s*(\d+)/\s*(\d+)\]', line)
                if found:
                    epoch, step, length = (int(n or 1) for n in found.groups())
                    values = re.findall(r'(loss|obj_std): (-?[\d.]+)', line)
                    report((epoch - 1) * length + step,
                           '  '.join(f'{name} {value}' for name, value in values))
        code = process.wait()
    finally:
        over.set()
        if process.poll() is None:
            process.kill()
    if code == STOPPED or (code and stop is not None and stop.is_set()):
        raise Stopped(STOPPED)
    if code:
        kind = DivergedError if code == DIVERGED else ValueError
        raise kind(f'{what} failed; the whole output is in {log}. Its end: '
                   + ' | '.join(line for line in last if 'error' in line.lower())
                   + f' {last[-1] if last else ""}')


def _ask_to_stop(process: subprocess.Popen, stop: threading.Event, over: threading.Event) -> None:
    while not over.wait(LOOK):
        if stop.is_set():
            process.terminate()
            return
