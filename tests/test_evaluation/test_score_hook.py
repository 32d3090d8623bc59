"""Scores during pretraining: they are written, and do not change the training."""
import json
import os
import subprocess
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmengine.runner import Runner
from PIL import Image
from scripts import PYTHON, free_port
from small import ROOT, assert_same, make_photos, make_store, tiny_config

from projects.soco.evaluation import held_out_dataset, score_objects
from projects.soco.evaluation.score_hook import ObjectScoreHook


def train(folder: Path, **hook) -> Runner:
    """Train two epochs of one iteration; without arguments, the hook of the config does nothing."""
    cfg = tiny_config(folder, photos=2, **{
        'train_cfg.max_epochs': 2, 'default_hooks.logger.interval': 1,
        'default_hooks.checkpoint.interval': -1,
        'experiment_name': f'hook_{folder.name}'})
    if hook:
        make_photos(folder / 'held_out', 3, seed=7)
        make_store(folder / 'held_out.arrow', folder / 'held_out', seed=7)
        cfg.default_hooks.scores.update(images=str(folder / 'held_out'),
                                        proposals=str(folder / 'held_out.arrow'), **hook)
    runner = Runner.from_cfg(cfg)
    runner.train()
    runner.end = torch.get_rng_state()
    return runner


@pytest.fixture(scope='module')
def runs(tmp_path_factory):
    return [train(tmp_path_factory.mktemp('plain')),
            train(tmp_path_factory.mktemp('scored'), interval=1, repeats=1, num_queries=2)]


def records(runner: Runner) -> list:
    (path, ) = Path(runner.work_dir).glob('*/vis_data/scalars.json')
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_training_ends_with_the_same_bits(runs):
    plain, scored = runs
    assert_same(dict(plain.model.state_dict()), dict(scored.model.state_dict()))
    assert_same(plain.optim_wrapper.state_dict(), scored.optim_wrapper.state_dict())
    assert torch.equal(plain.end, scored.end)
    losses = [[r['loss'] for r in records(runner) if 'loss' in r] for runner in runs]
    assert losses[0] == losses[1] and len(losses[0]) == 2


def test_scores_and_pictures_of_the_start_and_of_each_epoch(runs):
    plain, scored = runs
    assert not any('objects/top1' in record for record in records(plain))
    scores = [record for record in records(scored) if 'objects/top1' in record]
    assert [record['step'] for record in scores] == [0, 1, 2]
    names = {'top1', 'top5', 'top1_same_photo', 'top1_scales', 'alignment', 'uniformity', 'spread'}
    assert {f'objects/{name}' for name in names} <= set(scores[0])
    folder = Path(scored.work_dir)
    dataset = held_out_dataset(scored.cfg, folder.parent / 'held_out', folder.parent / 'held_out.arrow')
    score = score_objects(scored.model, dataset, repeats=1)
    assert {key: value for key, value in scores[-1].items() if key != 'step'} == {
        f'objects/{name}': value for name, value in score._asdict().items() if value is not None}
    assert score.top1 is not None and scores[0] != scores[-1]
    for step in (0, 1, 2):
        (path, ) = folder.glob(f'*/vis_data/vis_image/neighbours_{step}.png')
        assert np.asarray(Image.open(path)).std() > 10


@pytest.mark.slow
def test_one_of_two_processes_scores_and_the_other_waits(tmp_path):
    make_photos(tmp_path / 'held_out', 3, seed=7)
    store = make_store(tmp_path / 'held_out.arrow', tmp_path / 'held_out', seed=7)
    cfg = tiny_config(tmp_path, photos=4, **{'train_cfg.max_epochs': 2, 'log_level': 'INFO'})
    cfg.default_hooks.scores.update(images=str(tmp_path / 'held_out'), proposals=str(store), interval=1)
    cfg.dump(tmp_path / 'config.py')
    done = subprocess.run(
        [PYTHON, '-m', 'torch.distributed.run', '--nproc_per_node=2', '--master_addr=127.0.0.1',
         f'--master_port={free_port()}', str(ROOT / 'tools/train.py'), str(tmp_path / 'config.py'),
         '--launcher', 'pytorch'], capture_output=True, text=True, timeout=300,
        env={**os.environ, 'PYTHONPATH': str(ROOT), 'OMP_NUM_THREADS': '1'})
    assert done.returncode == 0, done.stderr[-3000:]
    assert (done.stdout + done.stderr).count('Held-out objects after') == 3
    (path, ) = (tmp_path / 'work').glob('*/vis_data/scalars.json')
    steps = [record['step'] for record in map(json.loads, path.read_text().splitlines())
             if 'objects/top1' in record]
    assert steps == [0, 1, 2]


def test_only_every_so_many_epochs_and_the_last(monkeypatch):
    epochs = []
    monkeypatch.setattr(ObjectScoreHook, '_score', lambda self, runner: epochs.append(runner.epoch + 1))
    hook = ObjectScoreHook('photos', 'store', interval=3)
    for epoch in range(8):
        hook.after_train_epoch(SimpleNamespace(epoch=epoch, max_epochs=8))
    assert epochs == [3, 6, 8]


def test_a_resumed_run_has_no_score_of_the_start(runs, monkeypatch):
    hook = next(hook for hook in runs[1].hooks if isinstance(hook, ObjectScoreHook))
    steps = []
    monkeypatch.setattr(ObjectScoreHook, '_score', lambda self, runner: steps.append(runner.iter))
    for step in (0, 2):
        hook.before_train(SimpleNamespace(cfg=runs[1].cfg, iter=step))
    assert steps == [0]


def test_what_is_wrong_ends_the_run_before_it_begins(tmp_path):
    with pytest.raises(ValueError, match='must be at least 1 .* not 0, 64, 2, 8 and 8'):
        ObjectScoreHook('photos', 'store', interval=0)
    with pytest.raises(ValueError, match='proposals is not given'):
        ObjectScoreHook(images='photos')
    with pytest.raises(ValueError, match='images is not given'):
        ObjectScoreHook(proposals='store')
    make_photos(tmp_path / 'held_out', 1)
    cfg = tiny_config(tmp_path, photos=1)
    hook = ObjectScoreHook(str(tmp_path / 'held_out'), str(tmp_path / 'gone.arrow'))
    with pytest.raises(FileNotFoundError, match='gone.arrow.*generate_proposals.py'):
        hook.before_train(SimpleNamespace(cfg=cfg, iter=0))
