"""Tests of resuming at the right photo, with another batch, accumulation or number of processes."""
import logging
import math
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from mmengine.dataset import DefaultSampler
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner
from small import assert_same, tiny_config

import reference
from projects.soco.engine import CosineLR, ResumableBatchSampler, WarmupLR
from projects.soco.engine.resume_hook import _convert, step_to
from projects.soco.runs.log import read_run
from projects.soco.weights.read import find_newest_checkpoint, read_checkpoint


def samplers(photos: int, ranks: int, batch: int, accumulation: int) -> list[ResumableBatchSampler]:
    """Return the samplers of all ranks."""
    made = []
    for rank in range(ranks):
        base = DefaultSampler(range(photos), seed=3)
        base.rank, base.world_size = rank, ranks
        base.num_samples = math.ceil(photos / ranks)
        base.total_size = base.num_samples * ranks
        made.append(ResumableBatchSampler(base, batch, accumulation))
    return made


def loop_of(sampler: ResumableBatchSampler) -> SimpleNamespace:
    loader = SimpleNamespace(batch_sampler=sampler, dataset=SimpleNamespace(fingerprint=lambda: 'x'))
    return SimpleNamespace(dataloader=loader)


def shown(ranks: list[ResumableBatchSampler], start: int = 0, end: int | None = None) -> list[int]:
    """Return the photos of iterations of an epoch on all ranks."""
    return [key.index for sampler in ranks for i in range(start, len(sampler) if end is None else end)
            for key in sampler.keys_of(i)]


CONDITIONS = st.tuples(st.integers(1, 3), st.integers(1, 4), st.integers(1, 3))


@given(st.integers(36, 80), CONDITIONS, CONDITIONS, st.data())
def test_no_photo_is_shown_twice_beyond_those_of_a_begun_step(photos, before, now, data):
    old, new = samplers(photos, *before), samplers(photos, *now)
    steps = data.draw(st.integers(0, len(old[0]) // before[2]))
    done, epoch = steps * before[2], data.draw(st.integers(0, 3))
    full_epoch, done_of_it = divmod(epoch * len(old[0]) + done, len(old[0]))
    position = dict(epoch=full_epoch, photos=done_of_it * old[0].photos_per_iter, data='x',
                    photos_per_iter=old[0].photos_per_iter, photos_per_step=old[0].photos_per_step)
    meta = dict(iter=epoch * len(old[0]) + done, epoch=full_epoch, position=position)
    told = _convert('run.pth', meta, loop_of(new[0]))
    first = shown(old, end=done_of_it)
    assert len(first) == len(set(first)) == position['photos']
    begin = meta['iter'] - meta['epoch'] * len(new[0])
    assert 0 <= begin < len(new[0]) and begin % now[2] == 0
    if meta['epoch'] == full_epoch:
        rest = shown(new, begin)
        again = set(first) & set(rest)
        assert len(rest) == len(set(rest)) and len(again) == position['photos'] - (
            begin * new[0].photos_per_iter) < new[0].photos_per_step
        assert (f'{len(again)} photos are shown again' in told) == bool(again)
    else:  # the epoch is over: what is missing is less than a step of the new run
        assert meta['epoch'] == full_epoch + 1 and begin == 0
        assert len(shown(new)) <= position['photos']


def test_a_checkpoint_without_a_position_needs_its_own_batch():
    meta = dict(iter=14, epoch=2)
    told = _convert('old.pth', meta, loop_of(samplers(12, 1, 2, 1)[0]))
    assert meta == dict(iter=14, epoch=2) and '2 epochs and 2 of 6 iterations' in told
    with pytest.raises(ValueError, match='old.pth cannot be resumed with this batch.*14 iterations.*3'):
        _convert('old.pth', meta, loop_of(samplers(12, 2, 2, 1)[0]))


def test_other_data_is_refused():
    meta = dict(iter=0, epoch=0, position=dict(data='10 photos', epoch=0, photos=0))
    with pytest.raises(ValueError, match=r'a.pth.*trained on 10 photos.*the config has x\.'):
        _convert('a.pth', meta, loop_of(samplers(12, 1, 2, 1)[0]))


@pytest.mark.parametrize('done', [0, 1, 3, 10, 39])
def test_stepped_schedules_equal_those_of_an_uninterrupted_run(done):
    def build():
        optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.3)
        return optimizer, [WarmupLR(optimizer, share=0.1, end=40),
                           CosineLR(optimizer, begin=0.1, end=40, eta_min=1e-6)]
    whole, schedulers = build()
    for _ in range(done):
        whole.step()
        for scheduler in schedulers:
            scheduler.step()
    optimizer, fresh = build()
    step_to(fresh, done, 10)
    assert optimizer.param_groups[0]['lr'] == whole.param_groups[0]['lr']
    assert optimizer.param_groups[0]['lr'] == pytest.approx(
        reference.learning_rate(done, 0.3, 4, 40), rel=1e-6)
    for a, b in zip(fresh, schedulers):
        assert_same(a.state_dict(), b.state_dict())


@HOOKS.register_module()
class NoteHook(Hook):
    """Notes what each iteration used."""
    priority = 'LOWEST'
    notes: list = []

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        sampler = runner.train_dataloader.batch_sampler
        self.notes.append(SimpleNamespace(
            iter=runner.iter, epoch=runner.epoch, lr=self.lr,
            momentum=runner.message_hub.get_scalar('train/momentum').current(),
            photos=[key.index for key in sampler.keys_of(batch_idx)]))

    def before_train_iter(self, runner, batch_idx, data_batch=None) -> None:
        self.lr = runner.optim_wrapper.get_lr()['lr'][0]  # before the schedule moves on


def train(folder: Path, resume: str | None = None, **changes) -> list[SimpleNamespace]:
    """Train epochs of 12 of 13 photos; return what each iteration used."""
    NoteHook.notes = []
    cfg = tiny_config(folder, photos=13, **{
        'train_cfg.max_epochs': 2, 'default_hooks.checkpoint.by_epoch': False,
        'default_hooks.checkpoint.interval': 2, 'default_hooks.checkpoint.max_keep_ckpts': -1,
        'default_hooks.logger.interval': 1,
        'experiment_name': f'{folder.name}_{resume}_{len(changes)}_{sorted(changes.values(), key=str)}',
        'custom_hooks': [dict(type='NoteHook')], **changes})
    if resume:
        cfg.resume, cfg.load_from = True, str(folder / 'work' / resume)
    Runner.from_cfg(cfg).train()
    return NoteHook.notes


@pytest.mark.slow(10)
@pytest.mark.parametrize('resume, batch, accumulation, begins_at, again', [
    ('iter_4.pth', 4, 1, 2, 0),  # 8 photos are 2 iterations of 4
    ('iter_2.pth', 3, 2, 0, 4),  # 4 photos are less than a step of 6
    ('iter_8.pth', 2, 2, 8, 0),  # one epoch and 4 photos
    ('iter_6.pth', 4, 1, 3, 0),  # a whole epoch
    ('iter_4.pth', 8, 1, 1, 0),  # an epoch of one iteration is over
])
def test_a_run_goes_on_with_another_batch(tmp_path, caplog, resume, batch, accumulation, begins_at,
                                          again):
    before = train(tmp_path)
    assert len(before) == 12
    first = read_checkpoint(tmp_path / 'work' / resume)['meta']['iter']
    with caplog.at_level(logging.INFO, logger='mmengine'):
        after = train(tmp_path, resume, **{'train_dataloader.batch_size': batch, 'log_level': 'INFO',
                                           'optim_wrapper.accumulative_counts': accumulation})
    per_epoch = 13 // (batch * accumulation) * accumulation
    assert [note.iter for note in after] == list(range(begins_at, 2 * per_epoch))
    for note in after:
        assert note.lr == pytest.approx(
            reference.learning_rate(note.iter, 1e-3, max(1, round(0.2 * per_epoch)), 2 * per_epoch))
        assert note.momentum == pytest.approx(reference.target_momentum(
            note.iter // accumulation, 2 * per_epoch // accumulation, 0.9))
    epoch = after[0].epoch
    seen = [photo for note in before[:first] if note.epoch == epoch for photo in note.photos]
    shown = seen + [photo for note in after if note.epoch == epoch for photo in note.photos]
    assert len(shown) - len(set(shown)) == again
    # the curves of both starts are joined in iterations of the last one
    steps = [record['step'] for record in read_run(tmp_path / 'work') if 'loss' in record]
    assert steps == sorted(steps) and steps[-1] == 2 * per_epoch
    newest = find_newest_checkpoint(tmp_path / 'work')
    assert read_checkpoint(newest)['meta']['position']['epoch'] == 2


@pytest.mark.slow
def test_rate_and_length_of_the_config_hold(tmp_path):
    train(tmp_path)
    after = train(tmp_path, 'iter_4.pth', **{
        'optim_wrapper.optimizer.lr': 5e-4, 'optim_wrapper.optimizer.weight_decay': 0.0,
        'train_cfg.max_epochs': 3})
    assert [note.iter for note in after] == list(range(4, 18))
    for note in after:
        assert note.lr == pytest.approx(reference.learning_rate(note.iter, 5e-4, 2, 18))
    last = read_checkpoint(tmp_path / 'work/iter_18.pth')
    assert {group['weight_decay'] for group in last['optimizer']['param_groups']} == {0.0}


@pytest.mark.slow
@pytest.mark.parametrize('changes, message', [
    ({'train_cfg.max_epochs': 1}, 'cannot be resumed: 1 epochs and 4 photos of the next one are done, '
                                  'but the config trains for 1 epochs'),
    ({'train_dataloader.dataset.repeat': 2}, 'cannot be resumed on other data.*each 2 times'),
    ({'model.projector.out_channels': 64, 'model.head.predictor.in_channels': 64,
      'model.head.predictor.out_channels': 64}, 'cannot be resumed with the model.*instead of'),
])
def test_what_makes_no_sense_is_refused(tmp_path, changes, message):
    train(tmp_path)
    with pytest.raises(ValueError, match=f'iter_8.pth {message}'):
        train(tmp_path, 'iter_8.pth', **changes)
