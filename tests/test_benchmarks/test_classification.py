"""Linear evaluation: the configs of configs/benchmarks/classification."""
import math
from pathlib import Path
from typing import Any

import cv2
import mmselfsup
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.optim import OptimWrapper, build_optim_wrapper
from mmengine.registry import DATASETS, MODELS, PARAM_SCHEDULERS, init_default_scope
from mmengine.runner import Runner
from scripts import run_script, write_fake_srun
from torch import Tensor, nn

from projects.soco.compat.cpu import cpu_config, needs_cuda
from projects.soco.compat.host import host_name

pytestmark = pytest.mark.skipif(host_name() == 'onedl', reason='its base configs are those of MMCls')

ROOT = Path(__file__).parents[2]
CONFIGS = ROOT / 'configs/benchmarks/classification'
STEPS = CONFIGS / 'resnet50_linear-8xb32-steplr-100e_in1k.py'
COSINE = CONFIGS / 'resnet50_linear-8xb32-coslr-100e_in1k.py'
FILLED = (0, 7, 500, 999)  # classes that have a photo


def write_imagenet(folder: Path) -> None:
    """Folders of 1000 classes, four of them with one photo of noise, and no lists."""
    rng = np.random.default_rng(0)
    for split in ('train', 'val'):
        for label in range(1000):
            (folder / split / f'n{label:08}').mkdir(parents=True)
        for label in FILLED:
            photo = rng.integers(0, 255, (60, 80, 3), dtype=np.uint8)
            cv2.imwrite(str(folder / split / f'n{label:08}/photo_{label}.JPEG'), photo)


def point_to(cfg: Config, folder: Path) -> None:
    for loader in (cfg.train_dataloader, cfg.val_dataloader, cfg.test_dataloader):
        loader.dataset.data_root = str(folder)
        loader.update(num_workers=0, persistent_workers=False)


def without_scopes(node: Any) -> Any:
    if isinstance(node, dict):
        return {k: without_scopes(v) for k, v in node.items() if k != '_scope_'}
    return [without_scopes(v) for v in node] if isinstance(node, (list, tuple)) else node


@pytest.mark.parametrize('path', [STEPS, COSINE])
def test_the_setting(path: Path) -> None:
    cfg = Config.fromfile(path)
    optimizer = without_scopes(cfg.optim_wrapper.optimizer)
    assert optimizer == dict(type='SGD', lr=30.0, momentum=0.9, weight_decay=0.0)
    assert cfg.train_dataloader.batch_size * 8 == cfg.auto_scale_lr.base_batch_size == 256
    assert cfg.train_cfg.max_epochs == 100 and cfg.model.backbone.frozen_stages == 4
    assert cfg.default_hooks.checkpoint.type == 'PlainCheckpointHook'
    assert cfg.default_hooks.pretrained == dict(type='PretrainedWeightsHook', require=['backbone'])
    assert {'FiniteLossHook', 'SameRunHook', 'StopSignalHook'} <= {
        hook.type for hook in cfg.default_hooks.values()}
    assert cfg.randomness.seed == 0


def test_the_steps_are_mocos_as_mmselfsup_has_them() -> None:
    ours = without_scopes(Config.fromfile(STEPS)._cfg_dict.to_dict())
    theirs = without_scopes(Config.fromfile(
        Path(mmselfsup.__file__).parent / '.mim/configs/benchmarks/classification/imagenet'
        / STEPS.name)._cfg_dict.to_dict())
    (steps, ), schedule = theirs['param_scheduler'], ours['param_scheduler']
    assert steps == dict(type='MultiStepLR', by_epoch=True, milestones=[60, 80], gamma=0.1)
    assert schedule == dict(type='StepsLR', by_epoch=False, shares=[0.6, 0.8], gamma=0.1)
    assert ours['optim_wrapper']['optimizer'] == theirs['optim_wrapper']['optimizer']
    assert ours['train_cfg']['max_epochs'] == theirs['train_cfg']['max_epochs']
    assert ours['data_preprocessor'] == theirs['model']['data_preprocessor']
    assert ours['val_evaluator'] == theirs['val_evaluator']
    for part in ('neck', 'head'):
        assert ours['model'][part] == theirs['model'][part]
    for key in ('depth', 'frozen_stages'):
        assert ours['model']['backbone'][key] == theirs['model']['backbone'][key]
    for loader in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
        assert ours[loader]['batch_size'] == theirs[loader]['batch_size']
        for key in ('type', 'data_prefix', 'pipeline'):
            assert ours[loader]['dataset'][key] == theirs[loader]['dataset'][key]
    assert needs_cuda(Config.fromfile(STEPS)) == []


def test_the_cosine_is_the_official_one() -> None:
    """From lr/100 to lr in 5 epochs, then a cosine to 1e-6, in iterations of 20 an epoch."""
    warmup, rest = 5 * 20, 95 * 20

    def official(i: int) -> float:
        if i <= warmup:
            return 30 / 100 * (1 + 99 * i / warmup)
        return 1e-6 + (30 - 1e-6) * (1 + math.cos(math.pi * (i - warmup) / rest)) / 2

    cfg = Config.fromfile(COSINE)
    assert cfg.optim_wrapper.type == 'AmpOptimWrapper'
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=cfg.optim_wrapper.optimizer.lr)
    init_default_scope('mmcls')
    schedulers = [PARAM_SCHEDULERS.build(s, default_args=dict(
        optimizer=OptimWrapper(optimizer), end=warmup + rest)) for s in cfg.param_scheduler]
    for i in range(warmup + rest):
        assert optimizer.param_groups[0]['lr'] == pytest.approx(official(i), rel=1e-4, abs=1e-9), i
        optimizer.step()
        for scheduler in schedulers:
            scheduler.step()


@pytest.mark.parametrize('split', ['train', 'val'])
def test_folders_of_classes_are_all_the_data_it_needs(tmp_path: Path, split: str) -> None:
    write_imagenet(tmp_path)
    cfg = Config.fromfile(STEPS)[f'{split}_dataloader'].dataset
    assert cfg.data_root == 'data/imagenet' and cfg.data_prefix == split
    init_default_scope('mmcls')
    dataset = DATASETS.build({**cfg, 'data_root': str(tmp_path)})
    assert len(dataset.metainfo['classes']) == 1000
    assert [int(dataset[i]['data_samples'].gt_label.label) for i in range(4)] == list(FILLED)
    for i, label in enumerate(FILLED):
        assert dataset[i]['inputs'].shape == (3, 224, 224)
        assert Path(dataset[i]['data_samples'].img_path) == (
            tmp_path / split / f'n{label:08}/photo_{label}.JPEG')


def copy_state(module: nn.Module) -> dict[str, Tensor]:
    return {key: value.clone() for key, value in module.state_dict().items()}


def changed(module: nn.Module, before: dict[str, Tensor]) -> set[str]:
    after = module.state_dict()
    assert after.keys() == before.keys()
    return {key for key in after if not torch.equal(after[key], before[key])}


def test_a_step_moves_the_classifier_only() -> None:
    """Neither weights nor BN statistics of the backbone change, though all is set to train."""
    from mmcls.structures import ClsDataSample

    cfg = Config.fromfile(STEPS)
    init_default_scope('mmcls')
    model = MODELS.build({**cfg.model, 'data_preprocessor': cfg.data_preprocessor})
    model.init_weights()
    optim = build_optim_wrapper(model, cfg.optim_wrapper)
    before = copy_state(model)
    model.train()
    assert not any(m.training for m in model.backbone.modules()
                   if isinstance(m, nn.modules.batchnorm._BatchNorm))
    photos = [torch.randint(0, 256, (3, 64, 64), dtype=torch.uint8) for _ in range(4)]
    samples = [ClsDataSample().set_gt_label(label) for label in FILLED]
    model.train_step(dict(inputs=photos, data_samples=samples), optim)
    assert changed(model, before) == {'head.fc.weight', 'head.fc.bias'}


def write_soco(recipe: str, path: Path) -> nn.Sequential:
    """Write a SoCo checkpoint whose BN statistics fit its random weights; return its ResNet."""
    init_default_scope('mmselfsup')
    soco = MODELS.build(cpu_config(Config.fromfile(ROOT / 'configs' / recipe)).model)
    parts = [soco.backbone]
    if 'c4' in recipe:  # its last stage is the shared head's
        parts.append(soco.roi_head.shared_head)
    resnet = nn.Sequential(*parts).train()
    for module in resnet.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.momentum = 1.0
    with torch.no_grad():
        features = soco.backbone(torch.randn(4, 3, 96, 96))[-1]
        if 'c4' in recipe:
            soco.roi_head.shared_head(features)
    torch.save(dict(state_dict=soco.state_dict()), path)
    return resnet.eval()


@pytest.mark.slow
@pytest.mark.parametrize('recipe', ['soco_r50_fpn_100e.py', 'soco_r50_c4_100e.py'])
def test_training_and_evaluation_from_soco_weights(tmp_path: Path, recipe: str) -> None:
    """One iteration and one evaluation on a CPU; the backbone is SoCo's, before and after."""
    write_imagenet(tmp_path / 'imagenet')
    backbone, *last = write_soco(recipe, tmp_path / 'soco.pth')

    cfg = cpu_config(Config.fromfile(COSINE))
    point_to(cfg, tmp_path / 'imagenet')
    cfg.train_cfg.max_epochs = 1
    cfg.optim_wrapper.optimizer.lr = 0.02  # with 30 the scores are 0 or 1, and so without an order
    cfg.merge_from_dict(dict(work_dir=str(tmp_path / 'work'), load_from=str(tmp_path / 'soco.pth'),
                             experiment_name=f'linear_{tmp_path.name}'))
    runner = Runner.from_cfg(cfg)
    classifier = copy_state(runner.model.head)
    runner.train()

    model = runner.model.eval()
    assert changed(model.backbone, {k: v for part in (backbone, *last)
                                    for k, v in part.state_dict().items()}) == set()
    assert changed(model.head, classifier) == {'fc.weight', 'fc.bias'}
    photos = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        features = backbone(photos)[-1]
        for part in last:
            features = part(features)
        # One of the two is in channels_last, whose convolutions round otherwise.
        torch.testing.assert_close(model.backbone(photos)[-1], features, atol=1e-3, rtol=1e-3)
        scores = torch.stack([sample.pred_label.score for batch in runner.val_dataloader
                              for sample in model.val_step(batch)])
    assert len(scores[0].unique()) > 900
    best = scores.topk(5).indices == torch.tensor(FILLED)[:, None]
    hub = runner.message_hub
    assert hub.get_scalar('val/accuracy/top1').current() == 100 * best[:, 0].float().mean()
    assert hub.get_scalar('val/accuracy/top5').current() == 100 * best.any(1).float().mean()
    log = next((tmp_path / 'work').glob('*/*.log')).read_text()
    assert '318 of 318 keys matched' in log
    torch.load(tmp_path / 'work/epoch_1.pth', weights_only=True)


def test_weights_without_a_backbone_are_refused(tmp_path: Path) -> None:
    """Nothing is trained on a random backbone by accident."""
    torch.save(dict(state_dict={'neck.weight': torch.zeros(1)}), tmp_path / 'soco.pth')
    write_imagenet(tmp_path / 'imagenet')
    cfg = Config.fromfile(STEPS)
    point_to(cfg, tmp_path / 'imagenet')
    cfg.merge_from_dict(dict(work_dir=str(tmp_path / 'work'), load_from=str(tmp_path / 'soco.pth'),
                             experiment_name=f'refused_{tmp_path.name}'))
    with pytest.raises(ValueError, match='0 of 318 keys of backbone matched'):
        Runner.from_cfg(cfg).train()


@pytest.mark.slow
@pytest.mark.parametrize('script', ['dist_train_linear.sh', 'slurm_train_linear.sh'])
def test_the_scripts_train_and_evaluate(tmp_path: Path, script: str) -> None:
    """Two processes, one epoch of two iterations, from a plain ResNet-50 given as supervised."""
    from torchvision.models import resnet50
    write_imagenet(tmp_path / 'imagenet')
    torch.save(resnet50(weights=None).state_dict(), tmp_path / 'resnet50.pth')
    cfg = Config.fromfile(STEPS)
    point_to(cfg, tmp_path / 'imagenet')
    cfg.train_dataloader.batch_size = 1
    cfg.train_cfg.max_epochs = 1
    cfg.work_dir = str(tmp_path / 'work')
    cfg.dump(tmp_path / 'linear.py')
    write_fake_srun(tmp_path / 'bin')
    start = ('part', 'job') if script.startswith('slurm') else ()
    end = () if start else ('2', )
    code, message = run_script(
        script, *start, f'{tmp_path}/linear.py', f'supervised:{tmp_path}/resnet50.pth', *end, '--cpu',
        cwd=tmp_path, path=tmp_path / 'bin')
    assert code == 0, message[-3000:]
    assert '318 of 318 keys matched' in message
    assert 'Epoch(train) [1][2/2]' in message or (tmp_path / 'work/epoch_1.pth').is_file()
    assert 'accuracy/top1' in message
