"""Tests that resumed training is bit-identical to uninterrupted training."""
from pathlib import Path

import pytest
import torch
from mmengine.dataset import DefaultSampler
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner
from small import assert_same, tiny_config

from projects.soco.datasets import SampleKey
from projects.soco.engine import ResumableBatchSampler
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
