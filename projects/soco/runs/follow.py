"""Training commands as separate processes, with progress read from their logs."""
import os
import re
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from ..launch.errors import DIVERGED, STOPPED, Stopped

LOOK = 0.5  # seconds between two checks of the stop event


class DivergedError(ValueError):
    """A training ended because its loss or its weights were no longer finite."""


def run_training(command: Sequence[str], log: str | Path, what: str,
                 report: Callable[[int, str], None] = lambda done, state: None,
                 stop: threading.Event | None = None,
                 environment: Mapping[str, str] | None = None, held: Sequence[int] = ()) -> None:
    """Run a command of `tools/train.py` and write its output to a file.

    Args:
        command (Sequence[str]): Script and arguments, run with the current Python.
        log (str | Path): The file. The output is appended.
        what (str): The name of the run, for messages.
        report (Callable): Called for each training line of the log with the number of iterations done
            and a text of the losses. Defaults to a function that does nothing.
        stop (threading.Event, optional): When it is set, SIGTERM is sent to the run, so that it writes
            a checkpoint and exits. Defaults to None: the run is not stopped.
        environment (Mapping[str, str], optional): Additional environment variables of the run.
            Defaults to None: none.
        held (Sequence[int]): File descriptors that the run inherits, such as that of a lock on its
            work directory. Defaults to none.

    Raises:
        Stopped: If the run was stopped. It can be resumed.
        DivergedError: If its loss or weights were no longer finite.
        ValueError: If it failed. The message contains the end of its output.
    """
    last: deque[str] = deque(maxlen=12)
    # A run that can be stopped has its own session, so that only this process receives Ctrl-C.
    process = subprocess.Popen([sys.executable, *command], stdout=subprocess.PIPE,
                               stderr=subprocess.STDOUT, text=True, start_new_session=stop is not None,
                               env={**os.environ, **(environment or {})}, pass_fds=held)
    over = threading.Event()
    if stop is not None:
        threading.Thread(target=_ask_to_stop, args=(process, stop, over), daemon=True).start()
    try:
        with open(log, 'a', buffering=1) as file:  # line-buffered, to be readable during the run
            for line in process.stdout or ():
                file.write(line)
                if line.strip():
                    last.append(line.rstrip())
                found = re.search(r'\(train\)\s+(?:\[(\d+)\])?\[\s*(\d+)/\s*(\d+)\]', line)
                if found:
                    epoch, step, length = (int(n or 1) for n in found.groups())
                    values = re.findall(r'(loss|obj_std|obj_rank): (-?[\d.]+)', line)
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
