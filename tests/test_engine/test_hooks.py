"""Tests of what a run logs besides its losses: speed, levels, spread of both networks."""
import json
from types import SimpleNamespace

import pytest
import torch
from mmengine.hooks import LoggerHook
from mmengine.logging import MessageHub
from mmengine.runner import Runner
from small import tiny_config
from syncs import HostSyncs

from projects.soco.engine import BatchInfoHook, cosine_momentum
from projects.soco.engine import info_hook as hooks
from projects.soco.models import SoCoRoIExtractor, assign_levels


def batch(sizes: list) -> torch.Tensor:
    """Return square boxes (N, P, 2, K, 4) of given sides (N, P, 2, K); <= 48, 96, 192: P2, P3, P4."""
    sizes = torch.tensor(sizes, dtype=torch.float32)
    return torch.stack([torch.full_like(sizes, 5), torch.full_like(sizes, 10), sizes + 5, sizes + 10],
                       dim=-1)


def runner_of(name: str, pyramid: bool = True) -> SimpleNamespace:
    """Return a runner that logs every second iteration of six; `written` is the visualizer's input."""
    written = []
    extractor = SoCoRoIExtractor(roi_layer=dict(type='RoIAlign', output_size=7, sampling_ratio=0),
                                 out_channels=4, featmap_strides=[4, 8, 16, 32])
    model = SimpleNamespace(
        roi_head=SimpleNamespace(bbox_roi_extractor=extractor), level_names=['P2', 'P3', 'P4', 'P5'],
        box_levels=lambda bboxes, finest_levels: (
            assign_levels(extractor, bboxes, finest_levels) if pyramid else None))
    return SimpleNamespace(
        iter=0, model=model, hooks=[LoggerHook(interval=2)], train_dataloader=range(6),
        message_hub=MessageHub(name), written=written, visualizer=SimpleNamespace(
            add_scalars=lambda scalars, step: written.append((scalars, step))))


def iterate(hook: BatchInfoHook, runner: SimpleNamespace, bboxes: torch.Tensor, seconds: float,
            finest_levels: tuple = (0, 0, 0)) -> None:
    runner.message_hub.update_scalar('train/time', seconds)  # as the timer hook does just before
    hook.after_train_iter(runner, runner.iter % 6, dict(
        bboxes=bboxes, finest_levels=torch.tensor([finest_levels] * len(bboxes))), {})
    runner.iter += 1


def test_images_a_second_are_of_all_ranks_and_since_the_last_log(monkeypatch):
    monkeypatch.setattr(hooks, 'get_world_size', lambda: 4)
    runner, hook = runner_of('speed', pyramid=False), BatchInfoHook()
    for seconds in (1., 3., 0.5, 0.5, 9., 1.):
        iterate(hook, runner, batch([[[[20], [20]]]] * 3), seconds)
    speeds = runner.message_hub.get_scalar('train/images_per_s').data[0]
    assert speeds.tolist() == [2 * 3 * 4 / 4, 2 * 3 * 4 / 1, pytest.approx(2 * 3 * 4 / 10)]
    assert runner.written == []  # no shares without a pyramid


def test_shares_count_the_boxes_of_each_view_since_the_last_log():
    runner, hook = runner_of('shares'), BatchInfoHook()
    # one image, two pairs, two boxes: row 0 of both pairs is the first view
    first = batch([[[[20, 60], [100, 100]], [[20, 20], [200, 30]]]])
    second = batch([[[[20, 60], [100, 100]], [[20, 100], [30, 30]]]])
    for bboxes in (first, second, second, second):
        iterate(hook, runner, bboxes, 1.)
    (scalars, step), (later, later_step) = runner.written
    assert (step, later_step) == (2, 4)
    assert scalars == pytest.approx({
        'share_v1_p2': 5 / 8, 'share_v1_p3': 2 / 8, 'share_v1_p4': 1 / 8, 'share_v1_p5': 0,
        'share_v2_p2': 0, 'share_v2_p3': 0, 'share_v2_p4': 1, 'share_v2_p5': 0,
        'share_v3_p2': 3 / 4, 'share_v3_p3': 0, 'share_v3_p4': 0, 'share_v3_p5': 1 / 4})
    assert later['share_v1_p2'] == 1 / 2 and later['share_v3_p2'] == 1
    assert 'train/share_v1_p2' not in runner.message_hub.log_scalars


def test_shares_are_of_the_levels_that_are_made():
    runner, hook = runner_of('finest'), BatchInfoHook()
    for _ in range(2):
        iterate(hook, runner, batch([[[[20, 60], [20, 200]], [[20, 20], [20, 60]]]]), 1., (1, 2, 0))
    ((scalars, _), ) = runner.written
    assert {name: share for name, share in scalars.items() if share} == {
        'share_v1_p3': 1, 'share_v2_p4': 0.5, 'share_v2_p5': 0.5,
        'share_v3_p2': 0.5, 'share_v3_p3': 0.5}


def test_nothing_waits_for_the_device():
    runner, hook = runner_of('waits'), BatchInfoHook()
    bboxes = batch([[[[20, 60], [20, 200]], [[20, 20], [20, 60]]]])
    batch_of = dict(bboxes=bboxes, finest_levels=torch.tensor([[1, 1, 0]]))
    with HostSyncs(list(batch_of.values())) as syncs:
        for _ in range(4):
            runner.message_hub.update_scalar('train/time', 1.)
            hook.after_train_iter(runner, runner.iter % 6, batch_of, {})
            runner.iter += 1
    assert syncs.found == [] and len(runner.written) == 2


@pytest.mark.slow
def test_what_a_run_logs(tmp_path):
    cfg = tiny_config(tmp_path, photos=8, **{
        'train_cfg.max_epochs': 1, 'default_hooks.logger.interval': 2,
        'default_hooks.checkpoint': None, 'experiment_name': tmp_path.name})
    Runner.from_cfg(cfg).train()
    (path, ) = (tmp_path / 'work').glob('*/vis_data/scalars.json')
    records = [json.loads(line) for line in path.read_text().splitlines()]
    logged = {step: {key: value for record in records if record['step'] == step
                     for key, value in record.items()} for step in (2, 4)}
    for step, values in logged.items():
        # the momentum of the last iteration, not a mean
        assert values['momentum'] == pytest.approx(cosine_momentum(0.9, step - 1, 4))
        assert values['loss'] == pytest.approx(sum(
            values[f'loss_{part}'] for part in ('12', '13', 'regulariser')), abs=1e-5)
        assert 0 < values['obj_std'] <= 1 and 0 < values['obj_std_target'] <= 1
        assert values['images_per_s'] > 0 and 0 <= values['data_time'] < values['time']
        assert 'lr' in values
        for view in (1, 2, 3):
            shares = [values[f'share_v{view}_p{level}'] for level in (2, 3, 4, 5)]
            assert sum(shares) == pytest.approx(1)
