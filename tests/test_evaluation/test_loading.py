"""Models to evaluate: random, from own and official checkpoints; and weights that do not fit."""
import argparse
import copy

import pytest
import safetensors.torch
import torch
from mmengine.config import Config
from small import ROOT, tiny_config

from projects.soco.evaluation.loading import _load_weights, build_model
from projects.soco.weights.names import name_table


@pytest.fixture(scope='module')
def cfg(tmp_path_factory):
    return tiny_config(tmp_path_factory.mktemp('loading'), photos=1)


@pytest.fixture(scope='module')
def model(cfg):
    return build_model(cfg, seed=5)


@pytest.fixture(scope='module')
def state(model):
    """Weights whose target network differs from the online one."""
    state = model.state_dict()
    return {key: value + 0.5 if key.startswith('target.') and value.is_floating_point() else value
            for key, value in state.items()}


def saved(content: dict, path):
    torch.save(content, path)
    return path


def test_random_is_a_function_of_the_seed_and_leaves_the_random_state(cfg):
    before = torch.get_rng_state()
    first, again, other = (build_model(cfg, seed=seed).state_dict() for seed in (1, 1, 2))
    key = 'target.backbone.conv1.weight'
    assert torch.equal(first[key], again[key]) and not torch.equal(first[key], other[key])
    assert torch.equal(first[key], first[key.removeprefix('target.')])
    assert torch.equal(before, torch.get_rng_state())


def test_our_checkpoint(cfg, state, tmp_path):
    path = saved(dict(state_dict=state, meta=dict(iter=3), message_hub={}), tmp_path / 'epoch_1.pth')
    loaded = build_model(cfg, path).state_dict()
    assert loaded.keys() == state.keys() and all(torch.equal(loaded[k], state[k]) for k in state)


def test_a_checkpoint_of_a_network_with_other_parts(cfg, tmp_path):
    """A child config may change the projector; the names of its parts are in no table."""
    changed = copy.deepcopy(cfg)
    changed.model.projector.with_last_bn = True
    state = build_model(changed, seed=4).state_dict()
    assert 'projector.bn1.weight' in state
    path = saved(dict(state_dict=state), tmp_path / 'epoch_1.pth')
    loaded = build_model(changed, path).state_dict()
    assert all(torch.equal(loaded[key], state[key]) for key in state)


def test_official_checkpoint(cfg, state, tmp_path):
    names = name_table('official', 'FPN')
    official = {f'module.{names[key]}': value for key, value in state.items()}
    path = saved(dict(model=official, opt=argparse.Namespace(epochs=1)), tmp_path / 'ckpt.pth')
    loaded = build_model(cfg, path).state_dict()
    assert all(torch.equal(loaded[key], state[key]) for key in state)


def test_weights_for_a_detector_have_no_projector(cfg, state, tmp_path):
    path = saved({key: value for key, value in state.items()
                  if key.startswith(('backbone.', 'neck.', 'roi_head.'))}, tmp_path / 'mmdet.pth')
    loaded = build_model(cfg, path, features='object').state_dict()
    assert torch.equal(loaded['target.neck.fpn_convs.0.conv.weight'],
                       state['neck.fpn_convs.0.conv.weight'])
    with pytest.raises(ValueError, match='mmdet.pth does not fit.*no projector.*--features object'):
        build_model(cfg, path)


@pytest.mark.parametrize('change, message', [
    (lambda s: s.pop('target.neck.fpn_convs.1.conv.weight'),
     '1 tensors differ, such as: target.neck.fpn_convs.1.conv.weight is not in the checkpoint'),
    (lambda s: s.update({'backbone.layer3.5.conv1.weight': torch.zeros(1)}),
     'backbone.layer3.5.conv1.weight is not in the model'),
    (lambda s: s.update({'target.backbone.conv1.weight': torch.zeros(2, 2)}),
     r'target.backbone.conv1.weight is \[2, 2\] in the checkpoint and \[16, 3, 7, 7\] in the model'),
    (lambda s: s.update({'rpn_head.rpn_cls.weight': torch.zeros(1)}), 'epoch.pth: .* whole detector')])
def test_weights_that_do_not_fit(cfg, model, state, tmp_path, change, message):
    state = dict(state)
    change(state)
    with pytest.raises(ValueError, match=message):
        _load_weights(model, cfg, saved(dict(state_dict=state), tmp_path / 'epoch.pth'), 'projection')


def test_the_other_family_is_named(cfg, model, tmp_path):
    c4 = {f'{prefix}{key}': torch.zeros(1) for prefix in ('', 'target.')
          for key in ('backbone.conv1.weight', 'roi_head.shared_head.layer4.0.conv1.weight',
                      'projector.fc0.weight')}
    with pytest.raises(ValueError, match='of SoCo-C4, the config of SoCo-FPN.*r50_c4_400e.py'):
        _load_weights(model, cfg, saved(dict(state_dict=c4), tmp_path / 'c4.pth'), 'projection')


def test_what_is_no_checkpoint_or_no_pretraining_config(cfg, tmp_path):
    (tmp_path / 'text.pth').write_text('not weights')
    with pytest.raises(ValueError, match='text.pth'):
        build_model(cfg, tmp_path / 'text.pth')
    with pytest.raises(FileNotFoundError, match='no checkpoint at .*gone.pth'):
        build_model(cfg, tmp_path / 'gone.pth')
    detector = ROOT / 'configs/benchmarks/mmdetection/coco/mask-rcnn_r18_fpn_quickstart.py'
    with pytest.raises(ValueError, match='not a pretraining config .its model is MaskRCNN'):
        build_model(Config.fromfile(detector, import_custom_modules=False))


@pytest.mark.parametrize('suffix', ['.pth', '.safetensors'])
def test_the_backbone_of_another_method(cfg, state, tmp_path, suffix):
    """Its other parts are not evaluated, and need not be in the file."""
    own = {key: value for key, value in state.items() if key.startswith('backbone.')}
    weights = {**{f'module.encoder_q.{key.removeprefix("backbone.")}': value.contiguous()
                  for key, value in own.items()}, 'module.queue': torch.ones(2)}
    path = tmp_path / f'moco{suffix}'
    (safetensors.torch.save_file if suffix == '.safetensors' else torch.save)(weights, path)
    loaded = build_model(cfg, path, features='backbone').state_dict()
    for key, value in own.items():
        assert torch.equal(loaded[key], value) and torch.equal(loaded[f'target.{key}'], value)
    with pytest.raises(ValueError, match='moco.*neck.* is not in the checkpoint'):
        build_model(cfg, path)
    wide = {key: torch.cat([value, value]) if value.dim() else value for key, value in own.items()}
    torch.save(wide, tmp_path / 'wide.pth')
    with pytest.raises(ValueError, match=r'wide.pth does not fit.*backbone.conv1.weight is \[32'):
        build_model(cfg, tmp_path / 'wide.pth', features='backbone')
