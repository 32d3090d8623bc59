"""The rank of features during training: what is measured, when, and that it changes nothing."""
from pathlib import Path

import pytest
import torch
from mmengine.logging import MessageHub
from mmengine.runner import Runner
from small import tiny_config
from syncs import HostSyncs

from projects.soco.evaluation import FeatureRankHook, rank_hook
from projects.soco.evaluation.rank import effective_rank
from projects.soco.runs.log import read_run


def run(folder: Path, **rank) -> tuple[Runner, list[list[torch.Tensor]]]:
    """Train 6 iterations of 2 photos; return the runner and the first view's features of each."""
    cfg = tiny_config(folder, photos=12, **{
        'train_cfg.max_epochs': 1, 'default_hooks.rank': dict(type='FeatureRankHook', **rank),
        'default_hooks.logger.interval': 1, 'experiment_name': folder.name})
    runner, seen = Runner.from_cfg(cfg), []
    extract = runner.model.extract_feat

    def spy(*args, **kwargs):
        objects, projections = extract(*args, **kwargs)
        if not kwargs.get('target'):
            seen.append([objects[0].detach().flatten(0, 2), projections[0].detach().flatten(0, 2)])
        return objects, projections

    runner.model.extract_feat = spy
    runner.train()
    return runner, seen


def test_the_rank_is_that_of_the_first_views_last_objects(tmp_path: Path):
    # 2 photos × 2 pairs × 4 proposals = 16 objects in an iteration
    runner, seen = run(tmp_path, interval=3, num_objects=32)
    for place, name in enumerate(('obj_rank', 'proj_rank')):
        logged = runner.message_hub.get_scalar(f'train/{name}').data[0].tolist()
        # the start; the third iteration has too few objects since then, the sixth has enough
        at = (slice(0, 2), slice(4, 6))
        wanted = [effective_rank(torch.cat([step[place] for step in seen[part]])) for part in at]
        assert logged == pytest.approx(wanted)
    rows = read_run(tmp_path / 'work')
    assert [row['step'] for row in rows if 'obj_rank' in row][0] == 2


def test_it_does_not_change_training(tmp_path: Path):
    on, _ = run(tmp_path / 'on', interval=2, num_objects=16)
    off, _ = run(tmp_path / 'off', interval=0)
    assert 'train/obj_rank' not in off.message_hub.log_scalars
    for ours, theirs in zip(on.model.state_dict().values(), off.model.state_dict().values()):
        assert torch.equal(ours, theirs)
    hooks = [module._forward_hooks for module in on.model.modules()]
    assert not any(hooks)


def test_too_few_objects_are_not_measured(tmp_path: Path):
    runner, _ = run(tmp_path, interval=2, num_objects=10_000)
    assert 'train/obj_rank' not in runner.message_hub.log_scalars


def test_a_resumed_run_keeps_its_start(tmp_path: Path):
    cfg = tiny_config(tmp_path, photos=12, **{
        'train_cfg.max_epochs': 2, 'default_hooks.checkpoint.interval': 1,
        'default_hooks.rank': dict(type='FeatureRankHook', interval=3, num_objects=32)})
    whole = Runner.from_cfg({**cfg, 'work_dir': str(tmp_path / 'whole'), 'experiment_name': 'whole'})
    whole.train()
    resumed = Runner.from_cfg({**cfg, 'load_from': str(tmp_path / 'whole/epoch_1.pth'), 'resume': True,
                               'work_dir': str(tmp_path / 'resumed'), 'experiment_name': 'resumed'})
    resumed.train()
    ours, theirs = (run.message_hub.get_scalar('train/obj_rank').data[0].tolist()
                    for run in (resumed, whole))
    assert ours == theirs and len(ours) == 4


def test_objects_of_all_ranks_are_measured(monkeypatch: pytest.MonkeyPatch):
    """Each rank gathers its share, and the main process measures all of them."""
    hook = FeatureRankHook(interval=2, num_objects=7)
    monkeypatch.setattr(rank_hook, 'get_world_size', lambda: 2)
    assert hook._share == 4
    other = torch.randn(4, 5)
    monkeypatch.setattr(rank_hook, 'all_gather', lambda value: [value, other])
    model = torch.nn.Identity()
    model.roi_head, model.projector = torch.nn.Identity(), torch.nn.Identity()
    told, written = [], {}
    runner = type('Runner', (), dict(
        iter=0, model=model, message_hub=MessageHub('ranks'),
        logger=type('Logger', (), dict(info=staticmethod(told.append))),
        visualizer=type('Visualizer', (), dict(
            add_scalars=staticmethod(lambda values, step: written.update(values))))))
    batch = dict(bboxes=torch.zeros(1, 2, 2, 2, 4))  # 4 objects
    hook.before_train_iter(runner, 0, batch)
    objects = torch.randn(4, 5)
    model(None)
    model.roi_head(objects)
    model.projector.forward = lambda inputs: inputs
    model.projector([objects * 2])
    hook.after_train_iter(runner, 0, batch)
    assert written['obj_rank'] == pytest.approx(effective_rank(torch.cat([objects, other])))
    assert written['proj_rank'] == pytest.approx(effective_rank(torch.cat([2 * objects, other])))
    assert 'obj_rank' in told[0] and 'of 5' in told[0]


def test_the_host_does_not_wait(tmp_path: Path):
    """Between measurements and in the one that sends the features, nothing is read from the device."""
    hook = FeatureRankHook(interval=2, num_objects=4)
    model = torch.nn.Identity()
    model.roi_head, model.projector = torch.nn.Identity(), torch.nn.Identity()
    objects = torch.randn(4, 5)
    sent = []
    hook._send = lambda features: sent.append(features)
    runner = type('Runner', (), dict(iter=0, model=model, message_hub=MessageHub('waits')))
    batch = dict(bboxes=torch.zeros(1, 2, 2, 2, 4))
    with HostSyncs(host=[]) as syncs:
        hook.before_train_iter(runner, 0, batch)
        model(None)
        model.roi_head(objects)
        model.projector([objects])
        hook.after_train_iter(runner, 0, batch)
    assert not syncs.found and len(sent) == 1


@pytest.mark.parametrize('kwargs', [dict(interval=-1), dict(num_objects=1)])
def test_bad_arguments(kwargs: dict):
    with pytest.raises(ValueError, match='FeatureRankHook'):
        FeatureRankHook(**kwargs)
