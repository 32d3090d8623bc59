"""Hooks that watch over a run: each is felt, and a run without it would go wrong."""
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from mmengine.logging import MMLogger
from mmengine.runner import Runner
from scripts import free_port
from small import ROOT, assert_same, tiny_config

from projects.soco.engine import (
    CollapseHook,
    FiniteLossHook,
    SameRunHook,
    StopSignalHook,
    find_newest_checkpoint,
)
from projects.soco.engine.guards import STOPPED, run_identity

ENV = {**os.environ, 'PYTHONPATH': str(ROOT), 'OMP_NUM_THREADS': '1'}


def dumped(folder: Path, **changes) -> tuple[Path, Path]:
    """A tiny run of 2 epochs of 6 iterations as a config file, and its work directory."""
    cfg = tiny_config(folder, photos=12, **{'train_cfg.max_epochs': 2, 'default_hooks.logger.interval': 1,
                                            'default_hooks.checkpoint.interval': 100,
                                            'log_level': 'INFO', **changes})
    cfg.dump(folder / 'config.py')
    return folder / 'config.py', Path(cfg.work_dir)


def start(config: Path, *arguments: str, processes: int = 1) -> subprocess.Popen:
    launcher = [] if processes == 1 else [
        '-m', 'torch.distributed.run', f'--nproc_per_node={processes}', '--master_addr=127.0.0.1',
        f'--master_port={free_port()}']
    launched = ['--launcher', 'pytorch'] if processes > 1 else []
    return subprocess.Popen(
        [sys.executable, *launcher, str(ROOT / 'tools/train.py'), str(config), *launched, *arguments],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=ENV)


def wait_for_iteration(process: subprocess.Popen, number: int) -> str:
    seen = ''
    for line in process.stdout:
        seen += line
        if f'[{number}/' in ''.join(line.split()) and 'Epoch(train)' in line:
            return seen
    raise AssertionError(seen[-3000:])


@pytest.mark.slow
@pytest.mark.parametrize('accumulation', [1, 2])
def test_sigterm_writes_a_checkpoint_and_the_run_goes_on_to_the_bit(tmp_path, accumulation):
    changes = {'optim_wrapper.accumulative_counts': accumulation}
    config, work_dir = dumped(tmp_path, **changes)
    whole = start(config, '--work-dir', str(tmp_path / 'whole'))
    output, _ = whole.communicate(timeout=300)
    assert whole.returncode == 0, output[-2000:]
    stopped = start(config)
    wait_for_iteration(stopped, 1)
    stopped.send_signal(signal.SIGTERM)
    output, _ = stopped.communicate(timeout=300)
    assert stopped.returncode == STOPPED == 75, output[-2000:]
    checkpoint = find_newest_checkpoint(work_dir)
    done = int(checkpoint.stem.split('_')[1])
    assert 1 <= done < 12 and done % accumulation == 0
    assert 'goes on from' in output and checkpoint.name in output
    resumed = start(config, '--resume')
    output, _ = resumed.communicate(timeout=300)
    assert resumed.returncode == 0, output[-2000:]
    ends = [torch.load(folder / 'epoch_2.pth', weights_only=True)
            for folder in (work_dir, tmp_path / 'whole')]
    for key in ('state_dict', 'optimizer', 'param_schedulers'):
        assert_same(ends[0][key], ends[1][key], key)


@pytest.mark.slow
def test_a_killed_rank_ends_the_other_and_is_named(tmp_path):
    config, work_dir = dumped(tmp_path, **{'train_cfg.max_epochs': 50,
                                           'default_hooks.checkpoint.interval': 1})
    process = start(config, processes=2)
    wait_for_iteration(process, 2)
    ranks = [int(pid) for pid in subprocess.run(
        ['pgrep', '-P', str(process.pid)], capture_output=True, text=True).stdout.split()]
    began = time.monotonic()
    os.kill(ranks[1], signal.SIGKILL)
    output, _ = process.communicate(timeout=120)
    assert time.monotonic() - began < 60 and process.returncode != 0
    assert 'Signal 9 (SIGKILL)' in output and 'rank      : 1' in output


@pytest.mark.slow
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
    assert SameRunHook().before_train(runner) is None  # alone there is nobody to compare with


class TestFiniteLoss:

    def run(self, tmp_path: Path, bad: int, **hook) -> Runner:
        """Train 6 iterations whose loss is NaN at number `bad` (from 0)."""
        cfg = tiny_config(tmp_path, photos=12, **{'train_cfg.max_epochs': 1,
                                                  'default_hooks.checkpoint.by_epoch': False,
                                                  'default_hooks.checkpoint.interval': 1,
                                                  'default_hooks.checkpoint.max_keep_ckpts': -1,
                                                  'experiment_name': tmp_path.name})
        cfg.custom_hooks[2] = dict(type='FiniteLossHook', **hook)
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

    @pytest.mark.parametrize('losses, patience, stops_at', [
        ([1, float('inf'), 1, 1], 0, 1), ([1, float('nan'), float('nan'), 1, 1], 2, None),
        ([float('nan')] * 3 + [1] + [float('inf')] * 4, 3, 7)])
    def test_what_a_gradient_scaler_may_skip(self, losses, patience, stops_at, tmp_path):
        hook = FiniteLossHook(patience=patience)
        scaler = SimpleNamespace(is_enabled=lambda: True)
        loader = SimpleNamespace(dataset=None, batch_sampler=None)
        for i, loss in enumerate(losses):
            runner = SimpleNamespace(optim_wrapper=SimpleNamespace(loss_scaler=scaler), iter=i,
                                     train_dataloader=loader, work_dir=str(tmp_path))
            batch = dict(data_samples=[SimpleNamespace(img_path=f'{i}.jpg')])
            if i == stops_at:
                with pytest.raises(FloatingPointError, match=f'{i}.jpg.*none was written yet'):
                    hook.after_train_iter(runner, i, batch, dict(loss=torch.tensor(loss)))
                return
            hook.after_train_iter(runner, i, batch, dict(loss=torch.tensor(loss)))
        assert stops_at is None

    def test_bad_arguments(self):
        with pytest.raises(ValueError, match='interval must be at least 1'):
            FiniteLossHook(interval=0)


class TestCollapse:

    def warnings(self, spreads: list, monkeypatch, **kwargs) -> list:
        logger = MMLogger.get_instance('collapse')
        told = []
        monkeypatch.setattr(logger, 'warning', told.append)
        hook = CollapseHook(interval=1, **kwargs)
        for i, spread in enumerate(spreads):
            hook.after_train_iter(SimpleNamespace(logger=logger, iter=i), i, None,
                                  dict(obj_std=torch.tensor(spread)))
        return told

    def test_it_warns_once_for_so_many_in_a_row(self, monkeypatch):
        told = self.warnings([0.5] + [0.05] * 4, monkeypatch, patience=3)
        assert len(told) == 1 and 'obj_std' in told[0] and 'for 3 looks in a row' in told[0]

    def test_it_is_quiet_otherwise(self, monkeypatch):
        assert not self.warnings([0.05, 0.05, 0.5, 0.05, 0.05], monkeypatch, patience=3)

    @pytest.mark.parametrize('kwargs', [dict(threshold=0), dict(patience=0), dict(interval=0)])
    def test_bad_arguments(self, kwargs):
        with pytest.raises(ValueError, match='CollapseHook'):
            CollapseHook(**kwargs)

    @pytest.mark.parametrize('constant', [1., 0.])  # all alike, and all dead
    def test_a_collapsed_network_is_noticed_in_training(self, tmp_path, monkeypatch, constant):
        cfg = tiny_config(tmp_path, photos=12, **{'train_cfg.max_epochs': 1,
                                                  'experiment_name': tmp_path.name})
        cfg.custom_hooks[3].update(interval=1, patience=2)
        runner = Runner.from_cfg(cfg)
        told = []
        monkeypatch.setattr(runner.logger, 'warning', lambda text, *args: told.append(str(text)))
        head = runner.model.roi_head.bbox_head
        monkeypatch.setattr(head, 'forward', lambda feats: feats.new_full(
            (len(feats), 256), constant) + 0 * feats.sum())
        runner.train()
        assert any('COLLAPSE?' in text for text in told)


def test_pools_of_metrics_still_end():
    """Their workers are forked with the handler, and are ended by the very signal."""
    code = ('import multiprocessing\n'
            'from projects.soco.engine import StopSignalHook\n'
            'StopSignalHook().before_train(None)\n'
            'pool = multiprocessing.get_context("fork").Pool(2)\n'
            'assert pool.map(abs, [-1, 2]) == [1, 2]\npool.terminate()\npool.join()')
    assert subprocess.run([sys.executable, '-c', code], env=ENV, timeout=60).returncode == 0


def test_only_asked_processes_stop(tmp_path):
    hook = StopSignalHook()
    runner = SimpleNamespace(iter=0, optim_wrapper=SimpleNamespace(_accumulative_counts=1))
    before = signal.getsignal(signal.SIGTERM)
    hook.before_train(runner)
    hook.after_train_iter(runner, 0)
    assert signal.getsignal(signal.SIGTERM) == hook._ask
    hook.after_train(runner)
    assert signal.getsignal(signal.SIGTERM) == before and not hook.asked
