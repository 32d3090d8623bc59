"""The rank of features during training: what is measured, when, and that it changes nothing."""
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from mmengine.logging import MessageHub
from mmengine.runner import Runner
from small import tiny_config
from syncs import HostSyncs

from projects.soco.evaluation import FeatureRankHook, rank_hook
from projects.soco.evaluation.rank import effective_rank
from projects.soco.models.soco import SoCo
from projects.soco.runs.log import read_run


def run(folder: Path, **rank) -> tuple[Runner, list[list[torch.Tensor]]]:
    """Train 6 iterations of 2 photos; return the runner and the first view's features of each pass."""
    cfg = tiny_config(folder, photos=12, **{
        'train_cfg.max_epochs': 1, 'default_hooks.rank': dict(type='FeatureRankHook', **rank),
        'default_hooks.logger.interval': 1, 'experiment_name': folder.name})
    runner, seen = Runner.from_cfg(cfg), []
    extract = SoCo.extract_feat

    def spy(*args, **kwargs):
        objects, projections = extract(*args, **kwargs)
        if not kwargs.get('target'):
            seen.append([objects[0].detach().flatten(0, 2), projections[0].detach().flatten(0, 2)])
        return objects, projections

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SoCo, 'extract_feat', spy)
        runner.train()
    return runner, seen


def test_the_rank_is_that_of_the_first_views_last_objects(tmp_path: Path):
    # 2 photos × 2 pairs × 4 proposals = 16 objects in an iteration
    runner, seen = run(tmp_path, interval=3, num_objects=32)
    start, own = seen[0::2][:2], [*seen[1:4:2], *seen[4:]]  # the network before training runs first
    assert len(own) == 6
    for place, name in enumerate(('obj_rank', 'proj_rank')):
        logged = runner.message_hub.get_scalar(f'train/{name}').data[0].tolist()
        wanted = [effective_rank(torch.cat([step[place] for step in part]))
                  for part in (start, own[1:3], own[4:6])]
        assert logged == pytest.approx(wanted)
    rows = read_run(tmp_path / 'work')
    assert [row['step'] for row in rows if 'obj_rank' in row][0] == 1


def test_the_start_is_of_the_network_before_training(tmp_path: Path):
    """With a rate that destroys the network in the first step, the first value does not know of it."""
    values = []
    for lr in (0., 0.1):
        cfg = tiny_config(tmp_path / str(lr), photos=12, **{
            'train_cfg.max_epochs': 1, 'optim_wrapper.optimizer.lr': lr, 'param_scheduler': [],
            'optim_wrapper.optimizer.weight_decay': 0.,
            'default_hooks.rank': dict(type='FeatureRankHook', interval=5, num_objects=80),
            'experiment_name': f'start_{lr}'})
        runner = Runner.from_cfg(cfg)
        runner.train()
        values.append(runner.message_hub.get_scalar('train/obj_rank').data[0].tolist())
    (still, same), (moved, after) = values
    # without a step, the network before training and the one trained see the same five batches
    assert still == pytest.approx(same) == pytest.approx(moved)
    assert after != pytest.approx(moved, rel=.05)


def test_it_does_not_change_training(tmp_path: Path):
    on, _ = run(tmp_path / 'on', interval=2, num_objects=16)
    off, _ = run(tmp_path / 'off', interval=0)
    assert 'train/obj_rank' not in off.message_hub.log_scalars
    for ours, theirs in zip(on.model.state_dict().values(), off.model.state_dict().values()):
        assert torch.equal(ours, theirs)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in on.model.modules())


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
    assert ours == theirs and len(ours) == 5


class Network(torch.nn.Module):
    """Object features and projections of one view, the batch itself and twice of it."""

    def __init__(self) -> None:
        super().__init__()
        self.roi_head, self.projector = torch.nn.Identity(), torch.nn.Identity()

    def forward(self, inputs: torch.Tensor) -> None:
        self.projector([2 * self.roi_head(inputs)])


def runner_of(model: torch.nn.Module, name: str) -> SimpleNamespace:
    """A runner that has measured the start."""
    hub = MessageHub(name)
    hub.update_scalar('train/obj_rank', 9.)
    return SimpleNamespace(iter=0, model=model, message_hub=hub)


def test_objects_of_all_ranks_are_measured(monkeypatch: pytest.MonkeyPatch):
    """Each rank gathers its share, and the main process measures all of them."""
    hook, model = FeatureRankHook(interval=1, num_objects=7), Network()
    monkeypatch.setattr(rank_hook, 'get_world_size', lambda: 2)
    objects, other = torch.randn(5, 6), torch.randn(4, 6)
    monkeypatch.setattr(rank_hook, 'all_gather', lambda value: [value, other])
    runner = runner_of(model, 'ranks')
    hook.before_train(runner)
    hook.before_train_iter(runner, 0, dict(bboxes=torch.zeros(1, 2, 2, 2, 4)))
    model(objects)
    hook.after_train_iter(runner, 0)
    found = [runner.message_hub.get_scalar(f'train/{name}').current() for name in
             ('obj_rank', 'proj_rank')]
    last = objects[-4:]  # its share of 7 objects
    assert found == pytest.approx([effective_rank(torch.cat([part, other]))
                                   for part in (last, 2 * last)])


def test_the_host_does_not_wait():
    """Until the features are on the CPU, nothing is read from the device."""
    hook, model = FeatureRankHook(interval=1, num_objects=4), Network()
    runner = runner_of(model, 'waits')
    arrived = SimpleNamespace(query=lambda: False)
    send = hook._send
    hook._send = lambda features: (send(features), hook._arriving.append(
        (hook._arriving.pop()[0], arrived)))
    with HostSyncs(host=[]) as syncs:
        hook.before_train_iter(runner, 0, dict(bboxes=torch.zeros(1, 2, 2, 2, 4)))
        model(torch.randn(4, 5))
        hook.after_train_iter(runner, 0)
        hook.after_train_iter(runner, 1)
    assert not syncs.found and len(hook._arriving) == 1
    arrived.query = lambda: True
    hook.after_train_iter(runner, 2)
    assert not hook._arriving and 'train/proj_rank' in runner.message_hub.log_scalars


@pytest.mark.parametrize('kwargs', [dict(interval=-1), dict(num_objects=1)])
def test_bad_arguments(kwargs: dict):
    with pytest.raises(ValueError, match='FeatureRankHook'):
        FeatureRankHook(**kwargs)
