"""Executors that run a function over many tasks: in this process, in several, or on a cluster."""
import itertools
import multiprocessing
import multiprocessing.connection
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from typing import Any

MAX_RESTARTS = 3


class WorkerDiedError(RuntimeError):
    """Raised when workers repeatedly die without finishing a task."""


class SerialExecutor:
    """Executor that runs tasks one after the other in this process."""

    def run(self, function: Callable, tasks: Sequence) -> Iterator[tuple[int, Any]]:
        """Apply a function to each task.

        Args:
            function (Callable): Takes one task.
            tasks (Sequence): The tasks.

        Yields:
            tuple[int, Any]: Position of a task and its result, in order.
        """
        for index, task in enumerate(tasks):
            yield index, function(task)


def _end_with_parent() -> None:
    """Make a worker ignore Ctrl-C, which its parent handles, and end when its parent ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()

    def watch() -> None:
        multiprocessing.connection.wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


class ProcessExecutor:
    """Executor that runs tasks in worker processes, and repeats the tasks of a worker that dies.

    Args:
        workers (int): Number of processes, >= 1.
        preload (Sequence[str]): Modules that are imported once, before the workers are forked. Defaults
            to ().
    """

    def __init__(self, workers: int, preload: Sequence[str] = ()) -> None:
        self.workers = workers
        self._context = multiprocessing.get_context('forkserver')
        self._context.set_forkserver_preload(list(preload))

    def run(self, function: Callable, tasks: Sequence) -> Iterator[tuple[int, Any]]:
        """Apply a function to each task.

        Args:
            function (Callable): Takes one task; must be importable by name.
            tasks (Sequence): The tasks; must be picklable.

        Yields:
            tuple[int, Any]: Position of a task and its result, as they finish.

        Raises:
            WorkerDiedError: If workers die several times in a row without finishing a task.
        """
        remaining = dict(enumerate(tasks))
        failures = 0
        while remaining:
            before = len(remaining)
            with ProcessPoolExecutor(self.workers, self._context, _end_with_parent) as pool:
                try:
                    for index, result in self._run_in(pool, function, remaining):
                        del remaining[index]
                        yield index, result
                except BrokenProcessPool as error:
                    failures = failures + 1 if len(remaining) == before else 0
                    if failures == MAX_RESTARTS:
                        raise WorkerDiedError(
                            f'worker processes died {MAX_RESTARTS} times without finishing a '
                            f'task, possibly for lack of memory: use fewer workers.') from error
                finally:
                    pool.shutdown(wait=False, cancel_futures=True)

    def _run_in(self, pool: ProcessPoolExecutor, function: Callable,
                tasks: dict[int, Any]) -> Iterator[tuple[int, Any]]:
        queue = iter(list(tasks.items()))
        running: dict[Future, int] = {}
        while True:
            for index, task in queue:
                running[pool.submit(function, task)] = index
                if len(running) >= 3 * self.workers:
                    break
            if not running:
                return
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                index = running.pop(future)
                yield index, future.result()


class DaskExecutor:
    """Executor that runs tasks on a Dask cluster.

    The workers must have the images under the same paths.

    Args:
        address (str): Address of the scheduler, for example `tcp://host:8786`.
        timeout (float): Seconds to wait for the scheduler. Defaults to 10.

    Raises:
        RuntimeError: If Dask is not installed.
        ConnectionError: If the scheduler does not answer.
    """

    def __init__(self, address: str, timeout: float = 10.) -> None:
        try:
            from distributed import Client
        except ImportError as error:
            raise RuntimeError('a Dask scheduler was set, but Dask is not installed: run pip install '
                               '-r requirements/cluster.txt on this machine and on the workers.'
                               ) from error
        try:
            self.client = Client(address, timeout=timeout, set_as_default=False)
        except (OSError, ValueError) as error:
            raise ConnectionError(
                f'the Dask scheduler {address} did not answer within {timeout:.0f} s: start it '
                f'with "dask scheduler" and workers with "dask worker {address} --nthreads 1".'
            ) from error

    def run(self, function: Callable, tasks: Sequence) -> Iterator[tuple[int, Any]]:
        """Apply a function to each task; Dask repeats the tasks of a worker that dies.

        Args:
            function (Callable): Takes one task; must be importable by name on the workers.
            tasks (Sequence): The tasks; must be picklable.

        Yields:
            tuple[int, Any]: Position of a task and its result, as they finish.

        Raises:
            WorkerDiedError: If a task was lost with its worker several times.
        """
        from distributed import KilledWorker, as_completed
        waiting = iter(enumerate(tasks))
        completed = as_completed(loop=self.client.loop)
        positions = {}

        def submit(count: int) -> None:
            for index, task in itertools.islice(waiting, count):
                future = self.client.submit(function, task, pure=False)
                positions[future.key] = index
                completed.add(future)

        submit(4 * max(1, sum(self.client.nthreads().values())))
        for future in completed:
            try:
                yield positions.pop(future.key), future.result()
            except KilledWorker as error:
                raise WorkerDiedError('several workers died on the same images, possibly for lack of '
                                      'memory: start them with fewer threads.') from error
            submit(1)
