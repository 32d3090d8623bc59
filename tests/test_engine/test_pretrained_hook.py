"""Tests of PretrainedWeightsHook and PreciseBNHook with the real Runner."""
import os
import re
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.evaluator import BaseMetric
from mmengine.model import BaseModel
from mmengine.registry import DATASETS, METRICS, MODELS
from mmengine.runner import Runner
from scripts import PYTHON
from torch import Tensor, nn

from projects.soco.compat.cpu import cpu_config, init_cpu_process_group
from projects.soco.engine import PreciseBNHook, PretrainedWeightsHook

ROOT = Path(__file__).parents[2]
POINTS = torch.arange(24.).reshape(12, 2) ** 1.5     # 12 samples of 2 numbers


@DATASETS.register_module()
class TransferToyData(torch.utils.data.Dataset):

    def __init__(self, size: int = 12) -> None:
        self.size = size

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return dict(x=POINTS[index])


@METRICS.register_module()
class TransferToyMetric(BaseMetric):

    def process(self, data_batch: dict, data_samples: Sequence) -> None:
        self.results.append(0)

    def compute_metrics(self, results: list) -> dict[str, float]:
        return dict(zero=0.)


class ToyHead(nn.Module):

    def __init__(self) -> None:
        super().__init__()
        self.shared_fcs = nn.Linear(2, 2)
        self.norm = nn.BatchNorm1d(2)
        self.fc_cls = nn.Linear(2, 3)


@MODELS.register_module()
class TransferToyDetector(BaseModel):
    """Backbone, neck (its BN is always in eval mode) and a head that only the loss reaches."""

    def __init__(self, sync: bool = False) -> None:
        super().__init__()
        self.backbone = nn.BatchNorm1d(2)
        self.neck = nn.BatchNorm1d(2)
        self.neck.running_mean.fill_(0.5)
        self.roi_head = nn.ModuleDict(dict(bbox_head=ToyHead()))
        self.seen: list[list[float]] = []
        self.means_at_validation: list[Tensor] = []
        if sync:
            nn.SyncBatchNorm.convert_sync_batchnorm(self)

    def train(self, mode: bool = True) -> 'TransferToyDetector':
        super().train(mode)
        self.neck.eval()
        return self

    def forward(self, x: Tensor, mode: str = 'tensor'):
        feats = self.neck(self.backbone(x))
        if mode == 'predict':
            self.means_at_validation.append(self.backbone.running_mean.clone())
            return [dict()]
        if mode == 'tensor':
            return feats
        if torch.is_grad_enabled():
            self.seen.append(x[:, 0].tolist())
        head = self.roi_head['bbox_head']
        return dict(loss=head.fc_cls(head.norm(head.shared_fcs(feats))).square().mean())


HOOKS = {'PreciseBNHook': 'precise_bn', 'PretrainedWeightsHook': 'pretrained'}


def toy_config(work_dir: Path, hooks: Sequence[dict], by_epoch: bool = True, length: int = 2,
               size: int = 12, batch_size: int = 2, val_interval: int = 1, validate: bool = True,
               lr: float = 0., sync: bool = False, **kwargs) -> Config:
    loop = dict(type='EpochBasedTrainLoop', max_epochs=length, val_interval=val_interval) \
        if by_epoch else dict(type='IterBasedTrainLoop', max_iters=length,
                              val_interval=val_interval)
    cfg = dict(
        model=dict(type='TransferToyDetector', sync=sync), work_dir=str(work_dir),
        train_dataloader=dict(
            batch_size=batch_size, num_workers=0, drop_last=True,
            collate_fn=dict(type='default_collate'),
            dataset=dict(type='TransferToyData', size=size),
            sampler=dict(type='DefaultSampler' if by_epoch else 'InfiniteSampler',
                         shuffle=False)),
        train_cfg=loop, optim_wrapper=dict(optimizer=dict(type='SGD', lr=lr)),
        default_hooks=dict(
            checkpoint=dict(type='PlainCheckpointHook', interval=1, by_epoch=by_epoch),
            **{HOOKS[hook['type']]: hook for hook in hooks}),
        randomness=dict(seed=0), default_scope='mmengine', **kwargs)
    if validate:
        cfg.update(
            val_cfg=dict(), val_evaluator=dict(type='TransferToyMetric'),
            val_dataloader=dict(
                batch_size=1, num_workers=0, sampler=dict(type='DefaultSampler', shuffle=False),
                collate_fn=dict(type='default_collate'),
                dataset=dict(type='TransferToyData', size=1)))
    cfg['experiment_name'] = f'toy_{work_dir.name}_{id(cfg)}'
    return Config(cfg)


def trained(cfg: Config) -> Runner:
    runner = Runner.from_cfg(cfg)
    runner.train()
    return runner


def expected_statistics(batches: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Return the averages over the batches of their means and of their unbiased variances."""
    return (torch.stack([b.mean(0) for b in batches]).mean(0),
            torch.stack([b.var(0, unbiased=True) for b in batches]).mean(0))


@pytest.mark.parametrize('sync', [False, True])
@pytest.mark.parametrize('by_epoch', [True, False])
def test_statistics_are_those_computed_by_hand(tmp_path: Path, by_epoch: bool, sync: bool) -> None:
    runner = trained(toy_config(tmp_path, [dict(type='PreciseBNHook', num_iters=4)], length=1,
                                by_epoch=by_epoch, validate=False, sync=sync))
    model = runner.model
    batches = POINTS[:8].split(2)
    mean, var = expected_statistics(batches)
    torch.testing.assert_close(model.backbone.running_mean, mean)
    torch.testing.assert_close(model.backbone.running_var, var)

    # The head's BN sees what the loss computes in train mode: normalised, then the shared layer.
    head = model.roi_head['bbox_head']
    frozen = model.neck
    with torch.no_grad():
        inside = [head.shared_fcs(frozen((b - b.mean(0)) / (b.var(0, unbiased=False)
                                                            + model.backbone.eps).sqrt()))
                  for b in batches]
    mean, var = expected_statistics(inside)
    torch.testing.assert_close(head.norm.running_mean, mean)
    torch.testing.assert_close(head.norm.running_var, var)

    assert torch.equal(frozen.running_mean, torch.full((2,), 0.5))
    assert all(m.momentum == 0.1 for m in (model.backbone, frozen, head.norm))
    assert model.backbone.training and not frozen.training


@pytest.mark.parametrize('by_epoch', [True, False])
def test_validation_and_checkpoint_have_the_new_statistics(tmp_path: Path, by_epoch: bool) -> None:
    runner = trained(toy_config(tmp_path, [dict(type='PreciseBNHook', num_iters=6)],
                                by_epoch=by_epoch, length=1))
    mean, _ = expected_statistics(POINTS.split(2))
    torch.testing.assert_close(runner.model.means_at_validation[0], mean)
    name = 'epoch_1.pth' if by_epoch else 'iter_1.pth'
    saved = torch.load(tmp_path / name, weights_only=True)['state_dict']
    torch.testing.assert_close(saved['backbone.running_mean'], mean)


def test_without_the_hook_the_statistics_are_others(tmp_path: Path) -> None:
    runner = trained(toy_config(tmp_path, [], length=1))
    mean, _ = expected_statistics(POINTS.split(2))
    assert not torch.allclose(runner.model.means_at_validation[0], mean)


@pytest.mark.parametrize('by_epoch', [True, False])
@pytest.mark.parametrize('validate, due', [(True, [2, 4, 5]), (False, [5])])
def test_it_runs_before_every_validation_and_at_the_end(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch, by_epoch: bool, validate: bool,
        due: list[int]) -> None:
    updates = []
    monkeypatch.setattr(PreciseBNHook, 'update', lambda self, runner: updates.append(
        runner.epoch + 1 if by_epoch else runner.iter + 1))
    trained(toy_config(tmp_path, [dict(type='PreciseBNHook')], by_epoch=by_epoch, length=5,
                       val_interval=2, validate=validate))
    assert updates == due


@pytest.mark.parametrize('by_epoch', [True, False])
def test_training_sees_the_same_data_and_ends_with_the_same_weights(
        tmp_path: Path, by_epoch: bool) -> None:
    runs = [trained(toy_config(tmp_path, hooks, by_epoch=by_epoch, length=5, lr=0.1))
            for hooks in ([], [dict(type='PreciseBNHook', num_iters=3)])]
    assert runs[0].model.seen == runs[1].model.seen
    for a, b in zip(runs[0].model.parameters(), runs[1].model.parameters()):
        assert torch.equal(a, b)


def test_fewer_batches_than_asked_for_are_enough(tmp_path: Path) -> None:
    runner = trained(toy_config(tmp_path, [dict(type='PreciseBNHook', num_iters=100)], length=1))
    mean, _ = expected_statistics(POINTS.split(2))
    torch.testing.assert_close(runner.model.backbone.running_mean, mean)
    assert runner.model.backbone.num_batches_tracked == 6


def test_a_loader_without_batches_is_an_error(tmp_path: Path) -> None:
    cfg = toy_config(tmp_path, [dict(type='PreciseBNHook')], length=1, size=3, batch_size=4)
    with pytest.raises(ValueError, match='training data gives no batch'):
        trained(cfg)


def test_no_batches_to_compute_from_is_an_error() -> None:
    with pytest.raises(ValueError, match='num_iters is 0'):
        PreciseBNHook(num_iters=0)


def train_in_one_of_two_processes(rank: int, folder: Path, port: int) -> None:
    """Run one rank of the test below; this file calls it as a script."""
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE='2',
                      MASTER_ADDR='127.0.0.1', MASTER_PORT=str(port))
    init_cpu_process_group()
    cfg = toy_config(folder, [dict(type='PreciseBNHook', num_iters=3)], length=1,
                     launcher='pytorch')
    runner = trained(cpu_config(cfg))
    torch.save(runner.model.module.backbone.state_dict(), folder / f'rank{rank}.pth')


@pytest.mark.slow
def test_two_processes_share_the_average_of_all_their_batches(tmp_path: Path) -> None:
    with socket.socket() as sock:
        sock.bind(('127.0.0.1', 0))
        port = sock.getsockname()[1]
    env = {**os.environ, 'PYTHONPATH': f'{ROOT}:{ROOT}/tests', 'OMP_NUM_THREADS': '1'}
    ranks = [subprocess.Popen([PYTHON, __file__, str(rank), str(tmp_path), str(port)],
                              env=env, stdout=subprocess.DEVNULL) for rank in (0, 1)]
    assert [process.wait(timeout=300) for process in ranks] == [0, 0]
    batches = [b for rank in (0, 1) for b in POINTS[rank::2].split(2)]
    mean, var = expected_statistics(batches)
    for rank in (0, 1):
        stats = torch.load(tmp_path / f'rank{rank}.pth', weights_only=True)
        torch.testing.assert_close(stats['running_mean'], mean)
        torch.testing.assert_close(stats['running_var'], var)


WEIGHTS_HOOK = dict(type='PretrainedWeightsHook', require=['backbone', 'neck',
                                                           'roi_head.bbox_head'])


def toy_checkpoint(path: Path, drop: Sequence[str] = (), **extra: Tensor) -> Path:
    """Write a checkpoint like SoCo's: the toy's tensors, all 5, no classifier, plus a target."""
    state = {k: torch.full_like(v, 5) for k, v in TransferToyDetector().state_dict().items()
             if 'fc_cls' not in k and k not in drop}
    state.update({'target.backbone.weight': torch.ones(2), 'projector.fc0.weight': torch.ones(2)},
                 **extra)
    torch.save(dict(state_dict=state), path)
    return path


def test_weights_arrive_and_the_log_says_how_many(tmp_path: Path) -> None:
    path = toy_checkpoint(tmp_path / 'soco.pth')
    runner = Runner.from_cfg(toy_config(tmp_path, [WEIGHTS_HOOK], length=1, load_from=str(path)))
    runner.train()
    head = runner.model.roi_head['bbox_head']
    assert (runner.model.backbone.weight == 5).all() and (head.shared_fcs.weight == 5).all()
    assert not (head.fc_cls.weight == 5).any()
    log = next(tmp_path.glob('*/*.log')).read_text()
    assert '17 of 17 keys matched' in log
    assert re.search(r'target +- +- +1 +-', log) and re.search(r'fc_cls +- +2 +- +-', log)
    assert 'do not match exactly' not in log


def test_the_run_stops_before_training_when_the_head_did_not_match(tmp_path: Path) -> None:
    path = toy_checkpoint(tmp_path / 'soco.pth', drop=['roi_head.bbox_head.shared_fcs.bias'])
    runner = Runner.from_cfg(toy_config(tmp_path, [WEIGHTS_HOOK], length=1, load_from=str(path)))
    with pytest.raises(ValueError, match='16 of 17 keys.*roi_head.bbox_head.shared_fcs.bias'):
        runner.train()
    assert not runner.model.seen and not list(tmp_path.glob('epoch_*'))


def test_a_differing_shape_stops_in_a_required_part_only(tmp_path: Path) -> None:
    wrong = {'roi_head.bbox_head.shared_fcs.weight': torch.ones(7, 2)}
    path = toy_checkpoint(tmp_path / 'soco.pth', **wrong)
    cfg = toy_config(tmp_path, [WEIGHTS_HOOK], length=1, load_from=str(path))
    with pytest.raises(ValueError, match=r'\[7, 2\] in the checkpoint and \[2, 2\]'):
        trained(cfg)

    hook = dict(type='PretrainedWeightsHook', require=['backbone', 'neck'])
    runner = trained(toy_config(tmp_path, [hook], length=1, load_from=str(path)))
    assert (runner.model.backbone.weight == 5).all()
    assert not (runner.model.roi_head['bbox_head'].shared_fcs.weight == 5).any()


def test_a_bare_state_dict_works_too(tmp_path: Path) -> None:
    path = toy_checkpoint(tmp_path / 'soco.pth')
    torch.save(torch.load(path)['state_dict'], path)
    runner = trained(toy_config(tmp_path, [WEIGHTS_HOOK], length=1, load_from=str(path)))
    assert (runner.model.backbone.weight == 5).all()


def test_resume_passes_over(tmp_path: Path) -> None:
    trained(toy_config(tmp_path, [], length=1))
    checkpoint = tmp_path / 'epoch_1.pth'
    content = torch.load(checkpoint, weights_only=True)
    content['state_dict'] = {k: v for k, v in content['state_dict'].items() if 'neck' not in k}
    torch.save(content, checkpoint)
    runner = trained(toy_config(tmp_path, [WEIGHTS_HOOK], length=2, resume=True,
                                load_from=str(checkpoint)))
    assert runner.epoch == 2


def test_a_random_start_is_said_and_is_no_warning(tmp_path: Path) -> None:
    trained(toy_config(tmp_path, [dict(WEIGHTS_HOOK, source='random')], length=1))
    log = next(tmp_path.glob('*/*.log')).read_text()
    assert 'starts from random weights, as requested' in log and 'No checkpoint' not in log


def test_supervised_weights_need_the_backbone_only(tmp_path: Path) -> None:
    path = toy_checkpoint(tmp_path / 'resnet.pth')
    state = torch.load(path, weights_only=True)['state_dict']
    torch.save({k: v for k, v in state.items() if k.startswith('backbone.')}, path)
    cfg = toy_config(tmp_path, [WEIGHTS_HOOK], length=1, load_from=str(path))
    with pytest.raises(ValueError, match='of 17 keys'):
        trained(cfg)
    cfg.default_hooks.pretrained.source = 'supervised'
    runner = trained(cfg)
    assert (runner.model.backbone.weight == 5).all()
    with pytest.raises(ValueError, match='one of soco, supervised, random'):
        PretrainedWeightsHook(source='imagenet')


def test_a_run_without_weights_says_so(tmp_path: Path) -> None:
    trained(toy_config(tmp_path, [WEIGHTS_HOOK], length=1))
    log = next(tmp_path.glob('*/*.log')).read_text()
    assert 'No checkpoint was given' in log


def test_testing_a_pretraining_checkpoint_is_an_error(tmp_path: Path) -> None:
    path = toy_checkpoint(tmp_path / 'soco.pth')
    cfg = toy_config(tmp_path, [WEIGHTS_HOOK], length=1, load_from=str(path))
    for key in ('dataloader', 'cfg', 'evaluator'):
        cfg[f'test_{key}'] = cfg[f'val_{key}']
    with pytest.raises(ValueError, match='soco.pth is not a checkpoint of this detector: 2 of its'):
        Runner.from_cfg(cfg).test()
    torch.save(TransferToyDetector().state_dict(), path)
    Runner.from_cfg(cfg).test()



if __name__ == '__main__':
    train_in_one_of_two_processes(int(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))
