"""The configs of the studies: they are consistent, and train."""
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.registry import MODELS, DefaultScope
from mmengine.runner import Runner
from small import ROOT, make_photos, make_store

from projects.soco.compat.cpu import cpu_config, needs_cuda
from projects.soco.evaluation.cost import match_detector
from projects.soco.study.plan import DetectorJob, Study, read_study

FOLDER = ROOT / 'configs/benchmarks/transfer_study'
STUDIES = ('own_photos', 'coco_mini', 'gpu')
PRETRAINING = sorted(path.stem for path in FOLDER.glob('*.py')
                     if path.stem.startswith(('soco', 'byol')))


def load(name: str) -> Config:
    return Config.fromfile(FOLDER / f'{name}.py')


def build(cfg: Config) -> torch.nn.Module:
    with DefaultScope.overwrite_default_scope(cfg.default_scope), torch.device('meta'):
        return MODELS.build(cpu_config(cfg).model)


@pytest.fixture(params=STUDIES)
def study(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Study:
    monkeypatch.chdir(ROOT)
    return read_study(FOLDER / f'{request.param}.py')


def test_the_studies_of_a_cpu_need_no_gpu():
    assert not any(needs_cuda(load(name)) for name in PRETRAINING if 'r50' not in name)


def test_methods_share_all_but_the_method(study: Study):
    """SoCo and BYOL have the same backbone, optimiser, schedule, batch and size of the largest view."""
    soco, byol = ((study.pretrainings[name].config or 'configs/soco_effnetlite0_fpn_own_photos.py')
                  for name in ('soco', 'byol'))
    configs = [Config.fromfile(path) for path in (soco, byol)]
    shapes = [{key: value.shape for key, value in build(cfg).backbone.state_dict().items()}
              for cfg in configs]
    assert shapes[0] == shapes[1] and len(shapes[0]) > 100
    for key in ('optim_wrapper', 'param_scheduler', 'train_cfg', 'randomness'):
        assert configs[0][key] == configs[1][key], key
    assert len({cfg.train_dataloader.batch_size for cfg in configs}) == 1
    sizes = [max(view['size'] for view in cfg.train_dataloader.dataset.pipeline[1]['views'])
             for cfg in configs]
    assert sizes[0] == sizes[1]
    assert study.pretrainings['soco'].epochs == study.pretrainings['byol'].epochs


def test_every_part_reaches_the_detector(study: Study):
    detector = Config.fromfile(study.detector)
    for pretraining in study.pretrainings.values():
        cfg = Config.fromfile(pretraining.config or 'configs/soco_effnetlite0_fpn_own_photos.py')
        if cfg.model.type == 'SoCo':
            report = match_detector(detector, build(cfg).state_dict())
            assert report.complete and report.required[0] > 190


def test_each_share_has_all_seeds_of_both_starts_of_a_pair(study: Study):
    for pair in study.pairs:
        runs = [{(job.data, job.job.share, job.job.seed) for job in study.jobs()
                 if isinstance(job, DetectorJob) and job.job.start == start} for start in pair]
        common = runs[0] & runs[1]
        assert len({seed for _, _, seed in common}) == 3, pair
        assert {data for data, _, _ in common} == set(study.sets), pair


@pytest.mark.slow(12)
@pytest.mark.parametrize('name', PRETRAINING)
def test_it_trains(name: str, tmp_path: Path):
    make_photos(tmp_path / 'photos', 4, size=(256, 224))
    store = make_store(tmp_path / 'proposals.arrow', tmp_path / 'photos')
    cfg = cpu_config(load(name))
    cfg.merge_from_dict({
        'train_dataloader.dataset.data_root': str(tmp_path / 'photos'),
        'train_dataloader.dataset.proposals': str(store), 'train_dataloader.batch_size': 2,
        'train_dataloader.num_workers': 0, 'train_dataloader.persistent_workers': False,
        'train_dataloader.pin_memory': False, 'train_cfg.max_epochs': 1,
        'work_dir': str(tmp_path / 'work'), 'log_level': 'WARNING'})
    for view in cfg.train_dataloader.dataset.pipeline[1].views:
        view.size //= 2
    runner = Runner.from_cfg(cfg)
    before = {key: value.clone() for key, value in runner.model.backbone.state_dict().items()}
    runner.train()
    assert runner.iter == 2
    after = runner.model.backbone.state_dict()
    first = next(iter(before))  # the stem's convolution
    assert before[first].ndim == 4 and not torch.equal(before[first], after[first])
    assert all(value.isfinite().all() for value in after.values())


def test_byol_moves_its_target_as_mmselfsup_does(tmp_path: Path):
    """The target is a copy at the first step, and a moving average at the second."""
    class Capture(Hook):
        weights: list[torch.Tensor] = []

        def before_train_iter(self, runner: Runner, *args: object, **kwargs: object) -> None:
            self.weights.append(runner.model.backbone.conv1.weight.detach().clone())

    make_photos(tmp_path / 'photos', 4)
    store = make_store(tmp_path / 'proposals.arrow', tmp_path / 'photos')
    cfg = load('byol_r18')
    cfg.merge_from_dict({
        'train_dataloader.dataset.data_root': str(tmp_path / 'photos'),
        'train_dataloader.dataset.proposals': str(store), 'train_dataloader.batch_size': 2,
        'train_cfg.max_epochs': 1, 'work_dir': str(tmp_path / 'work'), 'log_level': 'WARNING',
        'param_scheduler': None, 'model.base_momentum': 0.9})
    for view in cfg.train_dataloader.dataset.pipeline[1]['views']:
        view.size = 32
    runner = Runner.from_cfg(cfg)
    runner.register_hook(Capture())
    runner.train()
    first, second = Capture.weights
    kept = 1 - (1 - 0.9) * 0.5  # halfway from 0.9 to 1
    torch.testing.assert_close(runner.model.target_net.module[0].conv1.weight,
                               kept * first + (1 - kept) * second, atol=1e-7, rtol=0)
    assert (first - second).abs().max() > 1e-4
