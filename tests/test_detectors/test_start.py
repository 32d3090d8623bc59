"""What a derived run starts from: weights, stages that stay as they are, and how fast it learns."""
import dataclasses

import pytest
import torch
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from test_detectors.test_parts import detector
from test_detectors.test_samples import build, small_detector, small_recipe, step
from torch import nn

from projects.soco.detectors import derive as module
from projects.soco.detectors.build import build_detector
from projects.soco.detectors.derive import derive, set_run, slow_layer_norm
from projects.soco.detectors.stages import first_stages
from projects.soco.detectors.start import check_start

# first stages of a backbone

HR = [dict(num_modules=1, num_branches=n, block='BASIC', num_blocks=(1, ) * n,
           num_channels=(8, 8, 8, 8)[:n]) for n in (1, 2, 3, 4)]
BACKBONES = {
    'resnet': (dict(type='ResNet', depth=18, base_channels=8, stem_channels=8),
               ['conv1', 'bn1', 'layer1', 'layer2']),
    'convnext': (dict(type='mmcls.ConvNeXt', out_indices=[0, 1, 2, 3], gap_before_final_norm=False,
                      arch=dict(depths=[1, 1, 1, 1], channels=[8, 16, 32, 64])),
                 ['downsample_layers.0', 'downsample_layers.1', 'stages.0', 'stages.1']),
    'timm': (dict(type='mmcls.TIMMBackbone', model_name='resnet10t', features_only=True,
                  pretrained=False, out_indices=(1, 2, 3, 4)),
             ['timm_model.conv1', 'timm_model.bn1', 'timm_model.layer1', 'timm_model.layer2']),
    'hrnet': (dict(type='HRNet', extra={f'stage{i + 1}': stage for i, stage in enumerate(HR)}), None),
}


@pytest.mark.parametrize('name', BACKBONES)
def test_the_first_stages_are_found(name):
    config, expected = BACKBONES[name]
    config['_scope_'] = 'mmdet'
    if expected is None:
        with pytest.raises(ValueError, match='HRNet are not computed one after another'):
            first_stages(config, 2, 64)
        return
    assert first_stages(config, 2, 64) == [f'backbone.{part}' for part in expected]
    for count, message in ((0, 'at least 1'), (9, 'Use a smaller number')):
        with pytest.raises(ValueError, match=f'--freeze.*{message}'):
            first_stages(config, count, 64)


def test_frozen_stages_stay_as_they_are_loaded():
    """Weights, and statistics of the norms, of both networks, whatever target the file has."""
    cfg, parts = derive(detector(), small_recipe(), freeze=2)
    assert parts.kept == [f'backbone.{part}' for part in ('conv1', 'bn1', 'layer1', 'layer2')]
    model = build(cfg)
    weights = {key: torch.rand_like(value) if value.is_floating_point() else value
               for key, value in model.state_dict().items()}
    model.load_state_dict(weights)
    step(cfg, model)
    model.momentum_update(0.5)
    state = model.state_dict()
    changed = {key for key, value in state.items()
               if not torch.equal(value, weights[key.removeprefix('target.')])}
    kept = {key for key in state if key.removeprefix('target.').startswith(tuple(
        f'{part}.' for part in parts.kept))}
    assert len(kept) > 100 and not kept & changed
    assert {key for key in state if 'backbone.layer3' in key and 'running' in key} <= changed
    assert model.training and not model.backbone.layer2.training and model.backbone.layer3.training


# rates


def test_the_backbone_learns_at_its_own_rate(tmp_path):
    recipe = small_recipe()
    set_run(recipe, tmp_path, tmp_path / 'boxes.arrow', backbone_rate=0.1)
    derive(detector(), recipe)[0].dump(tmp_path / 'pretraining.py')  # as it is written
    cfg = Config.fromfile(tmp_path / 'pretraining.py', import_custom_modules=False)
    model = build(cfg)
    names = {id(p): name for name, p in model.named_parameters()}
    rates: dict[str, set] = {}
    for group in build_optim_wrapper(model, cfg.optim_wrapper).optimizer.param_groups:
        for p in group['params']:
            rates.setdefault(names[id(p)].split('.')[0], set()).add(group['lr'])
    rate = cfg.optim_wrapper.optimizer.lr
    assert rates.pop('backbone') == {rate * 0.1}
    assert rates == {part: {rate} for part in ('neck', 'roi_head', 'projector', 'head')}


def test_a_run_from_weights_has_its_own_schedule(tmp_path, monkeypatch):
    other = module.Schedule(rate=1e-4, backbone_rate=0.5, warm_up=0.2, momentum=0.9)
    monkeypatch.setattr(module, 'FROM_WEIGHTS', other)
    (tmp_path / 'start.pth').touch()
    found = []
    for weights in (None, tmp_path / 'start.pth'):
        cfg = small_recipe()
        set_run(cfg, tmp_path, tmp_path / 'boxes.arrow', weights=weights)
        keys = (cfg.optim_wrapper.get('paramwise_cfg') or {}).get('custom_keys') or {}
        assert cfg.param_scheduler[0].share == cfg.param_scheduler[1].begin
        found.append(module.Schedule(
            cfg.optim_wrapper.optimizer.lr, keys.get('backbone.', {}).get('lr_mult', 1.0),
            cfg.param_scheduler[0].share, cfg.default_hooks.momentum.momentum))
    assert found == [module.FROM_NOTHING, other]


def test_a_loaded_backbone_with_layer_norm_learns_slowly(tmp_path):
    (tmp_path / 'start.pth').touch()
    backbones = nn.Sequential(nn.Conv2d(3, 4, 1), nn.LayerNorm(4)), nn.BatchNorm2d(4)
    found = []
    for weights, given, backbone in ((tmp_path / 'start.pth', None, backbones[0]),
                                     (tmp_path / 'start.pth', None, backbones[1]),
                                     (tmp_path / 'start.pth', 0.5, backbones[0]),
                                     (None, None, backbones[0])):
        cfg = small_recipe()
        set_run(cfg, tmp_path, tmp_path / 'boxes.arrow', weights=weights, backbone_rate=given)
        note = slow_layer_norm(cfg, backbone, given)
        keys = (cfg.optim_wrapper.get('paramwise_cfg') or {}).get('custom_keys') or {}
        found.append((keys.get('backbone.', {}).get('lr_mult', 1.0), note is not None))
    assert found == [(0.1, True), (1.0, False), (0.5, False), (1.0, False)]


@pytest.mark.parametrize('rate', [0, -1, float('nan')])
def test_a_rate_that_is_none(tmp_path, rate):
    with pytest.raises(ValueError, match='--backbone-rate must be a number above 0'):
        set_run(small_recipe(), tmp_path, tmp_path / 'boxes.arrow', backbone_rate=rate)


# weights


@pytest.fixture(scope='module')
def faster(tmp_path_factory):
    """Weights of a whole Faster R-CNN with two linear layers, as trained on COCO."""
    model, whole = build_detector(small_detector('faster_rcnn/faster-rcnn_r50_fpn_1x_coco'))
    assert whole
    path = tmp_path_factory.mktemp('weights') / 'faster.pth'
    torch.save(dict(state_dict=model.state_dict()), path)
    return path


def test_a_whole_detector_starts_another_of_the_same_parts(faster):
    cfg, _ = derive(small_detector('faster_rcnn/faster-rcnn_r50_fpn_1x_coco'), small_recipe())
    report = check_start(cfg, faster)
    assert {key.split('.')[0] for key in report.fresh} == {'projector', 'head'}
    assert 'roi_head.bbox_head.shared_fcs.1.weight' in report.matched and not report.misplaced


def test_a_head_of_another_kind_stays_fresh_and_is_said_so(faster):
    """The head of pretraining, which a one-stage detector throws away, has four convs."""
    name = 'fcos/fcos_r50-caffe_fpn_gn-head_1x_coco'
    cfg, _ = derive(small_detector(name), small_recipe())
    report = check_start(cfg, faster)
    assert 'neck.fpn_convs.2.conv.weight' in report.matched  # P5, which is number 3 in the file
    assert not [key for key in report.matched if key.startswith('roi_head.')]
    assert cfg.default_hooks.pretrained.require == ['backbone']


def test_weights_of_another_architecture_are_refused(faster):
    cfg, _ = derive(detector(), small_recipe())
    with pytest.raises(ValueError, match='faster.pth does not contain .*ResNet-50, and the'):
        check_start(cfg, faster)


def test_the_schedules_are_complete():
    for schedule in (module.FROM_NOTHING, module.FROM_WEIGHTS):
        assert schedule.rate > 0 and 0 < schedule.backbone_rate <= 1
        assert all(0 <= share <= 1 for share in dataclasses.astuple(schedule)[2:])
