"""A hook that resumes a run at the right photo, also under other conditions."""
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmengine.hooks import Hook
from mmengine.optim import OptimWrapper, ReduceOnPlateauParamScheduler, _ParamScheduler
from mmengine.registry import HOOKS
from mmengine.runner import EpochBasedTrainLoop, Runner

from .loops import ResumableDetectorEpochLoop, ResumableEpochLoop
from .runner_utils import unwrapped


@HOOKS.register_module()
class ResumeHook(Hook):
    """Record the position of a run in photos, and resume there with any batch or number of processes.

    Before a checkpoint is written, the hook adds `meta.position`: epochs, photos of the current epoch,
    photos per iteration and optimizer step, and a fingerprint of the data. On `resume`

    - the position is converted to iterations of the present run. It is rounded down to a whole
      optimizer step; a position past the end of the epoch becomes the start of the next one;
    - the optimizer gets its hyperparameters from the config, and keeps its state;
    - the schedules are stepped from the start of the run to the position, with the settings of the
      config, so that a change of the length or of the rate takes effect.

    Under equal conditions, the result is the same to the bit as that of an uninterrupted run.

    A detector resumes at its iteration, whatever the batch. If it counts epochs, and these have another
    number of iterations now, it resumes at the last whole epoch.

    Raises:
        ValueError: If the checkpoint is of another model, other data or a longer run, or if it has no
            position and does not fit the present batch.
    """

    priority = 'VERY_HIGH'  # before hooks that read the iteration

    def __init__(self) -> None:
        self._fresh: list[dict[str, Any]] = []
        self._rescaled = 1.0  # iterations here per iteration of the checkpoint
        self._replay = False

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Add the position to `meta`."""
        loop, meta = runner.train_loop, checkpoint['meta']
        if isinstance(loop, ResumableDetectorEpochLoop):
            meta['epoch_length'] = len(loop.dataloader)
        if isinstance(loop, ResumableEpochLoop):
            sampler = loop.dataloader.batch_sampler
            epoch, done = divmod(meta['iter'], len(sampler))
            meta['position'] = dict(
                epoch=epoch, photos=done * sampler.photos_per_iter,
                photos_per_iter=sampler.photos_per_iter, photos_per_step=sampler.photos_per_step,
                data=runner.train_dataloader.dataset.fingerprint())

    def before_run(self, runner: Runner) -> None:
        """Keep the hyperparameters of the config: a checkpoint overwrites them."""
        if not isinstance(runner.optim_wrapper, OptimWrapper):
            return  # nothing is trained
        self._fresh = [{key: value for key, value in group.items() if key != 'params'}
                       for group in runner.optim_wrapper.param_groups]

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Check a checkpoint to resume from, and convert its position.

        Raises:
            ValueError: See the class.
        """
        if not runner._resume:
            return
        path, meta, loop = runner._load_from, checkpoint['meta'], runner.train_loop
        _check_model(path, unwrapped(runner).state_dict(), checkpoint['state_dict'])
        _check_groups(path, runner.optim_wrapper.optimizer.param_groups,
                      checkpoint['optimizer']['param_groups'])
        before = meta['iter']
        if isinstance(loop, ResumableEpochLoop):
            told = _convert(path, meta, loop)
        elif isinstance(loop, EpochBasedTrainLoop) and not (
                isinstance(loop, ResumableDetectorEpochLoop)
                and meta.get('epoch_length') == len(loop.dataloader)):
            # mmengine's loop, or epochs of another length: resume at a whole epoch
            meta['iter'] = meta['epoch'] * len(loop.dataloader)
            told = f'{meta["epoch"]} epochs are done'
        else:
            told = f'{meta["iter"]} iterations are done'
        length = (f'{loop.max_epochs} epochs' if isinstance(loop, EpochBasedTrainLoop)
                  else f'{loop.max_iters} iterations')
        if meta['iter'] > loop.max_iters:
            raise ValueError(
                f'{path} cannot be resumed: {told}, but the config trains for {length}. Set a longer '
                'run with --epochs or --iters, or start a new one in another work directory.')
        self._rescaled = meta['iter'] / before if before else 1.0
        runner.logger.info(f'Resuming {path}: {told}'
                           + (f', which is the whole run of {length}: nothing is left to train.'
                              if meta['iter'] == loop.max_iters else '.'))
        schedulers = runner.param_schedulers
        self._replay = isinstance(schedulers, list) and not any(
            isinstance(scheduler, ReduceOnPlateauParamScheduler) for scheduler in schedulers)
        if self._replay:
            checkpoint.pop('param_schedulers', None)  # they are stepped to the position instead

    def before_train(self, runner: Runner) -> None:
        """Restore the hyperparameters of the config, and step the schedules to the position."""
        if not self._replay:
            return
        self._replay = False
        for group, fresh in zip(runner.optim_wrapper.param_groups, self._fresh, strict=True):
            group.update(fresh)
        loop = runner.train_loop
        epoch_length = len(loop.dataloader) if isinstance(loop, EpochBasedTrainLoop) else 0
        step_to(runner.param_schedulers, runner.iter, epoch_length)
        if self._rescaled != 1:
            runner.visualizer.add_scalars(dict(rescaled=self._rescaled), step=runner.iter)


def check_same_data(path: str | Path, before: str, now: str) -> None:
    """Check that a run is resumed on the data that it was trained on.

    Args:
        path (str | Path): The checkpoint.
        before (str): `SoCoDataset.fingerprint` of the data that it was trained on.
        now (str): The same of the config's data.

    Raises:
        ValueError: If they differ.
    """
    if before != now:
        raise ValueError(
            f'{path} cannot be resumed on other data: it was trained on {before}, and the config has '
            f'{now}. Set train_dataloader.dataset to the store and the repeat of that run, or start a '
            'new run from its weights with --pretrained.')


def step_to(schedulers: Sequence[_ParamScheduler], iterations: int, epoch_length: int) -> None:
    """Step new schedulers as a run does, from its start to an iteration.

    Args:
        schedulers (Sequence[_ParamScheduler]): Schedulers that were just built.
        iterations (int): Iterations that the run has done.
        epoch_length (int): Iterations per epoch; 0 for a run that has no epochs.
    """
    for scheduler in schedulers:
        scheduler.optimizer._global_step = iterations  # or they would warn that it has not stepped
    by_iter = [scheduler for scheduler in schedulers if not scheduler.by_epoch]
    by_epoch = [scheduler for scheduler in schedulers if scheduler.by_epoch]
    for i in range(1, iterations + 1):
        for scheduler in by_iter:
            scheduler.step()
        if epoch_length and i % epoch_length == 0:
            for scheduler in by_epoch:
                scheduler.step()


def _convert(path: str, meta: dict, loop: ResumableEpochLoop) -> str:
    """Convert the position in `meta` to iterations of this loop; return a sentence about it."""
    sampler = loop.dataloader.batch_sampler
    data = loop.dataloader.dataset.fingerprint()
    position = meta.get('position')
    if position is None:
        done = meta['iter'] - meta['epoch'] * len(sampler)
        if not 0 <= done <= len(sampler):
            raise ValueError(
                f'{path} cannot be resumed with this batch: an earlier version of the project wrote '
                f'it, without the number of photos, after {meta["epoch"]} epochs and {meta["iter"]} '
                f'iterations, and an epoch has {len(sampler)} iterations here. Use the batch size and '
                'the number of processes that it was trained with.')
        return f'{meta["epoch"]} epochs and {done} of {len(sampler)} iterations are done'
    check_same_data(path, position['data'], data)
    epoch, photos = position['epoch'], position['photos']
    per_step, iterations = sampler.photos_per_step, len(sampler)
    told = f'{epoch} epochs and {photos} photos of the next one are done'
    steps, again = divmod(photos, per_step)
    done = steps * per_step // sampler.photos_per_iter
    if done >= iterations:
        epoch, done, again = epoch + 1, 0, 0
        told += f', which is a whole epoch with {per_step} photos per optimizer step'
    if again:
        told += (f'; {again} photos are shown again, because an optimizer step takes {per_step} photos '
                 'here')
    if (position['photos_per_iter'], position['photos_per_step']) != (
            sampler.photos_per_iter, per_step):
        told += (f'; {position["photos_per_step"]} photos per optimizer step before, {per_step} now '
                 '(the learning rate is that of the config)')
    meta.update(epoch=epoch, iter=epoch * iterations + done)
    return told


def _check_model(path: str, wanted: dict, found: dict) -> None:
    differing = [f'{key} {tuple(found[key].shape)} instead of {tuple(wanted[key].shape)}'
                 for key in wanted if key in found and found[key].shape != wanted[key].shape]
    differing += [f'{key} is missing' for key in wanted if key not in found]
    differing += [f'{key} is not in the model' for key in found if key not in wanted]
    if differing:
        raise ValueError(
            f'{path} cannot be resumed with the model of this config: {len(differing)} tensors differ, '
            f'such as {"; ".join(differing[:3])}. Use the config of that run, or start a new run from '
            'its weights with --pretrained.')


def _check_groups(path: str, here: list[dict], there: list[dict]) -> None:
    sizes = [[len(group['params']) for group in groups] for groups in (here, there)]
    if sizes[0] != sizes[1]:
        raise ValueError(
            f'{path} cannot be resumed with the optimizer of this config: its {sum(sizes[1])} '
            f'parameters are in {len(there)} groups, and {sum(sizes[0])} are in {len(here)} here. Keep '
            'optim_wrapper.paramwise_cfg and the frozen parts of that run, or start a new run from its '
            'weights with --pretrained.')
