"""Training loops and samplers that resume at the right data, without loading what is before it."""
import copy
import sys
import types
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from mmengine.dist import get_rank
from mmengine.hooks import CheckpointHook
from mmengine.registry import DATA_SAMPLERS, LOOPS
from mmengine.runner import BaseLoop, EpochBasedTrainLoop, IterBasedTrainLoop, Runner
from mmengine.runner.loops import _InfiniteDataloaderIterator
from torch.utils.data import BatchSampler, DataLoader, Sampler

from ..datasets.dataset import SampleKey
from .bad_image_hook import BadImageHook

# MMSelfSup 1.0.0 declares this module as the location of its loops but does not contain it. Without
# this entry, looking up any loop in its scope would fail.
sys.modules.setdefault('mmselfsup.engine.runner', types.ModuleType('mmselfsup.engine.runner'))


@DATA_SAMPLERS.register_module()
class ResumableBatchSampler(Sampler):
    """A sampler of batches of `SampleKey`s that can start in the middle of an epoch.

    An epoch is a whole number of optimizer steps. The remainder is dropped, as the official code drops
    an incomplete batch. So no photo is drawn twice in an epoch, although mmengine's sampler repeats
    photos where their number is not divisible by the number of ranks. The first photos of an epoch do
    not depend on the number of ranks or on the batch.

    Args:
        sampler (DefaultSampler): Defines the order of the photos, and has the seed, the epoch and the
            number of ranks.
        batch_size (int): Photos per rank and iteration.
        accumulative_counts (int): Iterations per optimizer step. Defaults to 1.

    Raises:
        ValueError: If there are fewer photos than one optimizer step needs.
    """

    def __init__(self, sampler: Sampler, batch_size: int, accumulative_counts: int = 1) -> None:
        self.sampler = sampler
        self.batch_size = batch_size
        self.start = 0  # iterations of the current epoch that are already done
        source: Any = sampler
        photos, ranks = len(source.dataset), source.world_size
        self.photos_per_iter = batch_size * ranks
        self.photos_per_step = self.photos_per_iter * accumulative_counts
        self.length = photos // self.photos_per_step * accumulative_counts
        if self.length == 0:
            repeat = getattr(source.dataset, 'repeat', 1) * -(-self.photos_per_step // max(photos, 1))
            file = getattr(getattr(source.dataset, 'store', None), 'path', '')
            raise ValueError(
                f'{photos} photos are fewer than one optimizer step takes (batch_size {batch_size} x '
                f'{ranks} processes x accumulative_counts {accumulative_counts}). Lower '
                'train_dataloader.batch_size, use each photo more often per epoch '
                f'(train_dataloader.dataset.repeat={repeat}), or use more photos'
                f'{f" than {file} lists" if file else ""}.')

    def __iter__(self) -> Iterator[list[SampleKey]]:
        keys = self._keys(self.epoch)
        for i in range(self.start, self.length):
            yield keys[i * self.batch_size:(i + 1) * self.batch_size]

    @property
    def epoch(self) -> int:
        """The current epoch."""
        source: Any = self.sampler  # mmengine's, which has the epoch and the seed
        return source.epoch

    def _keys(self, epoch: int) -> list[SampleKey]:
        source: Any = copy.copy(self.sampler)
        source.set_epoch(epoch)
        return [SampleKey(index, epoch, source.seed) for index in source]

    def keys_of(self, i: int, epoch: int | None = None) -> list[SampleKey]:
        """Return the batch of iteration `i` of an epoch, by default the current one."""
        epoch = self.epoch if epoch is None else epoch
        return self._keys(epoch)[i * self.batch_size:(i + 1) * self.batch_size]

    def __len__(self) -> int:
        return self.length


@LOOPS.register_module()
class ResumableEpochLoop(EpochBasedTrainLoop):
    """mmengine's epoch loop that can also resume inside an epoch.

    Together with `ResumableBatchSampler`, `SoCoDataset` and `MomentumUpdateHook`, a resumed run gives
    the same result as an uninterrupted one, with any number of workers: samples are a function of
    (seed, epoch, index), and the random state is set in every iteration from (seed, rank, iteration).

    Args:
        runner (Runner): The runner.
        dataloader (dict): Config of the data loader.
        max_epochs (int): Epochs of the whole run.
        **kwargs: See `mmengine.runner.EpochBasedTrainLoop`.
    """

    def __init__(self, runner: Runner, dataloader: dict, max_epochs: int, **kwargs: Any) -> None:
        self.accumulative_counts = runner.cfg.optim_wrapper.get('accumulative_counts', 1)
        dataloader = dict(dataloader, batch_sampler=dict(
            type='ResumableBatchSampler', accumulative_counts=self.accumulative_counts))
        super().__init__(runner, dataloader, max_epochs, **kwargs)

    def run(self) -> torch.nn.Module:
        """Train from the current iteration to the end of the run.

        Raises:
            ValueError: If checkpoints would fall between two optimizer steps, or bad photos would be
                replaced without a report.
        """
        for hook in self.runner.hooks:
            if (isinstance(hook, CheckpointHook) and not hook.by_epoch and hook.interval > 0
                    and hook.interval % self.accumulative_counts):
                raise ValueError(
                    f'A checkpoint every {hook.interval} iterations would fall between two optimizer '
                    f'steps of {self.accumulative_counts} iterations. Make '
                    'default_hooks.checkpoint.interval a multiple of '
                    'optim_wrapper.accumulative_counts.')
        if (getattr(self.dataloader.dataset, 'max_bad_share', 0)
                and not any(isinstance(hook, BadImageHook) for hook in self.runner.hooks)):
            raise ValueError(
                'train_dataloader.dataset.max_bad_share allows bad photos to be replaced, but no '
                'hook would report them: add bad_images=dict(type="BadImageHook") to default_hooks, or '
                'set max_bad_share to 0.')
        # A checkpoint may be from the last iteration of an epoch, and contains the seed of its run.
        self._epoch = self._iter // len(self.dataloader)
        self.dataloader.batch_sampler.sampler.seed = self.runner.seed
        return super().run()

    def run_epoch(self) -> None:
        """Run the rest of the current epoch."""
        self.runner.call_hook('before_train_epoch')
        self.runner.model.train()
        start = self._iter - self._epoch * len(self.dataloader)
        self.dataloader.batch_sampler.start = start
        for idx, data_batch in enumerate(self.dataloader, start):
            self.run_iter(idx, data_batch)
        self.runner.call_hook('after_train_epoch')
        self._epoch += 1

    def run_iter(self, idx: int, data_batch: dict) -> None:
        """Run one iteration with its own random state."""
        state = np.random.SeedSequence([self.runner.seed, get_rank(), self._iter])
        torch.manual_seed(int(state.generate_state(1, np.uint32)[0]))
        super().run_iter(idx, data_batch)


@DATA_SAMPLERS.register_module()
class AdvancedBatchSampler(Sampler):
    """The batches of any sampler, from a position of its run on.

    The batches before it are drawn as indices, whose photos are not loaded.

    Args:
        sampler (Sampler): Any sampler of mmengine or mmdet.
        batch_size (int): Photos per batch.
        done (int): Batches that the run has had, also over several passes through the data.
        batch_sampler (dict, optional): Config of the sampler of batches. Defaults to None: torch's.
        drop_last (bool): Whether torch's drops an incomplete batch. Defaults to False.
    """

    def __init__(self, sampler: Sampler, batch_size: int, done: int, batch_sampler: dict | None = None,
                 drop_last: bool = False) -> None:
        self.sampler = sampler
        self.batch_size = batch_size
        self.done = done
        self.passes = 0  # that were complete before the position
        if batch_sampler is None:
            self.batches = BatchSampler(sampler, batch_size, drop_last)
        else:
            self.batches = DATA_SAMPLERS.build(
                batch_sampler, default_args=dict(sampler=sampler, batch_size=batch_size))

    def __iter__(self) -> Iterator[list[int]]:
        first: list[int] | None = None
        batches = iter(self.batches)
        for _ in range(self.done + 1 if self.done else 0):
            while (first := next(batches, None)) is None:  # as mmengine's loop does where the data end
                self.passes += 1
                if hasattr(self.sampler, 'set_epoch'):
                    self.sampler.set_epoch(self.passes)
                batches = iter(self.batches)
        self.done = 0
        if first is not None:
            yield first
        yield from batches

    def __len__(self) -> int:
        return len(self.batches)


def _advanced(loop: BaseLoop, cfg: dict, done: int) -> DataLoader:
    """Return the training loader of a loop, from a position on, over the data set that it has."""
    runner, order = loop.runner, dict(type='AdvancedBatchSampler', done=done)
    cfg = dict(cfg, dataset=loop.dataloader.dataset)
    order['batch_sampler'] = cfg.pop('batch_sampler', None)
    order['drop_last'] = cfg.pop('drop_last', False)
    # The seed is the checkpoint's, since the order of the photos depends on it.
    return runner.build_dataloader(
        dict(cfg, batch_sampler=order), seed=runner.seed,
        diff_rank_seed=runner._randomness_cfg.get('diff_rank_seed', False))


class _Batches:
    """The batches of an advanced loader, after an empty one for each that is done.

    MMEngine's loop takes the empty ones and discards them; its fork calls `skip_iter`.
    """

    def __init__(self, dataloader: DataLoader, done: int) -> None:
        self._dataloader, self._done = dataloader, done
        self._batches: _InfiniteDataloaderIterator | None = None

    def __iter__(self) -> Iterator[dict]:
        return self

    def __next__(self) -> dict:
        if self._done:
            self._done -= 1
            return {}
        if self._batches is None:
            self._batches = _InfiniteDataloaderIterator(self._dataloader)
            first = next(self._batches)
            self._batches._epoch = self._dataloader.batch_sampler.passes
            return first
        return next(self._batches)

    def skip_iter(self, count: int) -> None:
        """Skip batches that are done."""
        self._done -= count


@LOOPS.register_module()
class ResumableIterLoop(IterBasedTrainLoop):
    """mmengine's iteration loop for detectors, which resumes without loading the data again.

    mmengine loads and discards every batch before it: an hour at iteration 60,000, in which no signal
    is heard. Here a resumed run gets the photos in the same order at once. Their augmentations are
    drawn anew.

    Args:
        runner (Runner): The runner.
        dataloader (dict): Config of the data loader.
        max_iters (int): Iterations of the whole run, which the schedule follows.
        stop_after (int, optional): Iterations after which the run ends, within its schedule. Defaults
            to None: it runs to its end.
        **kwargs: See `mmengine.runner.IterBasedTrainLoop`.
    """

    def __init__(self, runner: Runner, dataloader: dict, max_iters: int,
                 stop_after: int | None = None, **kwargs: Any) -> None:
        self._loader_cfg = dataloader
        self.stop_after = max_iters if stop_after is None else stop_after
        super().__init__(runner, dataloader, max_iters, **kwargs)

    def run(self) -> torch.nn.Module:
        """Train from the current iteration to the end of the run."""
        self.stop_training = self._iter >= self.stop_after
        if self._iter:
            begun = self.dataloader_iterator._iterator  # type: ignore[has-type]  # at its beginning
            if hasattr(begun, '_shutdown_workers'):
                begun._shutdown_workers()
            self.dataloader = _advanced(self, self._loader_cfg, self._iter)
            self.dataloader_iterator = _Batches(self.dataloader, self._iter)
            # of MMEngine's fork, which would train on the empty batches; nothing is loaded anyway
            self.fast_forward_on_resume = False
        return super().run()

    def run_iter(self, data_batch: Any) -> None:
        """Run one iteration."""
        super().run_iter(data_batch)
        self.stop_training = self._iter >= self.stop_after


@LOOPS.register_module()
class ResumableDetectorEpochLoop(EpochBasedTrainLoop):
    """mmengine's epoch loop for detectors, which also resumes inside an epoch.

    The photos of the epoch come in the same order; their augmentations are drawn anew.

    Args:
        runner (Runner): The runner.
        dataloader (dict): Config of the data loader.
        max_epochs (int): Epochs of the whole run.
        **kwargs: See `mmengine.runner.EpochBasedTrainLoop`.
    """

    def __init__(self, runner: Runner, dataloader: dict, max_epochs: int, **kwargs: Any) -> None:
        self._loader_cfg = dataloader
        super().__init__(runner, dataloader, max_epochs, **kwargs)

    def run(self) -> torch.nn.Module:
        """Train from the current iteration to the end of the run."""
        # A checkpoint may be from the last iteration of an epoch, and contains the seed of its run.
        self._epoch = self._iter // len(self.dataloader)  # type: ignore[has-type]
        sampler = self.dataloader.batch_sampler.sampler  # type: ignore[has-type]
        if self._iter and hasattr(sampler, 'seed'):
            sampler.seed = self.runner.seed
        return super().run()

    def run_epoch(self) -> None:
        """Run the rest of the current epoch."""
        whole: DataLoader = self.dataloader  # type: ignore[has-type]
        start = self._iter - self._epoch * len(whole)
        if start:
            self.dataloader = _advanced(self, {**self._loader_cfg, 'persistent_workers': False}, start)
        self.runner.call_hook('before_train_epoch')
        self.runner.model.train()
        for idx, data_batch in enumerate(self.dataloader, start):
            self.run_iter(idx, data_batch)
        self.runner.call_hook('after_train_epoch')
        self.dataloader = whole
        self._epoch += 1
