"""The configs of the studies: they are consistent, and train."""
from pathlib import Path

import pytest
import torch
from miniatures import shrink, write_coco
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.registry import MODELS, DefaultScope
from mmengine.runner import Runner
from small import ROOT, make_photos, make_store

from projects.soco.compat.cpu import cpu_config, needs_cuda
from projects.soco.evaluation.cost import match_detector
from projects.soco.launch.configs import find_hook
from projects.soco.study.detection import judge_predictions
from projects.soco.study.plan import read_study

FOLDER = ROOT / 'configs/benchmarks/transfer_study'
STUDIES = {path.stem: path for path in sorted(FOLDER.glob('study_*.py'))}
PRETRAINING = sorted(path.stem for path in FOLDER.glob('*.py')
                     if path.stem.startswith(('soco', 'byol')))


def load(name: str) -> Config:
    return Config.fromfile(FOLDER / f'{name}.py')


def build(cfg: Config) -> torch.nn.Module:
    with DefaultScope.overwrite_default_scope(cfg.default_scope), torch.device('meta'):
        return MODELS.build(cpu_config(cfg).model)


def test_the_cpu_study_needs_no_gpu():
    study_of_cpu = [name for name in PRETRAINING if name.endswith('r18')] + ['mask-rcnn_r18']
    assert len(study_of_cpu) == 3 and not any(needs_cuda(load(name)) for name in study_of_cpu)


@pytest.mark.parametrize('name', STUDIES)
def test_methods_share_all_but_the_method(name: str, monkeypatch: pytest.MonkeyPatch):
    """Backbone, optimiser, schedule, batch and the size of the largest view are the same."""
    monkeypatch.chdir(ROOT)
    study = read_study(STUDIES[name])
    configs = [load(Path(method.config).stem) for method in study.methods.values()]
    shapes = [{key: value.shape for key, value in build(cfg).backbone.state_dict().items()}
              for cfg in configs]
    assert all(s == shapes[0] for s in shapes) and len(shapes[0]) > 100
    for cfg in configs:
        for key in ('optim_wrapper', 'param_scheduler', 'train_cfg', 'randomness'):
            assert cfg[key] == configs[0][key], key
        assert cfg.train_dataloader.batch_size == configs[0].train_dataloader.batch_size
        views = [view['size'] for view in cfg.train_dataloader.dataset.pipeline[1]['views']]
        assert max(views) == configs[0].train_dataloader.dataset.pipeline[1]['views'][0]['size']
    assert load(Path(study.object_config).stem).model.type == 'SoCo'


@pytest.mark.parametrize('name', STUDIES)
def test_every_part_reaches_the_detector(name: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(ROOT)
    study = read_study(STUDIES[name])
    detector = load(Path(study.detector).stem)
    report = match_detector(detector, build(load(Path(study.object_config).stem)).state_dict())
    assert report.complete and report.required[0] == (392 if 'gpu' in name else 194)
    points = detector.train_cfg.max_iters / detector.train_cfg.val_interval
    assert points == 3 and find_hook(detector, 'KeepPredictionsHook')


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


@pytest.mark.slow
def test_the_detector_of_the_gpu_study_takes_a_step(tmp_path: Path):
    cfg = cpu_config(load('mask-rcnn_r50'))
    root = write_coco(tmp_path / 'coco', cfg.classes)
    shrink(cfg)
    labels = str(root / 'annotations/instances_train2017.json')
    for split in ('train', 'val', 'test'):
        cfg[f'{split}_dataloader'].dataset.update(ann_file=labels,
                                                  data_prefix=dict(img=f'{root}/train2017/'))
        cfg[f'{split}_dataloader'].batch_size = 2
    cfg.val_evaluator.ann_file = cfg.test_evaluator.ann_file = labels
    cfg.update(work_dir=str(tmp_path / 'work'), log_level='WARNING')
    cfg.default_hooks.pretrained.source = 'random'
    Runner.from_cfg(cfg).train()
    values, _ = judge_predictions(labels, tmp_path / 'work', 0)
    assert set(values) == {'box_AP@1', 'box_AP50@1', 'mask_AP@1', 'mask_AP50@1'}


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
