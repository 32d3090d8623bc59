"""The detectors of configs/benchmarks/mmdetection and the scripts that train and test them."""
import json
import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from miniatures import ROOTS, WRITERS, point_to, shrink, write_coco
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import DATASETS, MODELS, PARAM_SCHEDULERS, init_default_scope
from mmengine.runner import Runner
from scripts import PYTHON, SCRIPTS, run_script, write_fake_srun
from torch import nn

from projects.soco.compat.cpu import cpu_config
from projects.soco.launch.configs import set_pretrained
from projects.soco.weights.match import fit_names, match_weights
from projects.soco.weights.read import read_checkpoint

ROOT = Path(__file__).parents[2]
CONFIGS = ROOT / 'configs/benchmarks/mmdetection'
R50 = CONFIGS / 'coco/mask-rcnn_r50_fpn_ms-1x_coco.py'
QUICKSTART = CONFIGS / 'coco/mask-rcnn_r18_fpn_quickstart.py'
OWN_PHOTOS = {path.stem: path for path in (CONFIGS / 'own_photos').glob('*.py')}
LITE0 = OWN_PHOTOS['faster-rcnn_effnetlite0_fpn']
DETECTORS = sorted({*CONFIGS.glob('[!_]*/*.py')} - {QUICKSTART, *OWN_PHOTOS.values()})
KEYS = dict(fpn=392, r101=698, c4=318, dense=354)  # what each family gets from its checkpoint


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
    assert {'PretrainedWeightsHook', 'ClassesHook', 'PreciseBNHook', 'FiniteLossHook', 'SameRunHook',
            'StopSignalHook', 'ChannelsLastHook'} <= {hook.type for hook in cfg.default_hooks.values()}
    assert cfg.default_hooks.checkpoint.type == 'PlainCheckpointHook'


def test_learning_rate_is_detectron2s() -> None:
    """0.001 of the rate at first, all of it at 1000, a tenth from 60k, a hundredth from 80k."""

    def detectron2(i: int) -> float:
        warmup = 0.001 * (1 - i / 1000) + i / 1000 if i < 1000 else 1.
        return 0.02 * warmup * 0.1 ** ((i >= 60000) + (i >= 80000))

    cfg = Config.fromfile(R50)
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=cfg.optim_wrapper.optimizer.lr)
    schedulers = [PARAM_SCHEDULERS.build(s, default_args=dict(optimizer=optimizer, end=90000))
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


def test_training_resizes_the_short_side_to_640_to_800(tmp_path: Path) -> None:
    write_coco(tmp_path / 'coco', side=(300, 400))
    cfg = Config.fromfile(R50)
    point_to(cfg, 'data/coco/', tmp_path / 'coco')
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


@pytest.fixture(scope='module')
def weights(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Path], str]:
    """Give a checkpoint of randomly initialised SoCo weights, of the family of a detector."""
    folder = tmp_path_factory.mktemp('weights')

    def make(detector: Path) -> str:
        recipe = ('soco_r50_c4_100e' if '_c4_' in detector.name else
                  'soco_r101_fpn_400e' if '_r101_' in detector.name else 'soco_r50_fpn_100e')
        path = folder / f'{recipe}.pth'
        if not path.exists():
            cfg = cpu_config(Config.fromfile(ROOT / f'configs/{recipe}.py'))
            init_default_scope('mmselfsup')
            state = MODELS.build(cfg.model).state_dict()
            torch.save(dict(state_dict={k: v for k, v in state.items()
                                        if not k.startswith('target.')}), path)
        return str(path)

    return make


def miniature(detector: Path, folder: Path, iterations: int = 1) -> Config:
    """A detector's config on a miniature of its data set, small enough for a CPU."""
    name = detector.parent.name
    cfg = Config.fromfile(detector)
    point_to(cfg, ROOTS[name], WRITERS[name](folder / name))
    shrink(cfg, iterations)
    cfg.work_dir = str(folder / 'work')
    cfg.experiment_name = folder.name
    if name == 'cityscapes':
        for evaluator in (cfg.val_evaluator, cfg.test_evaluator):
            evaluator[1].outfile_prefix = str(folder / 'results')
    return cfg


@pytest.mark.slow
@pytest.mark.parametrize('detector', DETECTORS, ids=lambda path: path.stem)
def test_every_detector_starts_from_soco_and_takes_a_step(
        tmp_path: Path, detector: Path, weights: Callable) -> None:
    cfg = cpu_config(miniature(detector, tmp_path))
    cfg.update(val_cfg=None, val_dataloader=None, val_evaluator=None, test_cfg=None,
               test_dataloader=None, test_evaluator=None)
    cfg.default_hooks.checkpoint = None
    set_pretrained(cfg, weights(detector))
    runner = Runner.from_cfg(cfg)
    runner.train()
    log = next((tmp_path / 'work').glob('*/*.log')).read_text()
    assert f'{KEYS[detector_family(detector)]} of {KEYS[detector_family(detector)]} keys matched' in log
    assert 'PreciseBN: statistics of' in log and 'from 1 batches' in log
    losses = [history.current() for key, history in runner.message_hub.log_scalars.items()
              if 'loss' in key]
    assert losses and np.isfinite(losses).all()
    loaded = torch.load(cfg.load_from, weights_only=True)['state_dict']
    moved = [not torch.equal(p, loaded[n]) for n, p in runner.model.named_parameters()
             if n.startswith('backbone.')]
    assert sum(moved) > len(moved) // 2


def detector_family(detector: Path) -> str:
    if '_c4_' in detector.name:
        return 'c4'
    if detector.name.startswith(('retinanet', 'fcos')):
        return 'dense'
    return 'r101' if '_r101_' in detector.name else 'fpn'


METRICS = dict(coco=('coco/bbox_mAP', 'coco/segm_mAP'), lvis=('lvis/bbox_AP', 'lvis/segm_AP'),
               voc0712=('pascal_voc/mAP', 'pascal_voc/AP50'),
               cityscapes=('coco/segm_mAP', 'cityscapes/mAP'))


@pytest.mark.slow(20)
@pytest.mark.parametrize('name, script', [
    ('coco/mask-rcnn_r50_fpn_ms-1x_coco.py', 'dist_train_fpn.sh'),
    ('coco/mask-rcnn_r50_c4_ms-1x_coco.py', 'slurm_train_c4.sh'),
    ('lvis/mask-rcnn_r50_fpn_ms-1x_lvis-v1.py', 'slurm_train_fpn.sh'),
    ('voc0712/faster-rcnn_r50_c4_ms-24k_voc0712.py', 'dist_train_c4.sh'),
    ('cityscapes/mask-rcnn_r50_fpn_ms-24k_cityscapes.py', 'dist_train_fpn.sh'),
])
def test_scripts_fine_tune_and_evaluate_each_data_set(
        tmp_path: Path, name: str, script: str, weights: Callable) -> None:
    """Two processes, two iterations, the data set's own metric; the test script agrees with it."""
    detector = CONFIGS / name
    cfg = miniature(detector, tmp_path, iterations=2)
    cfg.dump(tmp_path / 'detector.py')
    slurm = script.startswith('slurm')
    write_fake_srun(tmp_path / 'bin')
    pretrain = weights(detector)
    arguments = (('part', 'job', f'{tmp_path}/detector.py', pretrain) if slurm else
                 (f'{tmp_path}/detector.py', pretrain, '2'))
    code, message = run_script(script, *arguments, '--cpu', cwd=tmp_path, path=tmp_path / 'bin')
    assert code == 0, message[-3000:]
    log = next((tmp_path / 'work').glob('*/*.log')).read_text()
    trained = [float(re.search(rf'Iter\(val\).*{metric}: (\S+)', log)[1])
               for metric in METRICS[name.split('/')[0]]]
    assert all(0 <= value <= 1 for value in trained)
    scalars = next((tmp_path / 'work').glob('*/vis_data/scalars.json')).read_text().splitlines()
    metric = METRICS[name.split('/')[0]][0]
    assert [row['step'] for row in map(json.loads, scalars) if metric in row] == [2]  # iterations

    checkpoint = f'{tmp_path}/work/iter_2.pth'
    arguments = (('part', 'job', f'{tmp_path}/detector.py', checkpoint) if slurm else
                 (f'{tmp_path}/detector.py', checkpoint, '2'))
    code, message = run_script(script.replace('train_fpn', 'test').replace('train_c4', 'test'),
                               *arguments, '--cpu', cwd=tmp_path, path=tmp_path / 'bin')
    assert code == 0, message[-3000:]
    tested = [float(re.search(rf'Iter\(test\).*{metric}: (\S+)', message)[1])
              for metric in METRICS[name.split('/')[0]]]
    assert tested == trained


def test_ranks_wait_until_old_results_of_cityscapes_are_cleared(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a slow rank 0 takes away what a quick one has written."""
    from mmdet.evaluation import CityScapesMetric

    from projects.soco.compat import metrics
    old = tmp_path / 'out/results/old.txt'
    old.parent.mkdir(parents=True)
    old.write_text('of an earlier run')
    there = []
    monkeypatch.setattr(metrics, 'barrier', lambda: there.append(old.exists()))
    CityScapesMetric(outfile_prefix=str(tmp_path / 'out'), seg_prefix=str(tmp_path))
    assert there == [False]


@pytest.mark.parametrize('name', ['retinanet_r50_fpn_ms-1x_coco.py', 'fcos_r50_fpn_ms-1x_coco.py'])
def test_p3_meets_p3(name: str) -> None:
    """A pyramid that starts at P3 gets SoCo's P3 to P5, tensor by tensor and in its features."""
    def neck(cfg: dict) -> nn.Module:
        cfg = cpu_config(Config(dict(neck=cfg))).neck
        cfg.update(in_channels=[8, 16, 32, 64], out_channels=8)
        return MODELS.build(cfg)

    init_default_scope('mmselfsup')
    soco = neck(Config.fromfile(ROOT / 'configs/soco_r50_fpn_400e.py').model.neck).eval()
    init_default_scope('mmdet')
    theirs = neck(Config.fromfile(CONFIGS / 'coco' / name).model.neck).eval()
    soco.init_weights()
    state = {f'neck.{k}': v for k, v in soco.state_dict().items()}
    model_state = {f'neck.{k}': v for k, v in theirs.state_dict().items()}
    names = fit_names(model_state, state)
    assert names['neck.fpn_convs.1.conv.weight'] == 'neck.fpn_convs.0.conv.weight'
    assert not names['neck.fpn_convs.0.conv.weight'].startswith('neck.')
    fitted = {names[k].removeprefix('neck.'): v for k, v in state.items()
              if names[k].startswith('neck.')}
    missing, unexpected = theirs.load_state_dict(fitted, strict=False)
    assert not unexpected
    assert {key.split('.')[1] for key in missing} == {'3', '4'}  # P6 and P7 are its own
    feats = [torch.randn(1, c, 64 // 2**i, 64 // 2**i) for i, c in enumerate((8, 16, 32, 64))]
    for ours, other in zip(soco(feats)[1:], theirs(feats)):
        torch.testing.assert_close(ours, other)
    again = fit_names(model_state, model_state)  # its own checkpoints are left alone
    assert all(key == value for key, value in again.items())


@pytest.mark.slow
@pytest.mark.parametrize('detector', [QUICKSTART, *sorted(OWN_PHOTOS.values())],
                         ids=lambda path: path.stem)
def test_small_detectors_learn_a_users_own_classes(
        detector: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_coco(tmp_path / 'coco', ['sock', 'shoe'], side=(300, 400))
    photos, labels = (str(tmp_path / 'coco' / name) for name in (
        'train2017', 'annotations/instances_train2017.json'))
    for name, value in (('SOCO_QUICKSTART_PHOTOS', photos), ('SOCO_QUICKSTART_ANNOTATIONS', labels),
                        ('SOCO_PHOTOS', photos), ('SOCO_TRAIN', labels)):
        monkeypatch.setenv(name, value)
    cfg = Config.fromfile(detector)
    cfg.merge_from_dict(dict(work_dir=str(tmp_path / 'work'), experiment_name=tmp_path.name))
    shrink(cfg, iterations=2)
    cfg.train_dataloader.batch_size = 2
    runner = Runner.from_cfg(cfg)
    runner.train()
    assert runner.model.roi_head.bbox_head.fc_cls.out_features == 3
    assert runner.train_dataloader.dataset.metainfo['classes'] == ['sock', 'shoe']
    assert runner.model.roi_head.with_mask == (detector == QUICKSTART)


@pytest.mark.slow(20)
def test_two_processes_train_and_evaluate_mended_annotations(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As tools write them; the data set of the test lists the classes in another order."""
    write_coco(tmp_path / 'coco', ['sock', 'shoe'])
    content = json.loads((tmp_path / 'coco/annotations/instances_train2017.json').read_text())
    for row in content['annotations']:
        row.update(id=1, category_id=row['image_id'])
        for key in ('iscrowd', 'area', 'segmentation'):
            del row[key]
    for row in content['images']:
        row['file_name'] = f'photos\\{row["file_name"]}'
    labels = tmp_path / 'labels.json'
    labels.write_bytes(b'\xef\xbb\xbf' + json.dumps(content).encode())
    monkeypatch.setenv('SOCO_PHOTOS', str(tmp_path / 'coco/train2017'))
    monkeypatch.setenv('SOCO_TRAIN', str(labels))
    work = tmp_path / 'work'
    few = ['train_cfg.max_iters=2', 'train_cfg.val_interval=2', 'train_dataloader.batch_size=1',
           'default_hooks.precise_bn.num_iters=1', 'default_hooks.checkpoint.interval=2']
    code, message = run_script('dist_train_fpn.sh', str(LITE0), 'random', '2', '--work-dir',
                               str(work), '--cfg-options', *few)
    assert code == 0, message[-3000:]
    log = next(work.glob('*/*.log')).read_text()
    copy, = (p for p in (work / 'annotations').glob('*.json') if 'record' not in p.name)
    assert f'Reading {labels} as {copy}' in log and log.count('without iscrowd, taken as 0: 2') == 1
    trained = re.search(r'Iter\(val\).*coco/bbox_mAP: (\S+)', log)[1]

    other = tmp_path / 'other.py'
    other.write_text(f'_base_ = {str(LITE0)!r}\n'
                     'test_dataloader = dict(dataset=dict(metainfo=dict(classes=["shoe", "sock"])))\n')
    code, message = run_script('dist_test.sh', str(other), f'{work}/iter_2.pth', '1', '--work-dir',
                               str(work))
    assert code == 0, message[-3000:]
    assert 'in the order that' in message and 'was trained with: sock, shoe' in message
    assert re.search(r'Iter\(test\).*coco/bbox_mAP: (\S+)', message)[1] == trained


@pytest.mark.parametrize('recipe, detector', [
    ('soco_effnetlite0_fpn_own_photos', 'faster-rcnn_effnetlite0_fpn'),
    ('soco_r18_fpn_quickstart', 'faster-rcnn_r18_fpn'), ('soco_r50_fpn_400e', 'faster-rcnn_r50_fpn')])
def test_the_detectors_for_own_photos_fit_their_recipes(recipe: str, detector: str) -> None:
    state = build(ROOT / f'configs/{recipe}.py', 'mmselfsup').state_dict()
    detector = build(OWN_PHOTOS[detector], 'mmdet')
    report = match_weights(detector.state_dict(), state, ('backbone', 'neck', 'roi_head.bbox_head'))
    assert report.complete, report.explain()


def test_imagenet_weights_fill_the_backbone(tmp_path: Path) -> None:
    code = subprocess.run([PYTHON, str(ROOT / 'tools/benchmarks/imagenet_lite0.py'),
                           str(tmp_path / 'lite0.pth')], cwd=ROOT,
                          env={**os.environ, 'PYTHONPATH': str(ROOT)}).returncode
    assert code == 0
    state = read_checkpoint(tmp_path / 'lite0.pth')['state_dict']
    detector = build(LITE0, 'mmdet')
    report = match_weights(detector.state_dict(), state, ('backbone', ))
    assert report.complete, report.explain()
    model = build(ROOT / 'configs/soco_effnetlite0_fpn_own_photos.py', 'mmselfsup')
    assert not model.load_state_dict(state, strict=False).unexpected_keys
    for backbone in (model.backbone, model.target.backbone):  # the target has them, too
        stem = backbone.timm_model.bn1.running_var
        assert torch.equal(stem, state['backbone.timm_model.bn1.running_var']) and stem.std() > 0.1


@pytest.mark.slow(20)
def test_a_detector_of_mmdet_s_own_starts_and_resumes_by_the_script(tmp_path: Path) -> None:
    """Its config has nothing of this project: names are converted, the table and the stop are there."""
    (tmp_path / 'base.py').write_text("_base_ = 'mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py'\n")
    cfg = Config.fromfile(tmp_path / 'base.py')
    assert not cfg.get('custom_imports') and cfg.model.backbone.init_cfg.type == 'Pretrained'
    point_to(cfg, 'data/coco/', write_coco(tmp_path / 'coco'))
    shrink(cfg)
    cfg.merge_from_dict({
        'model.backbone.depth': 18, 'model.neck.in_channels': [64, 128, 256, 512],
        'model.neck.out_channels': 64, 'model.rpn_head.in_channels': 64,
        'model.rpn_head.feat_channels': 64, 'model.roi_head.bbox_roi_extractor.out_channels': 64,
        'model.roi_head.bbox_head.in_channels': 64, 'model.roi_head.bbox_head.fc_out_channels': 16,
        'train_cfg': dict(_delete_=True, type='EpochBasedTrainLoop', max_epochs=1, val_interval=5),
        'work_dir': str(tmp_path / 'work')})
    cfg.dump(tmp_path / 'detector.py')
    resnet = torchvision.models.resnet18()
    torch.save(dict(state_dict={f'module.encoder_q.{key}': value
                                for key, value in resnet.state_dict().items()}), tmp_path / 'moco.pth')
    start = ('dist_train_fpn.sh', f'{tmp_path}/detector.py', f'{tmp_path}/moco.pth', '1', '--cpu')
    code, message = run_script(*start, cwd=tmp_path)
    assert code == 0, message[-3000:]
    assert 'ResNet would load torchvision://resnet50, which is not used' in message
    assert '120 of 120 keys matched' in message
    assert 'module.encoder_q.conv1.weight is backbone.conv1.weight here' in message
    state = read_checkpoint(tmp_path / 'work/epoch_1.pth')['state_dict']  # frozen: as in the file
    assert torch.equal(state['backbone.bn1.running_mean'], resnet.bn1.running_mean)
    code, message = run_script(*start, '--resume', '--cfg-options', 'train_cfg.max_epochs=2',
                               cwd=tmp_path)
    assert code == 0 and 'Resuming from' in message, message[-3000:]
    assert (tmp_path / 'work/epoch_2.pth').is_file()

    soco = build(ROOT / 'configs/soco_r18_fpn_quickstart.py', 'mmselfsup').state_dict()
    torch.save(dict(state_dict=soco), tmp_path / 'soco.pth')
    arguments = (f'{tmp_path}/detector.py', f'{tmp_path}/soco.pth', '1', '--cpu', '--work-dir',
                 str(tmp_path / 'other'))
    code, message = run_script('dist_train_fpn.sh', *arguments, cwd=tmp_path)
    assert code == 2 and 'Traceback' not in message
    assert 'keys of backbone, neck, roi_head.bbox_head matched' in message
    assert 'default_hooks.pretrained.require=[backbone]' in message
    code, message = run_script('dist_train_fpn.sh', *arguments, '--cfg-options',
                               'default_hooks.pretrained.require=[backbone]', cwd=tmp_path)
    assert code == 0 and '120 of 120 keys matched' in message, message[-3000:]
    code, message = run_script('dist_test.sh', *arguments, cwd=tmp_path)
    assert code == 2 and 'soco.pth is not a checkpoint of this detector' in message, message[-3000:]


def build(config: Path, scope: str) -> nn.Module:
    cfg = cpu_config(Config.fromfile(config))
    init_default_scope(scope)
    return MODELS.build(cfg.model)


@pytest.mark.parametrize('name', sorted(
    path.name for path in SCRIPTS.rglob('*.sh') if not path.name.startswith('_')))
def test_scripts_show_their_usage(name: str) -> None:
    for args in ((), ('a', 'b')):
        code, message = run_script(name, *args)
        assert code == 2 and f'{name} ' in message and 'for example: bash tools/benchmarks' in message


@pytest.mark.slow
def test_scripts_explain_wrong_arguments(tmp_path: Path) -> None:
    r50 = str(R50)
    for name, args, expected in (
        ('dist_train_fpn.sh', ('nowhere.py', 'random', '2'), 'There is no config at nowhere.py'),
        ('dist_train_fpn.sh', (r50, 'x.pth', '2', '--cpu'), 'There is no checkpoint at x.pth'),
        ('dist_train_fpn.sh', (r50, 'supervised:x.pth', '2', '--cpu'), 'no checkpoint at x.pth'),
        ('dist_train_fpn.sh', (r50, 'random', '2', '--cpu'), '└── val2017/ missing'),
        ('dist_test.sh', (r50, 'x.pth', '2', '--cpu'), 'There is no checkpoint at x.pth'),
    ):
        code, message = run_script(name, *args, cwd=tmp_path)
        assert code == 2 and expected in message and 'Traceback' not in message, message
