"""Tests that resumed training is bit-identical to uninterrupted training, or has the same data."""
import itertools
import signal
from collections import Counter, UserList
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from mmengine.dataset import DefaultSampler
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from mmengine.registry import DATASETS, HOOKS
from mmengine.runner import Runner
from small import assert_same, tiny_config

from projects.soco.datasets import SampleKey
from projects.soco.engine import ResumableBatchSampler, loops
from projects.soco.launch.errors import Stopped
from projects.soco.weights.read import find_newest_checkpoint


def batches(sampler: ResumableBatchSampler) -> list:
    return list(sampler)


class TestResumableBatchSampler:

    def test_batches_carry_epoch_and_seed(self):
        base = DefaultSampler(range(10), seed=7)
        base.set_epoch(3)
        all_keys = [key for batch in ResumableBatchSampler(base, 2) for key in batch]
        assert sorted(key.index for key in all_keys) == list(range(10))
        assert {(key.epoch, key.seed) for key in all_keys} == {(3, 7)}
        assert all(isinstance(key, SampleKey) for key in all_keys)

    def test_starts_in_the_middle(self):
        sampler = ResumableBatchSampler(DefaultSampler(range(11), seed=0), 2)
        whole = batches(sampler)
        assert len(whole) == len(sampler) == 5
        sampler.start = 3
        assert batches(sampler) == whole[3:] and len(sampler) == 5

    def test_an_epoch_is_a_whole_number_of_optimizer_steps(self):
        base = DefaultSampler(range(11), seed=0)
        assert len(ResumableBatchSampler(base, 2, accumulative_counts=2)) == 4
        assert len(ResumableBatchSampler(base, 2, accumulative_counts=3)) == 3

    def test_too_few_photos(self):
        with pytest.raises(ValueError, match='3 photos.*2 x 1 processes x accumulative_counts 2'):
            ResumableBatchSampler(DefaultSampler(range(3), seed=0), 2, accumulative_counts=2)
        photos = UserList(range(6))  # three photos, each twice per epoch
        photos.repeat, photos.store = 2, SimpleNamespace(path='/data/three.arrow')
        with pytest.raises(ValueError, match='dataset.repeat=6.*more photos than /data/three.arrow'):
            ResumableBatchSampler(DefaultSampler(photos, seed=0), 8, accumulative_counts=2)
        photos.data *= 3  # which is enough
        assert len(ResumableBatchSampler(DefaultSampler(photos, seed=0), 8, 2)) == 2


class Killed(Exception):
    pass


@HOOKS.register_module()
class KillHook(Hook):
    """Stops training after a number of iterations, like a kill."""
    priority = 'LOWEST'

    def __init__(self, after: int) -> None:
        self.after = after

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        if runner.iter + 1 == self.after:
            raise Killed


def train(folder: Path, accumulation: int, workers: int, kill_after: int | None = None,
          resume: bool = False) -> dict:
    """Train 2 epochs of 6 iterations; return the last checkpoint."""
    cfg = tiny_config(folder, photos=13, **{
        'train_dataloader.num_workers': workers,
        'train_dataloader.persistent_workers': workers > 0,
        'optim_wrapper.accumulative_counts': accumulation,
        'train_cfg.max_epochs': 2,
        'default_hooks.checkpoint.by_epoch': False,
        'default_hooks.checkpoint.interval': 4,
        'default_hooks.checkpoint.max_keep_ckpts': -1,
        'experiment_name': f'{folder.name}_{kill_after}_{resume}_{workers}_{accumulation}',
    })
    if kill_after:
        cfg.custom_hooks = [dict(type='KillHook', after=kill_after)]
    if resume:
        cfg.resume, cfg.load_from = True, str(find_newest_checkpoint(cfg.work_dir))
    runner = Runner.from_cfg(cfg)
    try:
        runner.train()
    except Killed:
        return {}
    return torch.load(find_newest_checkpoint(cfg.work_dir), weights_only=True)


@pytest.mark.slow(15)
@pytest.mark.parametrize('workers', [0, 2])
@pytest.mark.parametrize('accumulation', [1, 2])
def test_resumed_training_is_the_same_to_the_bit(tmp_path, accumulation, workers):
    whole = train(tmp_path / 'whole', accumulation, workers)
    # killed after 5 and after 9 iterations; checkpoints at 4 and 8; an epoch has 6 iterations
    train(tmp_path / 'parts', accumulation, workers, kill_after=5)
    assert find_newest_checkpoint(tmp_path / 'parts/work').name == 'iter_4.pth'
    train(tmp_path / 'parts', accumulation, workers, kill_after=9, resume=True)
    assert find_newest_checkpoint(tmp_path / 'parts/work').name == 'iter_8.pth'
    parts = train(tmp_path / 'parts', accumulation, workers, resume=True)
    assert whole['meta']['iter'] == parts['meta']['iter'] == 12
    for key in ('state_dict', 'optimizer', 'param_schedulers'):
        assert_same(whole[key], parts[key], key)
    target = [k for k in whole['state_dict'] if k.startswith('target.')]
    assert any(not torch.equal(whole['state_dict'][k], whole['state_dict'][k[7:]]) for k in target)


@pytest.mark.slow
def test_workers_change_nothing(tmp_path):
    none, two = (train(tmp_path / str(n), 1, n) for n in (0, 2))
    assert_same(none['state_dict'], two['state_dict'])


def test_a_checkpoint_between_optimizer_steps_is_refused(tmp_path):
    cfg = tiny_config(tmp_path, **{
        'optim_wrapper.accumulative_counts': 2, 'default_hooks.checkpoint.by_epoch': False,
        'default_hooks.checkpoint.interval': 3, 'train_cfg.max_epochs': 1})
    with pytest.raises(ValueError, match='every 3 iterations.*2 iterations'):
        Runner.from_cfg(cfg).train()


def test_resuming_brings_the_seed_of_the_run(tmp_path):
    """The order of the photos follows the checkpoint's seed, not the config's."""
    first = tiny_config(tmp_path / 'a', **{'train_cfg.max_epochs': 1, 'randomness.seed': 5,
                                           'default_hooks.checkpoint.interval': 1})
    Runner.from_cfg(first).train()
    again = tiny_config(tmp_path / 'a', **{'train_cfg.max_epochs': 1, 'randomness.seed': 6,
                                           'load_from': f'{first.work_dir}/epoch_1.pth',
                                           'resume': True, 'experiment_name': 'again'})
    runner = Runner.from_cfg(again)
    runner.train()
    assert runner.seed == 5
    assert runner.train_dataloader.batch_sampler.sampler.seed == 5


# detectors


@DATASETS.register_module()
class Numbers(torch.utils.data.Dataset):
    """Photos of two shapes; notes which of them are loaded."""
    loaded: list[int] = []

    def __len__(self) -> int:
        return 11

    def get_data_info(self, index: int) -> dict:
        return dict(width=2 + index % 3, height=3)

    def __getitem__(self, index: int) -> dict:
        self.loaded.append(index)
        return dict(inputs=torch.tensor(float(index)), data_samples=index)


class Sum(BaseModel):
    """Notes its batches; the signal of a cluster arrives in iteration `stop_in`."""

    def __init__(self, stop_in: int | None) -> None:
        super().__init__()
        self.factor = torch.nn.Parameter(torch.ones(()))
        self.stop_in, self.seen = stop_in, []

    def forward(self, inputs: list, data_samples: list, mode: str = 'loss') -> dict:
        self.seen.append(data_samples)
        if len(self.seen) == self.stop_in:
            signal.raise_signal(signal.SIGTERM)
        return dict(loss=self.factor * sum(inputs))


def train_numbers(folder: Path, train_cfg: dict, loader: dict, stop_in: int | None = None) -> list:
    """Train, or resume if there is a checkpoint; return the batches."""
    Numbers.loaded.clear()
    newest = find_newest_checkpoint(folder)
    model = Sum(stop_in)
    runner = Runner(
        model=model, work_dir=str(folder), train_cfg=train_cfg,
        train_dataloader={'batch_size': 2, 'num_workers': 0, 'dataset': dict(type='Numbers'), **loader},
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=1e-3)), resume=newest is not None,
        load_from=newest and str(newest), randomness=dict(seed=4 if newest else 3),
        default_hooks=dict(checkpoint=dict(type='PlainCheckpointHook', interval=100), logger=None,
                           resume=dict(type='ResumeHook'), stop=dict(type='StopSignalHook')),
        experiment_name=f'{folder.name}_{folder.parent.name}_{newest}', log_level='ERROR')
    try:
        runner.train()
    except Stopped:
        assert stop_in
    return model.seen


@pytest.fixture(params=['infinite, by shape', 'passes', 'passes, by shape', 'infinite, a worker'])
def order(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> dict:
    """Return how a loader orders its photos."""
    monkeypatch.setattr('multiprocessing.active_children', lambda: [])
    monkeypatch.setattr('time.sleep', lambda seconds: None)  # mmengine waits between passes
    kind = 'InfiniteSampler' if 'infinite' in request.param else 'DefaultSampler'
    by_shape = dict(batch_sampler=dict(type='mmdet.AspectRatioBatchSampler'))
    shapes: dict = by_shape if 'shape' in request.param else dict(drop_last=True)
    workers = dict(num_workers=1, persistent_workers=True) if 'worker' in request.param else {}
    return dict(sampler=dict(type=kind, shuffle=True), **shapes, **workers)


def test_a_detector_resumes_at_its_data_and_loads_nothing_before(tmp_path: Path, order: dict):
    """Also after several passes; the seed of the first start holds."""
    loop = dict(type='ResumableIterLoop', max_iters=18)
    whole = train_numbers(tmp_path / 'whole', loop, order)
    plain = train_numbers(tmp_path / 'plain', {**loop, 'type': 'IterBasedTrainLoop'}, order)
    assert whole == plain and len(whole) == 18 and len(Counter(map(tuple, whole))) > 9
    assert train_numbers(tmp_path / 'parts', loop, order, stop_in=5) == whole[:5]
    assert train_numbers(tmp_path / 'parts', loop, order, stop_in=7) == whole[5:12]
    assert find_newest_checkpoint(tmp_path / 'parts').name == 'iter_12.pth'
    assert train_numbers(tmp_path / 'parts', loop, order) == whole[12:]
    if 'num_workers' not in order:  # others load in their own process
        assert Numbers.loaded == list(itertools.chain(*whole[12:]))


def test_a_detector_may_stop_within_its_schedule(tmp_path: Path):
    """Its photos are those of the whole schedule, and nothing follows when it is resumed."""
    order: dict = dict(sampler=dict(type='InfiniteSampler', shuffle=True))
    loop = dict(type='ResumableIterLoop', max_iters=18)
    whole = train_numbers(tmp_path / 'whole', loop, order)
    assert train_numbers(tmp_path / 'part', {**loop, 'stop_after': 12}, order) == whole[:12]
    assert train_numbers(tmp_path / 'part', {**loop, 'stop_after': 12}, order) == []


def test_a_resumed_detector_skips_also_where_the_fork_is_told_not_to(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The option `fast_forward_on_resume` of its loop; the batches before are empty."""
    order: dict = dict(sampler=dict(type='InfiniteSampler', shuffle=True))
    loop = dict(type='ResumableIterLoop', max_iters=18)
    train_numbers(tmp_path, loop, order, stop_in=5)
    told = []
    monkeypatch.setattr(loops.ResumableIterLoop, 'fast_forward_on_resume', True, raising=False)
    monkeypatch.setattr(loops.IterBasedTrainLoop, 'run',
                        lambda loop: told.append(loop.fast_forward_on_resume))
    train_numbers(tmp_path, loop, order)
    assert told == [False]


@pytest.mark.parametrize('by_shape', [False, True])
def test_a_detector_that_counts_epochs_resumes_inside_one(tmp_path: Path, by_shape: bool,
                                                          monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr('multiprocessing.active_children', lambda: [])
    loop = dict(type='ResumableDetectorEpochLoop', max_epochs=3)
    order: dict = dict(sampler=dict(type='DefaultSampler', shuffle=True))
    if by_shape:
        order['batch_sampler'] = dict(type='mmdet.AspectRatioBatchSampler')
    whole = train_numbers(tmp_path / 'whole', loop, order)
    assert whole == train_numbers(tmp_path / 'plain', {**loop, 'type': 'EpochBasedTrainLoop'}, order)
    train_numbers(tmp_path / 'parts', loop, order, stop_in=8)  # an epoch has 6 iterations
    assert find_newest_checkpoint(tmp_path / 'parts').name == 'iter_8.pth'
    assert train_numbers(tmp_path / 'parts', loop, order) == whole[8:]
    assert Numbers.loaded == list(itertools.chain(*whole[8:]))


def test_epochs_of_another_length_resume_at_a_whole_one(tmp_path: Path,
                                                        monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr('multiprocessing.active_children', lambda: [])
    loop = dict(type='ResumableDetectorEpochLoop', max_epochs=2)
    order = dict(sampler=dict(type='DefaultSampler', shuffle=True))
    train_numbers(tmp_path, loop, order, stop_in=8)
    assert len(train_numbers(tmp_path, loop, {**order, 'drop_last': True})) == 5


@pytest.mark.parametrize('skip', [lambda batches: [next(batches) for _ in range(3)],
                                  lambda batches: batches.skip_iter(3)], ids=['MMEngine', 'its fork'])
def test_batches_that_are_done_are_skipped_as_either_host_does(skip: Callable):
    class Loader:
        batch_sampler = SimpleNamespace(passes=2)

        def __iter__(self) -> Iterator[str]:
            return iter('ab')

    batches = loops._Batches(Loader(), 3)
    skip(batches)
    assert [next(batches), next(batches)] == ['a', 'b'] and batches._batches._epoch == 2
