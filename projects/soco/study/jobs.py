"""Execution of jobs: concurrent, with progress, and stopped so that each of them can be resumed."""
import math
import threading
import time
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from ..launch.errors import STOPPED, Stopped

Report = Callable[[int, str], None]  # iterations done, and a text of the losses


@dataclass
class Jobs:
    """Jobs and the way to run them.

    Args:
        jobs (Sequence): All jobs in the order in which they are wanted. Each has a `key`.
        is_done (Callable): Whether a job's result exists.
        needs (Callable): Jobs that must be done before a job.
        do (Callable): Runs a job; its second argument is a `Report`. It must end soon after `stop` is
            set, with `Stopped`.
        iterations (Callable): Iterations that a job reports, or None if it reports none.
        in_short (Callable): A line on the result of a finished job.
        workers (int): Number of concurrent jobs, at least 1.
        console (Console): Console for the progress.
    """

    jobs: Sequence[Any]
    is_done: Callable[[Any], bool]
    needs: Callable[[Any], Sequence[Hashable]]
    do: Callable[[Any, Report], None]
    iterations: Callable[[Any], int | None]
    in_short: Callable[[Any], str]
    workers: int
    console: Console
    stop: threading.Event = field(default_factory=threading.Event)

    def run(self, deadline: float = math.inf) -> bool:
        """Run the jobs that are left.

        Args:
            deadline (float): Time of `time.monotonic()` at which running jobs are asked to stop.
                Defaults to infinity.

        Returns:
            bool: Whether all jobs are done. Otherwise, the next run continues.

        Raises:
            ValueError: If a job failed. Concurrent jobs were stopped and can be resumed.
        """
        left = [job for job in self.jobs if not self.is_done(job)]
        columns = (TextColumn('{task.description}', markup=False), BarColumn(), MofNCompleteColumn(),
                   TimeElapsedColumn(), TextColumn('{task.fields[state]}', markup=False))
        running: dict[Future, Any] = {}
        with Progress(*columns, console=self.console) as progress, \
                ThreadPoolExecutor(self.workers) as pool:
            whole = progress.add_task('jobs', total=len(self.jobs),
                                      completed=len(self.jobs) - len(left), state='')
            try:
                while (left or running) and time.monotonic() < deadline:
                    for job in self._ready(left, running):
                        left.remove(job)
                        running[pool.submit(self._run_one, job, progress)] = job
                    done, _ = wait(running, timeout=1, return_when=FIRST_COMPLETED)
                    for future in done:
                        running.pop(future)
                        future.result()
                        progress.advance(whole)
            finally:
                self.stop.set()
                wait(running)
            stopped = [future for future in running if isinstance(future.exception(), Stopped)]
            for future in running.keys() - set(stopped):
                future.result()
        return not (left or stopped)

    def _ready(self, left: list, running: dict[Future, Any]) -> list:
        """Return the next jobs whose needs are done, at most one per free worker."""
        ready = [job for job in left if all(map(self.is_done, self.needs(job)))]
        return ready[:self.workers - len(running)]

    def _run_one(self, job: Any, progress: Progress) -> None:
        if self.stop.is_set():
            raise Stopped(STOPPED)
        task = progress.add_task(job.key, total=self.iterations(job), state='starting')

        def report(done: int, state: str) -> None:
            progress.update(task, completed=done, state=state)

        started = time.monotonic()
        try:
            self.do(job, report)
            self.console.print(f'{job.key}: {self.in_short(job)} '
                               f'({time.monotonic() - started:.0f} s)', soft_wrap=True)
        finally:
            progress.remove_task(task)
