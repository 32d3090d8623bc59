"""A hook that stops a run on a signal, so that it can be resumed.

The hook is in MMEngine's root registry, so that configs of any scope find it.
"""
import multiprocessing
import os
import signal
import threading
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from mmengine.dist import is_distributed, is_main_process
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import EpochBasedTrainLoop, IterBasedTrainLoop, Runner
from torch import distributed

from ..launch.errors import STOPPED, Stopped
from ..weights.read import find_newest_checkpoint
from .runner_utils import cpu_group, validation_is_due


@HOOKS.register_module()
class StopSignalHook(Hook):
    """On SIGTERM, write a checkpoint after the current optimizer step and exit with code 75.

    Clusters send SIGTERM before they kill a job, often to all its processes. All ranks stop after the
    same step, whichever of them got the signal, and none exits before the checkpoint is complete. The
    checkpoint is `iter_N.pth`, or `epoch_N.pth` at the end of an epoch; `--resume` resumes from it.
    MMEngine's own epoch loop cannot resume inside an epoch: there nothing is written, and the run
    resumes from its last checkpoint. A run at its last iteration ends as usual, and one that is about
    to validate does so first.

    A stopped run also creates the file that the environment variable SOCO_STOPPED names, if it is set:
    launchers such as srun and torchrun do not always pass on the exit code.

    Args:
        signals (Sequence[str]): Names of the signals. Defaults to ('SIGTERM', ).
    """

    priority = 'LOWEST'  # after the step's own checkpoint

    def __init__(self, signals: Sequence[str] = ('SIGTERM', )) -> None:
        self.signals = [signal.Signals[name] for name in signals]
        self.asked = False
        self._before: dict[signal.Signals, Any] = {}
        self._group: distributed.ProcessGroup | None = None
        _LISTENERS.add(self)  # here, because loops start their data workers before any hook is called

    def before_train(self, runner: Runner) -> None:
        """Install the signal handlers."""
        for number in self.signals:
            self._before[number] = signal.signal(number, self._ask)
        if is_distributed():
            self._group = cpu_group()

    def _ask(self, *args: Any) -> None:
        self.asked = True

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None,
                         outputs: dict | None = None) -> None:
        """Stop inside an epoch, after an optimizer step.

        Raises:
            Stopped: If a signal was received, after the checkpoint is saved.
        """
        loop, done = runner.train_loop, runner.iter + 1
        if done == runner.max_iters or done % runner.optim_wrapper._accumulative_counts:
            return
        if isinstance(loop, EpochBasedTrainLoop) and self.end_of_epoch(loop.dataloader, batch_idx):
            return  # the hooks of the epoch's end run first
        if isinstance(loop, IterBasedTrainLoop) and validation_is_due(runner, done):
            return  # a resumed run would skip it
        if self._anyone_asked():
            resumable = type(loop) is not EpochBasedTrainLoop
            self._stop(runner, done, self._save(runner, f'iter_{done}.pth', by_epoch=False)
                       if resumable else find_newest_checkpoint(runner.work_dir))

    def after_train_epoch(self, runner: Runner) -> None:
        """Stop between two epochs.

        Raises:
            Stopped: If a signal was received, after the checkpoint is saved.
        """
        if runner.iter < runner.max_iters and self._anyone_asked():
            self._stop(runner, runner.iter,
                       self._save(runner, f'epoch_{runner.epoch + 1}.pth', by_epoch=True))

    def _save(self, runner: Runner, name: str, by_epoch: bool) -> Path:
        # As in mmengine's checkpoint hook, the content of the file names the next iteration.
        runner.save_checkpoint(runner.work_dir, name, by_epoch=by_epoch,
                               backend_args=dict(backend='atomic'))
        return Path(runner.work_dir) / name

    def _stop(self, runner: Runner, done: int, path: Path | None) -> None:
        runner.logger.warning(f'Stopped by a signal after iteration {done}. With --resume, it '
                              f'continues from {path or "its start: it has no checkpoint yet"}.')
        if is_main_process() and os.environ.get('SOCO_STOPPED'):
            Path(os.environ['SOCO_STOPPED']).touch()
        self._leave()
        raise Stopped(STOPPED)

    def _leave(self) -> None:
        """Wait for all ranks, then undo what could change the exit code."""
        if self._group is not None:
            # A launcher ends the other ranks when one has exited: wait until the checkpoint is written.
            distributed.barrier(group=self._group)
        for number in self.signals:
            signal.signal(number, signal.SIG_IGN)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # torch treats a worker's exit as a failure
        for helper in multiprocessing.active_children():
            helper.kill()
        if self._group is not None:
            distributed.destroy_process_group()  # one of its threads would abort the exiting process

    def _anyone_asked(self) -> bool:
        if self._group is None:
            return self.asked
        asked = torch.tensor(int(self.asked))
        distributed.all_reduce(asked, distributed.ReduceOp.MAX, group=self._group)
        return bool(asked)

    def after_train(self, runner: Runner) -> None:
        """Restore the previous signal handlers."""
        _LISTENERS.discard(self)
        for number, handler in self._before.items():
            signal.signal(number, handler)


_LISTENERS: 'weakref.WeakSet[StopSignalHook]' = weakref.WeakSet()
_forking = threading.local()  # .mask: the signals that the thread blocked before it forked


def _block() -> None:
    """Block the signals before a fork.

    A helper is born with them blocked: it would otherwise lose one that its parent sends before it is
    ready, and a pool that is ended at once would wait for it forever.
    """
    signals = {number for hook in _LISTENERS for number in hook.signals}
    _forking.mask = signal.pthread_sigmask(signal.SIG_BLOCK, signals)


def _unblock() -> None:
    """Restore the signals of the parent after a fork."""
    signal.pthread_sigmask(signal.SIG_SETMASK, _forking.mask)


def _ignore_all_but_the_parent() -> None:
    """Make a forked helper process exit only on a signal of its parent.

    A step needs its data workers and a metric its pool, but the signal of a cluster reaches them too.
    """
    signals = {number for hook in _LISTENERS for number in hook.signals}
    if signals:  # they are blocked since before the fork
        threading.Thread(target=_exit_when_the_parent_signals, args=(signals, ), daemon=True).start()


def _exit_when_the_parent_signals(signals: set[signal.Signals]) -> None:
    while signal.sigwaitinfo(signals).si_pid != os.getppid():
        pass
    os._exit(0)  # as torch's data workers do: another code would count as a failure


os.register_at_fork(before=_block, after_in_parent=_unblock,
                    after_in_child=_ignore_all_but_the_parent)
