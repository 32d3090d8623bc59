"""Tests of the hooks that guard a run: each has an effect, and a run without it would fail."""
import os
import re
import signal
import subprocess
import time
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from miniatures import ROOTS, WRITERS, point_to, shrink
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.logging import MessageHub, MMLogger
from mmengine.optim import build_optim_wrapper
from mmengine.registry import init_default_scope
from mmengine.runner import EpochBasedTrainLoop, IterBasedTrainLoop, Runner
from scripts import PYTHON, free_port
from small import ROOT, assert_same, tiny_config

import projects.soco.datasets  # noqa: F401  (registers the data set)
from projects.soco.compat.cpu import cpu_config
from projects.soco.engine import CollapseHook, FiniteLossHook, SameRunHook, StopSignalHook
from projects.soco.engine.finite_loss_hook import image_names
from projects.soco.engine.same_run_hook import run_identity
from projects.soco.launch.configs import load_config
from projects.soco.launch.errors import STOPPED, Stopped
from projects.soco.models import VarianceCovariance
from projects.soco.proposals.store import StoreWriter
from projects.soco.weights.read import find_newest_checkpoint, read_checkpoint

ENV = {**os.environ, 'PYTHONPATH': str(ROOT), 'OMP_NUM_THREADS': '1'}


def dumped(folder: Path, **changes) -> tuple[Path, Path]:
    """Write a config of a tiny run, 2 epochs of 6 iterations; return its file and work directory."""
    cfg = tiny_config(folder, photos=12, **{
        'train_cfg.max_epochs': 2, 'default_hooks.logger.interval': 1,
        'default_hooks.checkpoint.interval': 100, 'log_level': 'INFO', **changes})
    cfg.dump(folder / 'config.py')
    return folder / 'config.py', Path(cfg.work_dir)


def start(config: Path, *arguments: str, processes: int = 1, **env: str) -> subprocess.Popen:
    """Train in a process group of its own, whose first process hands the call to the training's."""
    launcher = [] if processes == 1 else [
        '-m', 'torch.distributed.run', f'--nproc_per_node={processes}', '--master_addr=127.0.0.1',
        f'--master_port={free_port()}']
    launched = ['--launcher', 'pytorch'] if processes > 1 else []
    return subprocess.Popen(
        [PYTHON, *launcher, str(ROOT / 'tools/train.py'), str(config), *launched, *arguments],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env={
            **ENV, **env, 'SOCO_WARM_PID': f'{config}.pid'},
        process_group=0)


def ranks_of(config: Path, process: subprocess.Popen) -> list[int]:
    """Return the process ids of the ranks of a run in two processes; each leads its own group."""
    agent = Path(f'{config}.pid.{process.pid}').read_text()
    return [int(Path(f'{config}.pid.{caller}').read_text()) for caller in pids('-P', agent)]


def finish(process: subprocess.Popen, code: int = 0) -> str:
    output, _ = process.communicate(timeout=300)
    assert process.returncode == code, output[-3000:]
    return output


def wait_for_iteration(process: subprocess.Popen, number: int) -> str:
    seen = ''
    for line in process.stdout:
        seen += line
        if f'[{number}/' in ''.join(line.split()) and '(train)' in line:
            return seen
    raise AssertionError(seen[-3000:])


def pids(*options: str) -> list[int]:
    found = subprocess.run(['pgrep', *options], capture_output=True, text=True).stdout
    return [int(pid) for pid in found.split()]


def assert_gone(groups: list[int], seconds: float) -> None:
    """Check that no process of these groups is left after `seconds`."""
    until = time.monotonic() + seconds
    while any(pids('-g', str(group)) for group in groups):
        assert time.monotonic() < until, [pids('-g', str(group)) for group in groups]
        time.sleep(0.1)


def assert_same_end(*folders: Path, name: str = 'epoch_2.pth') -> None:
    ends = [torch.load(folder / name, weights_only=True) for folder in folders]
    for key in ('state_dict', 'optimizer', 'param_schedulers'):
        assert_same(ends[0][key], ends[1][key], key)


@pytest.mark.slow
@pytest.mark.parametrize('accumulation, workers', [(2, 0), (1, 2)])
def test_sigterm_writes_a_checkpoint_and_the_run_goes_on_to_the_bit(tmp_path, accumulation, workers):
    """The signal goes to all processes of the run, as a cluster sends it."""
    config, work_dir = dumped(tmp_path, **{'optim_wrapper.accumulative_counts': accumulation,
                                           'train_dataloader.num_workers': workers,
                                           'train_dataloader.persistent_workers': workers > 0})
    whole = start(config, '--work-dir', str(tmp_path / 'whole'))
    finish(whole)
    stopped = start(config, SOCO_STOPPED=str(tmp_path / 'mark'))
    wait_for_iteration(stopped, 1)
    assert len(pids('-g', str(stopped.pid))) == 2 + workers and not (tmp_path / 'mark').exists()
    os.killpg(stopped.pid, signal.SIGTERM)
    output = finish(stopped, STOPPED)
    assert STOPPED == 75 and (tmp_path / 'mark').is_file() and 'Traceback' not in output
    assert_gone([stopped.pid], seconds=1)
    checkpoint = find_newest_checkpoint(work_dir)
    done = read_checkpoint(checkpoint)['meta']['iter']
    assert 1 <= done < 12 and done % accumulation == 0
    assert f'continues from {checkpoint}' in output
    finish(start(config, '--resume'))
    assert_same_end(work_dir, tmp_path / 'whole')


@pytest.fixture(scope='module')
def whole_of_two(tmp_path_factory) -> Path:
    """The work directory of an uninterrupted run of two processes."""
    folder = tmp_path_factory.mktemp('whole')
    config, work_dir = dumped(folder, **TWO_RANKS)
    finish(start(config, processes=2))
    return work_dir


@pytest.mark.slow(20)
def test_a_run_of_one_process_goes_on_with_two(tmp_path):
    """Its checkpoint has as many iterations as the whole run of two processes has."""
    config, work_dir = dumped(tmp_path, **{'default_hooks.checkpoint.interval': 1})
    finish(start(config))
    output = finish(start(config, '--resume', str(work_dir / 'epoch_1.pth'), '--epochs', '3',
                          processes=2))
    assert output.count('Changed since the checkpoint: train_cfg.max_epochs was 2, is 3.') == 1
    assert '1 epochs and 0 photos of the next one are done; 2 photos per optimizer step before, 4 now' \
        in output
    ends = [read_checkpoint(work_dir / f'epoch_{n}.pth')['meta'] for n in (2, 3)]
    assert [(end['position']['epoch'], end['iter']) for end in ends] == [(2, 6), (3, 9)]
    refused = start(config, '--resume', '--epochs', '2')
    assert 'for a shorter run: 3 epochs are done' in ' '.join(finish(refused, 2).split())


TWO_RANKS = {'train_cfg.max_epochs': 4, 'train_dataloader.num_workers': 1,
             'train_dataloader.persistent_workers': True}


@pytest.mark.slow(30)
@pytest.mark.parametrize('whom', ['rank 0', 'rank 1', 'all'])
def test_a_signal_stops_all_ranks_after_the_same_step(tmp_path, whole_of_two, whom):
    """torchrun turns 75 into 1, and signals all processes of a rank when another rank has exited."""
    config, work_dir = dumped(tmp_path, **TWO_RANKS)
    process = start(config, processes=2, SOCO_STOPPED=str(tmp_path / 'mark'))
    wait_for_iteration(process, 1)
    ranks = ranks_of(config, process)
    assert len(ranks) == 2 and all(len(pids('-g', str(rank))) == 2 for rank in ranks)
    if whom == 'all':
        for group in (process.pid, *ranks):
            os.killpg(group, signal.SIGTERM)
    else:
        os.kill(ranks[int(whom[-1])], signal.SIGTERM)
    output = finish(process, 1)
    assert_gone([process.pid, *ranks], seconds=1)
    checkpoint = find_newest_checkpoint(work_dir)
    assert checkpoint is not None and f'continues from {checkpoint}' in ''.join(output.split('\n'))
    assert (tmp_path / 'mark').is_file() and 'DataLoader worker' not in output
    if whom != 'all':  # then torchrun reports the exit codes of the ranks
        assert set(re.findall(r'exitcode\s*: (-?\d+)', output)) == {'75'}
    finish(start(config, '--resume', processes=2))
    assert_same_end(work_dir, whole_of_two, name='epoch_4.pth')


@pytest.mark.slow(25)
def test_a_detector_stops_and_goes_on_and_is_evaluated(tmp_path):
    """MMEngine's own loop; the VOC metric's pool still ends after the hook has set its handlers."""
    cfg = Config.fromfile(ROOT / 'configs/benchmarks/mmdetection/voc0712/'
                          'faster-rcnn_r50_c4_ms-24k_voc0712.py')
    point_to(cfg, ROOTS['voc0712'], WRITERS['voc0712'](tmp_path / 'voc'))
    shrink(cfg, iterations=6)
    cfg.train_dataloader.update(num_workers=1, persistent_workers=True)
    cfg_for_cpu = cpu_config(cfg)
    cfg_for_cpu.work_dir = str(tmp_path / 'work')
    cfg_for_cpu.dump(tmp_path / 'config.py')
    arguments = (tmp_path / 'config.py', '--pretrained', 'random')
    process = start(*arguments)
    wait_for_iteration(process, 2)
    os.killpg(process.pid, signal.SIGTERM)
    finish(process, STOPPED)
    checkpoint = find_newest_checkpoint(tmp_path / 'work')
    done = int(checkpoint.stem.split('_')[1])
    assert 2 <= done < 6
    output = finish(start(*arguments, '--resume'))
    assert f'Resuming from {checkpoint}' in output and f'[{done + 1}/6]' in ''.join(output.split())
    assert 'pascal_voc/mAP' in output
    assert find_newest_checkpoint(tmp_path / 'work').name == 'iter_6.pth'


@pytest.mark.parametrize('sent_at, name', [(2, 'iter_3.pth'), (5, 'epoch_1.pth'), (11, None)])
def test_where_a_run_stops(tmp_path, monkeypatch, sent_at, name):
    """Inside an epoch; at its end, after the other hooks; not at the end of the run."""

    class Signal(Hook):

        def before_train_iter(self, runner: Runner, *args, **kwargs) -> None:
            if runner.iter == sent_at:
                signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr('multiprocessing.active_children', lambda: [])
    cfg = tiny_config(tmp_path, photos=12, **{
        'train_cfg.max_epochs': 2, 'default_hooks.checkpoint.interval': 100,
        'experiment_name': tmp_path.name})
    runner = Runner.from_cfg(cfg)
    runner.register_hook(Signal())
    with pytest.raises(Stopped) if name else nullcontext():
        runner.train()
    newest = find_newest_checkpoint(tmp_path / 'work')
    assert newest.name == (name or 'epoch_2.pth')
    meta = read_checkpoint(newest)['meta']
    assert meta['iter'] == sent_at + 1 and meta['epoch'] == meta['iter'] // 6


def test_a_loop_that_cannot_go_on_inside_an_epoch_writes_nothing_there(tmp_path, monkeypatch):
    told = []
    loop = EpochBasedTrainLoop.__new__(EpochBasedTrainLoop)
    torch.save(dict(state_dict={}, meta=dict(iter=4)), tmp_path / 'epoch_2.pth')
    loop.dataloader = [None] * 9
    runner = SimpleNamespace(iter=4, max_iters=18, train_loop=loop, work_dir=str(tmp_path),
                             optim_wrapper=SimpleNamespace(_accumulative_counts=1),
                             logger=SimpleNamespace(warning=told.append))
    hook = StopSignalHook()
    hook.before_train(runner)
    monkeypatch.setattr('multiprocessing.active_children', lambda: [])
    signal.raise_signal(signal.SIGTERM)
    with pytest.raises(Stopped) as stopped:
        hook.after_train_iter(runner, 4)
    assert stopped.value.code == 75 and f'continues from {tmp_path}/epoch_2.pth' in told[0]
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_IGN  # another signal must not disturb it


@pytest.mark.slow
def test_a_run_that_is_about_to_validate_does_so_before_it_stops(monkeypatch):
    """Otherwise the validation would be lost: a resumed run continues after it."""
    loop = IterBasedTrainLoop.__new__(IterBasedTrainLoop)
    loop.dynamic_milestones, loop.dynamic_intervals, loop.val_begin = [0], [4], 1
    hook, stopped = StopSignalHook(), []
    hook.asked = True
    monkeypatch.setattr(hook, '_save', lambda *args, **kwargs: None)
    monkeypatch.setattr(hook, '_stop', lambda runner, done, path: stopped.append(done))
    for i in range(2, 6):  # validation is due after the fourth iteration, i = 3
        hook.after_train_iter(SimpleNamespace(
            train_loop=loop, val_loop=object(), iter=i, max_iters=12,
            optim_wrapper=SimpleNamespace(_accumulative_counts=1)), i)
    assert stopped == [3, 5, 6]


@pytest.mark.slow(30)
def test_a_killed_rank_ends_the_other_and_is_named_and_resume_goes_on(tmp_path, whole_of_two):
    config, work_dir = dumped(tmp_path, **{**TWO_RANKS, 'default_hooks.checkpoint.by_epoch': False,
                                           'default_hooks.checkpoint.interval': 1})
    process = start(config, processes=2)
    wait_for_iteration(process, 2)
    ranks = ranks_of(config, process)
    began = time.monotonic()
    os.kill(ranks[1], signal.SIGKILL)
    output = finish(process, 1)
    assert time.monotonic() - began < 60
    assert 'Signal 9 (SIGKILL)' in output and 'rank      : 1' in output
    assert_gone([process.pid, *ranks], seconds=10)  # data workers check for their parent every 5 s
    checkpoint = find_newest_checkpoint(work_dir)
    assert checkpoint is not None
    assert f'Resuming from {checkpoint}' in finish(start(config, '--resume', processes=2))
    ends = [torch.load(path, weights_only=True)['state_dict']
            for path in (work_dir / 'iter_12.pth', whole_of_two / 'epoch_4.pth')]
    assert_same(*ends)


@pytest.mark.slow(18)
def test_a_rank_whose_photos_have_no_usable_box_does_not_hang_the_other(tmp_path):
    """Every batch of rank 1 contains only photos without a box, or with a box of one pixel."""
    config, work_dir = dumped(tmp_path, **{'train_dataloader.sampler.shuffle': False,
                                           'train_cfg.max_epochs': 1})
    photos = sorted((tmp_path / 'photos').iterdir())
    with StoreWriter(tmp_path / 'proposals.arrow', dict(rules=['made up'])) as writer:
        for i, photo in enumerate(photos):
            boxes = ([[8, 8, 60, 50], [20, 10, 40, 40]], [], [[4, 5, 70, 60]], [[95, 71, 1, 1]])[i % 4]
            writer.add(photo.name, 96, 72, boxes, 'made up')
    output = finish(start(config, processes=2))
    assert '[3/3]' in ''.join(output.split())
    weights = torch.load(work_dir / 'epoch_1.pth', weights_only=True)['state_dict']
    assert all(value.isfinite().all() for value in weights.values())


@pytest.mark.slow(15)
def test_ranks_that_disagree_stop_before_the_first_step(tmp_path):
    config, work_dir = dumped(tmp_path)
    child = tmp_path / 'child.py'
    child.write_text(f"_base_ = '{config}'\nimport os\n"
                     "optim_wrapper = dict(optimizer=dict(lr=0.1 + int(os.environ.get('RANK', 0))))\n")
    process = start(child, processes=2)
    output, _ = process.communicate(timeout=300)
    text = ' '.join(output.split())
    assert process.returncode != 0 and 'differ in the config (rank 0: ' in text and 'rank 1: ' in text
    assert 'Epoch(train)' not in text


def test_what_makes_runs_the_same(tmp_path):
    identity = []
    for lr, photos in ((0.1, 4), (0.1, 4), (0.2, 4), (0.1, 5)):
        folder = tmp_path / str(len(identity))
        cfg = tiny_config(folder, photos=photos, **{'optim_wrapper.optimizer.lr': lr})
        cfg.work_dir = str(folder)
        runner = Runner.from_cfg(dict(cfg._cfg_dict.to_dict(), experiment_name=f'{tmp_path}{folder}'))
        runner._train_loop = runner.build_train_loop(runner._train_loop)
        identity.append(run_identity(runner))
    first, moved, rate, more = identity
    assert {k for k in first if first[k] != rate[k]} >= {'the config'}
    assert first['the data'] == moved['the data'] != more['the data']
    assert first['the code'] == rate['the code'] and len(first['the code']) == 12
    assert SameRunHook().before_train(runner) is None  # a single process has nothing to compare


class TestFiniteLoss:

    def run(self, tmp_path: Path, bad: int, **hook) -> Runner:
        """Train 6 iterations; the loss is NaN in iteration `bad` (from 0)."""
        cfg = tiny_config(tmp_path, photos=12, **{'train_cfg.max_epochs': 1,
                                                  'default_hooks.checkpoint.by_epoch': False,
                                                  'default_hooks.checkpoint.interval': 1,
                                                  'default_hooks.checkpoint.max_keep_ckpts': -1,
                                                  'experiment_name': tmp_path.name})
        cfg.default_hooks.finite_loss.update(hook)
        runner = Runner.from_cfg(cfg)
        loss, calls = runner.model.loss, []

        def spoiled(*args) -> dict:
            losses = loss(*args)
            calls.append(1)
            if len(calls) == bad + 1:
                losses['loss_12'] = losses['loss_12'] * float('nan')
            return losses

        runner.model.loss = spoiled
        self.runner = runner
        runner.train()
        return runner

    def test_it_stops_and_names_iteration_images_and_checkpoint(self, tmp_path):
        with pytest.raises(FloatingPointError) as error:
            self.run(tmp_path, bad=3)
        message = str(error.value)
        assert 'since iteration 4' in message and 'iter_3.pth' in message and '--resume' in message
        keys = self.runner.train_dataloader.batch_sampler.keys_of(3)
        assert len(keys) == 2
        for key in keys:
            assert self.runner.train_dataloader.dataset.image_name(key) in message
        assert find_newest_checkpoint(tmp_path / 'work').name == 'iter_3.pth'

    def test_without_it_nan_weights_would_be_written_but_for_the_second_guard(self, tmp_path,
                                                                              monkeypatch):
        monkeypatch.setattr(FiniteLossHook, 'after_train_iter', lambda *args, **kwargs: None)
        with pytest.raises(FloatingPointError, match='not finite after iteration 4.*earlier ones'):
            self.run(tmp_path, bad=3)
        assert find_newest_checkpoint(tmp_path / 'work').name == 'iter_3.pth'

    def steps(self, overflow: list[int], tmp_path: Path, monkeypatch, forward: bool = False,
              accumulation: int = 1, **hook) -> SimpleNamespace:
        """Train 6 iterations under a gradient scaler; gradients, or activations, overflow in some."""
        module = 'mmengine.optim.optimizer.amp_optimizer_wrapper'
        monkeypatch.setattr(f'{module}.is_cuda_available', lambda: True)
        monkeypatch.setattr(f'{module}.GradScaler', partial(torch.amp.GradScaler, 'cpu'))
        model = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.BatchNorm1d(4))
        wrapper = build_optim_wrapper(model, dict(
            type='AmpOptimWrapper', accumulative_counts=accumulation,
            optimizer=dict(type='SoCoLARS', lr=0.1)))
        guard = FiniteLossHook(**hook)
        runner = SimpleNamespace(
            model=model, optim_wrapper=wrapper, work_dir=str(tmp_path), hooks=[],
            message_hub=MessageHub(tmp_path.name), train_dataloader=SimpleNamespace(dataset=None))
        model[0].weight.register_hook(
            lambda grad: grad * (float('inf') if runner.iter in overflow and not forward else 1))
        for i in range(6):
            runner.iter = i
            factor = float('inf') if i in overflow and forward else 1
            loss = model[1](model[0](torch.randn(8, 4)) * factor).square().mean()
            wrapper.update_params(loss)
            guard.after_train_iter(runner, i, {}, dict(loss=loss))
        return runner

    def test_steps_that_a_gradient_scaler_skips_are_counted(self, tmp_path, monkeypatch):
        scalars = self.steps([0, 3, 4], tmp_path, monkeypatch, patience=2).message_hub
        assert scalars.get_scalar('train/skipped_steps').data[0].tolist() == [1, 1, 1, 2, 3, 3]
        assert scalars.get_scalar('train/amp_scale').data[0].tolist() == [
            2.**power for power in (15, 15, 15, 14, 13, 13)]

    @pytest.mark.parametrize(('accumulation', 'stops_at', 'scale'), [(1, 2, '16384'), (2, 4, '16384')])
    def test_a_scale_that_only_falls_stops_the_run(self, tmp_path, monkeypatch, accumulation, stops_at,
                                                   scale):
        """Steps are counted, not the iterations whose gradients are accumulated."""
        told = (f'Up to iteration {stops_at},.*more than 1 optimizer steps in a row.*{scale} now.*none '
                'was.*bfloat16')
        with pytest.raises(FloatingPointError, match=told):
            self.steps(list(range(6)), tmp_path, monkeypatch, accumulation=accumulation, patience=1)

    def test_a_loss_that_is_not_finite_stops_a_run_also_under_a_scaler(self, tmp_path, monkeypatch):
        """The scaler skips the step, but BN has seen the activations, and its statistics stay NaN."""
        with pytest.raises(FloatingPointError, match='since iteration 3'):
            self.steps([2], tmp_path, monkeypatch, forward=True)
        monkeypatch.setattr(FiniteLossHook, 'after_train_iter', lambda *args, **kwargs: None)
        runner = self.steps([2], tmp_path, monkeypatch, forward=True)
        assert all(p.isfinite().all() for p in runner.model.parameters())
        with pytest.raises(FloatingPointError, match='running_mean is not finite after iteration 6'):
            FiniteLossHook().before_save_checkpoint(runner, dict(state_dict=runner.model.state_dict()))

    def test_names_are_those_of_the_epoch_that_failed(self, tmp_path):
        """On a GPU, the check may come in the next epoch, whose order is another."""
        cfg = tiny_config(tmp_path, photos=12)
        init_default_scope('mmselfsup')
        loader = Runner.build_dataloader({**cfg.train_dataloader, 'batch_sampler': dict(
            type='ResumableBatchSampler')}, seed=0)
        base = loader.batch_sampler.sampler
        base.set_epoch(1)
        expected = [loader.dataset.image_name(key) for key in loader.batch_sampler.keys_of(2)]
        names = image_names(SimpleNamespace(train_dataloader=loader), 2, {})
        base.set_epoch(2)
        assert names() == expected
        assert expected != [loader.dataset.image_name(key) for key in loader.batch_sampler.keys_of(2)]
        assert base.epoch == 2

    def test_bad_arguments(self):
        with pytest.raises(ValueError, match='interval must be at least 1'):
            FiniteLossHook(interval=0)


class TestCollapse:

    def warnings(self, spreads: list, monkeypatch, ranks: list | None = None,
                 terms: VarianceCovariance | None = None, **kwargs) -> list:
        logger, hub = MMLogger.get_instance('collapse'), MessageHub('collapse')
        told = []
        monkeypatch.setattr(logger, 'warning', told.append)
        hook, model = CollapseHook(interval=1, **kwargs), torch.nn.Module()
        model.regulariser = terms
        for i, spread in enumerate(spreads):
            if ranks and ranks[i] is not None:  # a rank is not measured in every iteration
                hub.update_scalar('train/obj_rank', ranks[i])
            runner = SimpleNamespace(logger=logger, iter=i, message_hub=hub, model=model)
            hook.after_train_iter(runner, i, None, dict(obj_std=torch.tensor(spread)))
        return told

    def test_it_warns_once_for_so_many_in_a_row(self, monkeypatch):
        told = self.warnings([0.5] + [0.05] * 4, monkeypatch, patience=3)
        assert len(told) == 1 and 'obj_std' in told[0] and 'in 3 checks in a row' in told[0]

    def test_it_is_quiet_otherwise(self, monkeypatch):
        assert not self.warnings([0.05, 0.05, 0.5, 0.05, 0.05], monkeypatch, patience=3)

    def test_it_warns_once_of_a_low_rank_though_the_spread_is_large(self, monkeypatch):
        ranks = [100., 19., None, 19., 30., None, None, 19., 19.9, None, 2., 2., 2.]
        for patience, expected in ((3, 1), (5, 1), (6, 0)):
            told = self.warnings([0.9] * len(ranks), monkeypatch, ranks, patience=patience)
            assert len(told) == expected
        told = self.warnings([0.9] * 11, monkeypatch, ranks, patience=3)
        assert 'obj_rank) is 2.0, below 20% of the 100.0 at the start, in 3 measurements' in told[0]
        option = re.search('--cfg-options "(model.regulariser)=(.*?)"$', told[0])
        for name in ('soco_r50_fpn_400e.py', 'benchmarks/transfer_study/soco_lite0.py'):  # none, None
            cfg = load_config(str(ROOT / 'configs' / name), {option[1]: option[2]}, register=False)
            assert cfg.model.regulariser == dict(type='VarianceCovariance')
        told = self.warnings([0.9] * 11, monkeypatch, ranks, VarianceCovariance(), patience=3)
        assert 'a larger model.regulariser.covariance_weight than 0.16' in told[0]
        assert '--cfg-options' not in told[0]
        assert not self.warnings([0.9] * 10, monkeypatch, ranks, patience=3)
        assert not self.warnings([0.9] * len(ranks), monkeypatch, ranks, patience=3, rank_share=0)

    @pytest.mark.parametrize('kwargs', [dict(threshold=0), dict(patience=0), dict(interval=0),
                                        dict(rank_share=1), dict(rank_share=-.1)])
    def test_bad_arguments(self, kwargs):
        with pytest.raises(ValueError, match='CollapseHook'):
            CollapseHook(**kwargs)

    @pytest.mark.parametrize('constant', [1., 0.])  # all features equal, and all zero
    def test_a_collapsed_network_is_noticed_in_training(self, tmp_path, monkeypatch, constant):
        cfg = tiny_config(tmp_path, photos=12, **{'train_cfg.max_epochs': 1,
                                                  'experiment_name': tmp_path.name})
        cfg.default_hooks.collapse.update(interval=1, patience=2)
        runner = Runner.from_cfg(cfg)
        told = []
        monkeypatch.setattr(runner.logger, 'warning', lambda text, *args: told.append(str(text)))
        head = runner.model.roi_head.bbox_head
        monkeypatch.setattr(head, 'forward', lambda feats: feats.new_full(
            (len(feats), 256), constant) + 0 * feats.sum())
        runner.train()
        assert any('COLLAPSE?' in text for text in told)


def test_forked_helpers_are_ended_by_their_parent_and_by_nobody_else():
    """A pool as in mmdet's VOC metric: terminate() sends its workers the same signal."""
    code = ('import multiprocessing, time\n'
            'from projects.soco.engine import StopSignalHook\n'
            'hook = StopSignalHook()\n'
            'hook.before_train(None)\n'
            'pool = multiprocessing.get_context("fork").Pool(2)\n'
            'work = pool.map_async(time.sleep, [1, 1])\n'
            'print("ready", flush=True)\n'
            'assert work.get(timeout=30) == [None, None] and hook.asked\n'
            'pool.map_async(time.sleep, [600, 600])\n'
            'time.sleep(0.5)\n'
            'pool.terminate()\npool.join()')
    process = subprocess.Popen([PYTHON, '-c', code], env=ENV, stdout=subprocess.PIPE, text=True,
                               process_group=0)
    assert process.stdout.readline() == 'ready\n' and os.getpgid(process.pid) == process.pid
    os.killpg(process.pid, signal.SIGTERM)
    assert process.wait(timeout=60) == 0
    assert_gone([process.pid], seconds=1)


def test_only_asked_processes_stop(tmp_path):
    hook = StopSignalHook()
    runner = SimpleNamespace(iter=0, max_iters=9, train_loop=None,
                             optim_wrapper=SimpleNamespace(_accumulative_counts=1))
    before = signal.getsignal(signal.SIGTERM)
    hook.before_train(runner)
    hook.after_train_iter(runner, 0)
    assert signal.getsignal(signal.SIGTERM) == hook._ask
    hook.after_train(runner)
    assert signal.getsignal(signal.SIGTERM) == before and not hook.asked
