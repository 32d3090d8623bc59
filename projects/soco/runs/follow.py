"""Tools of the project as separate processes, which are stopped with the process that started them."""
import contextlib
import os
import re
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..files import tool_path
from ..launch.errors import DIVERGED, STOPPED, Stopped

LOOK = 0.5  # seconds between two checks of the stop event
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


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
            a checkpoint and exits. Defaults to None: it is set by a signal, see `asked_to_stop`.
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
    with (
        contextlib.nullcontext(stop) if stop else asked_to_stop() as asked,
        _started(command, asked, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                 env={**os.environ, **(environment or {})}, pass_fds=held) as process,
        open(log, 'a', buffering=1) as file  # line-buffered, to be readable during the run
    ):
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
    if code == STOPPED or (asked.is_set() and (code or asked is not stop)):
        raise Stopped(STOPPED)
    if code:
        kind = DivergedError if code == DIVERGED else ValueError
        raise kind(f'{what} failed; the whole output is in {log}. Its end: '
                   + ' | '.join(line for line in last if 'error' in line.lower())
                   + f' {last[-1] if last else ""}')


def run_command(command: Sequence[str], stop: threading.Event | None = None) -> int:
    """Run a tool of the project with visible output, and stop it with this process.

    Args:
        command (Sequence[str]): Script and arguments, run with the current Python.
        stop (threading.Event, optional): See `run_training`. Defaults to None.

    Returns:
        int: The exit code.

    Raises:
        Stopped: If it was stopped. The same command continues.
    """
    with (
        contextlib.nullcontext(stop) if stop else asked_to_stop() as asked,
        _started(command, asked) as process
    ):
        code = process.wait()
    if code == STOPPED or asked.is_set():
        raise Stopped(STOPPED)
    return code


@contextlib.contextmanager
def asked_to_stop() -> Iterator[threading.Event]:
    """Set an event on SIGTERM, SIGHUP or Ctrl-C instead of ending this process before its child.

    A second Ctrl-C raises KeyboardInterrupt. Signals that are ignored, as by nohup, stay ignored. To be
    used in the main thread, as all handlers of signals.

    Yields:
        threading.Event: The event.
    """
    stop = threading.Event()

    def ask(number: int, frame: Any) -> None:
        if number == signal.SIGINT and stop.is_set():
            raise KeyboardInterrupt
        stop.set()

    before = {number: signal.signal(number, ask) for number in SIGNALS
              if signal.getsignal(number) != signal.SIG_IGN}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def _started(command: Sequence[str], stop: threading.Event, **options: Any
             ) -> Iterator[subprocess.Popen]:
    """Start a command that gets SIGTERM when `stop` is set, and is killed if it outlives the block."""
    script, *words = command
    if script.startswith('tools/'):  # also where another folder is the current one
        script = tool_path(script)
    # In its own session, so that only this process receives Ctrl-C.
    with subprocess.Popen([sys.executable, script, *words], start_new_session=True, **options
                          ) as process:
        over = threading.Event()
        threading.Thread(target=_ask_to_stop, args=(process, stop, over), daemon=True).start()
        try:
            yield process
        finally:
            over.set()
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)


def _ask_to_stop(process: subprocess.Popen, stop: threading.Event, over: threading.Event) -> None:
    while not over.wait(LOOK):
        if stop.is_set():
            process.terminate()
            return
