"""The detectors of configs/benchmarks/mmdetection and the scripts that train and test them."""
import json
import subprocess
from pathlib import Path
from typing import List, Optional, Sequence, Tuple

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import DATASETS, MODELS, PARAM_SCHEDULERS, init_default_scope
from mmengine.runner import Runner
from torch import nn

from projects.soco.compat import cpu_config

ROOT = Path(__file__).parents[2]
DETECTORS = ROOT / 'configs/benchmarks/mmdetection/coco'
R50 = DETECTORS / 'mask-rcnn_r50_fpn_ms-1x_coco.py'
QUICKSTART = DETECTORS / 'mask-rcnn_r18_fpn_quickstart.py'
SCRIPTS = ROOT / 'tools/benchmarks/mmdetection'


def test_r50_config_is_the_official_setting() -> None:
    cfg = Config.fromfile(R50)
    model = cfg.model
    sync = dict(type='SyncBN', requires_grad=True)
    for part in (model.backbone, model.neck, model.roi_head.bbox_head, model.roi_head.mask_head):
        assert part.norm_cfg == sync
    assert model.backbone.frozen_stages == -1 and model.backbone.norm_eval is False
    assert model.backbone.init_cfg is None
    assert model.roi_head.bbox_head.type == 'Shared4Conv1FCBBoxHead'
    assert cfg.train_cfg.max_iters == 90000 and cfg.train_dataloader.batch_size == 2
    assert cfg.auto_scale_lr == dict(enable=False, base_batch_size=16)
    assert [h.type for h in cfg.custom_hooks] == ['PretrainedWeightsHook', 'PreciseBNHook']
    assert cfg.default_hooks.checkpoint.type == 'PlainCheckpointHook'


def test_learning_rate_is_detectron2s() -> None:
    """0.001 of the rate at first, all of it at 1000, a tenth from 60k, a hundredth from 80k."""

    def detectron2(i: int) -> float:
        warmup = 0.001 * (1 - i / 1000) + i / 1000 if i < 1000 else 1.
        return 0.02 * warmup * 0.1 ** ((i >= 60000) + (i >= 80000))

    cfg = Config.fromfile(R50)
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=cfg.optim_wrapper.optimizer.lr)
    schedulers = [PARAM_SCHEDULERS.build(s, default_args=dict(optimizer=optimizer))
                  for s in cfg.param_scheduler]
    wanted = {0, 1, 500, 999, 1000, 1001, 59999, 60000, 79999, 80000, 89999}
    for i in range(90000):
        if i in wanted:
            assert optimizer.param_groups[0]['lr'] == pytest.approx(detectron2(i), rel=1e-6), i
        optimizer.step()
        for scheduler in schedulers:
            scheduler.step()


def test_norm_parameters_do_not_decay() -> None:
    cfg = cpu_config(Config.fromfile(R50))
    init_default_scope('mmdet')
    model = MODELS.build(cfg.model)
    optimizer = build_optim_wrapper(model, cfg.optim_wrapper).optimizer
    decay = {id(p): g['weight_decay'] for g in optimizer.param_groups for p in g['params']}
    for module in model.modules():
        for p in module.parameters(recurse=False):
            norm = isinstance(module, nn.modules.batchnorm._BatchNorm)
            assert decay[id(p)] == (0 if norm else 2.5e-5)


def write_coco(folder: Path, names: Sequence[str], side: Tuple[int, int] = (300, 400)) -> None:
    """Two photos of noise with one object each, in COCO's layout."""
    rng = np.random.default_rng(0)
    height, width = side
    images, annotations = [], []
    for i in (1, 2):
        for split in ('train2017', 'val2017'):
            (folder / split).mkdir(parents=True, exist_ok=True)
            photo = rng.integers(0, 255, (height, width, 3), dtype=np.uint8)
            cv2.imwrite(str(folder / split / f'{i}.png'), photo)
        images.append(dict(id=i, file_name=f'{i}.png', width=width, height=height))
        x, y, w, h = 40, 30, width // 2, height // 2
        annotations.append(dict(
            id=i, image_id=i, category_id=1, bbox=[x, y, w, h], area=w * h, iscrowd=0,
            segmentation=[[x, y, x + w, y, x + w, y + h, x, y + h]]))
    content = dict(images=images, annotations=annotations,
                   categories=[dict(id=i + 1, name=n) for i, n in enumerate(names)])
    (folder / 'annotations').mkdir()
    for split in ('train2017', 'val2017'):
        (folder / f'annotations/instances_{split}.json').write_text(json.dumps(content))


def point_to(cfg: Config, folder: Path) -> None:
    for loader in (cfg.train_dataloader, cfg.val_dataloader, cfg.test_dataloader):
        loader.dataset.data_root = f'{folder}/'
        loader.update(num_workers=0, persistent_workers=False)
    for evaluator in (cfg.val_evaluator, cfg.test_evaluator):
        evaluator.ann_file = str(folder / 'annotations/instances_val2017.json')


def coco_names() -> List[str]:
    from mmdet.datasets import CocoDataset
    return list(CocoDataset.METAINFO['classes'])


def test_training_resizes_the_short_side_to_640_to_800(tmp_path: Path) -> None:
    write_coco(tmp_path, coco_names())
    cfg = Config.fromfile(R50)
    point_to(cfg, tmp_path)
    init_default_scope('mmdet')
    dataset = DATASETS.build(cfg.train_dataloader.dataset)
    shapes = set()
    for _ in range(30):
        sample = dataset[0]
        shapes.add(sample['inputs'].shape[1])
        masks = sample['data_samples'].gt_instances.masks
        assert (masks.height, masks.width) == sample['inputs'].shape[1:]
    assert shapes <= set(range(640, 801, 32)) and len(shapes) > 3
    assert DATASETS.build(cfg.val_dataloader.dataset)[0]['inputs'].shape[1] == 800


@pytest.mark.slow
def test_r50_config_trains_and_evaluates_from_soco_weights(tmp_path: Path) -> None:
    """One iteration, PreciseBN and one evaluation of small images, on a CPU."""
    write_coco(tmp_path / 'coco', coco_names())
    pretraining = cpu_config(Config.fromfile(ROOT / 'configs/soco_r50_fpn_400e.py'))
    init_default_scope('mmselfsup')
    soco = MODELS.build(pretraining.model)
    torch.save(dict(state_dict=soco.state_dict()), tmp_path / 'soco.pth')

    cfg = cpu_config(Config.fromfile(R50))
    point_to(cfg, tmp_path / 'coco')
    for loader, transform in ((cfg.train_dataloader, 2), (cfg.val_dataloader, 1)):
        pipeline = loader.dataset.pipeline
        pipeline[transform] = dict(type='Resize', scale=(128, 96), keep_ratio=True)
    cfg.model.train_cfg.rcnn.sampler.num = 8
    cfg.model.test_cfg.rpn.max_per_img = 8
    cfg.model.test_cfg.rcnn.score_thr = 0.
    cfg.train_cfg.update(max_iters=1, val_interval=1)
    cfg.custom_hooks[1].num_iters = 1
    cfg.default_hooks.checkpoint.interval = 1
    cfg.merge_from_dict(dict(work_dir=str(tmp_path / 'work'), load_from=str(tmp_path / 'soco.pth'),
                             experiment_name=f'r50_{tmp_path.name}'))
    runner = Runner.from_cfg(cfg)
    runner.train()
    log = next((tmp_path / 'work').glob('*/*.log')).read_text()
    assert '392 of 392 keys matched' in log
    assert 'PreciseBN: statistics of 69 layers from 1 batches' in log
    assert 'coco/segm_mAP' in log
    assert (tmp_path / 'work/iter_1.pth').is_file()


@pytest.mark.slow
def test_quickstart_detector_learns_a_users_own_classes(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_coco(tmp_path / 'coco', ['sock', 'shoe'])
    monkeypatch.setenv('SOCO_QUICKSTART_PHOTOS', str(tmp_path / 'coco/train2017'))
    monkeypatch.setenv('SOCO_QUICKSTART_ANNOTATIONS',
                       str(tmp_path / 'coco/annotations/instances_train2017.json'))
    cfg = Config.fromfile(QUICKSTART)
    cfg.merge_from_dict(dict(work_dir=str(tmp_path / 'work'), experiment_name=tmp_path.name))
    cfg.train_cfg.update(max_iters=2, val_interval=2)
    cfg.custom_hooks[1].num_iters = 1
    runner = Runner.from_cfg(cfg)
    runner.train()
    assert runner.model.roi_head.bbox_head.fc_cls.out_features == 3
    assert runner.train_dataloader.dataset.metainfo['classes'] == ['sock', 'shoe']


def run_script(name: str, *args: str, cwd: Optional[Path] = None) -> Tuple[int, str]:
    done = subprocess.run(['bash', str(SCRIPTS / name), *args], cwd=cwd, text=True,
                          capture_output=True)
    return done.returncode, ' '.join((done.stdout + done.stderr).split())


@pytest.mark.parametrize('name', ['dist_train_fpn.sh', 'dist_test.sh'])
def test_scripts_explain_wrong_arguments(tmp_path: Path, name: str) -> None:
    for args in ((), (str(R50),), (str(R50), 'x.pth'), (str(R50), 'x.pth', 'two')):
        code, message = run_script(name, *args)
        assert code == 2 and message.startswith('usage: bash tools/benchmarks'), args
    code, message = run_script(name, 'nowhere.py', 'x.pth', '2', cwd=tmp_path)
    assert code == 2 and 'There is no config at nowhere.py' in message
    code, message = run_script(name, str(R50), 'x.pth', '2', cwd=tmp_path)
    assert code == 2 and 'There is no checkpoint at x.pth' in message


def test_a_comma_in_the_checkpoints_path_is_refused(tmp_path: Path) -> None:
    (tmp_path / 'a,b').mkdir()
    (tmp_path / 'a,b/soco.pth').touch()
    code, message = run_script('dist_train_fpn.sh', str(R50), 'soco.pth', '2',
                               cwd=tmp_path / 'a,b')
    assert code == 2 and 'holds a comma' in message
