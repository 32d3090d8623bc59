"""Tests of matching the tensors of a checkpoint with those of a model."""
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from torch import Tensor

from projects.soco.compat.cpu import cpu_config
from projects.soco.weights.match import fit_names, key_group, match_weights
from projects.soco.weights.same_module import fed_by_another_module

ROOT = Path(__file__).parents[2]
DETECTORS = ROOT / 'configs/benchmarks/mmdetection/coco'
R50 = DETECTORS / 'mask-rcnn_r50_fpn_ms-1x_coco.py'
QUICKSTART = DETECTORS / 'mask-rcnn_r18_fpn_quickstart.py'
REQUIRE = ('backbone', 'neck', 'roi_head.bbox_head')
FRESH = {'rpn_head', 'roi_head.bbox_head.fc_cls', 'roi_head.bbox_head.fc_reg',
         'roi_head.mask_head'}


def state_of(path: Path) -> dict[str, Tensor]:
    """Return the state dict of a config's model, with shapes only."""
    cfg = cpu_config(Config.fromfile(path))
    init_default_scope(cfg.default_scope)
    with torch.device('meta'):
        model = MODELS.build(cfg.model)
    return {k: v.to('meta') for k, v in model.state_dict().items()}


@pytest.fixture(scope='module')
def detector() -> dict[str, Tensor]:
    return state_of(R50)


@pytest.fixture(scope='module')
def soco() -> dict[str, Tensor]:
    return state_of(ROOT / 'configs/soco_r50_fpn_400e.py')


def test_r50_hands_over_392_of_392_keys(detector: dict, soco: dict) -> None:
    report = match_weights(detector, soco, REQUIRE)
    assert report.complete
    assert report.required == (392, 392)
    assert len(report.matched) == 392 and not report.mismatched
    assert {key_group(k) for k in report.fresh} == FRESH
    assert {key_group(k) for k in report.unused} == {'projector', 'head', 'target'}
    assert '392 of 392 keys matched' in report.table()


def test_quickstart_models_fit_each_other() -> None:
    report = match_weights(
        state_of(QUICKSTART), state_of(ROOT / 'configs/soco_r18_fpn_quickstart.py'), REQUIRE)
    assert report.complete and {key_group(k) for k in report.fresh} == FRESH


def test_a_wrapper_prefix_is_passed_over(detector: dict, soco: dict) -> None:
    wrapped = {f'module.{k}': v for k, v in soco.items()}
    assert match_weights(detector, wrapped, REQUIRE) == match_weights(detector, soco, REQUIRE)


@pytest.mark.parametrize('part', ['neck.fpn_convs.3', 'roi_head.bbox_head.shared_fcs.0',
                                  'backbone.layer4.2.bn3'])
def test_one_missing_module_is_not_complete(detector: dict, soco: dict, part: str) -> None:
    holed = {k: v for k, v in soco.items() if not k.startswith(part)}
    report = match_weights(detector, holed, REQUIRE)
    assert not report.complete
    assert f'{392 - len(soco) + len(holed)} of 392 keys' in report.explain()
    assert part in report.explain()


def test_classifier_and_regressor_are_never_required(detector: dict) -> None:
    other_classes = {k: torch.empty(3, 3) if '.fc_' in k else v for k, v in detector.items()}
    report = match_weights(detector, other_classes, REQUIRE)
    assert report.complete and len(report.mismatched) == 4


def resnet50_of_torchvision() -> dict[str, Tensor]:
    from torchvision.models import resnet50
    with torch.device('meta'):
        return resnet50(weights=None).state_dict()


C4 = 'mask-rcnn_r50_c4_ms-1x_coco.py'
FPN = 'mask-rcnn_r50_fpn_ms-1x_coco.py'


@pytest.mark.parametrize('make, hint', [
    (lambda soco: resnet50_of_torchvision(), 'supervised:FILE'),
    (lambda soco: {k: v for k, v in soco.items() if k.startswith('backbone.')},
     'backbone without neck'),
    (lambda soco: state_of(ROOT / 'configs/soco_r50_c4_400e.py'), 'SoCo-C4'),
    (lambda soco: state_of(ROOT / 'configs/soco_r50_c4_400e.py'), C4),
    (lambda soco: state_of(ROOT / 'configs/soco_r18_fpn_quickstart.py'), 'ResNet-18'),
    (lambda soco: {'transformer.weight': torch.empty(1)}, 'begin with transformer'),
    (lambda soco: {}, 'nothing at all'),
])
def test_another_family_is_named(detector: dict, soco: dict, make, hint: str) -> None:
    weights = make(soco)
    names = fit_names(detector, weights)
    report = match_weights(detector, {names[k]: v for k, v in weights.items()}, REQUIRE)
    assert not report.complete
    message = report.explain()
    assert hint in message and 'of 392 keys' in message and 'tools/train.py' in message


def test_fpn_weights_do_not_fit_a_c4_detector(soco: dict) -> None:
    report = match_weights(state_of(DETECTORS / C4), soco,
                           ['backbone', 'roi_head.shared_head.layer4'])
    assert not report.complete and FPN in report.explain()
    assert (DETECTORS / C4).is_file() and (DETECTORS / FPN).is_file()


@pytest.mark.parametrize('name', [FPN, C4])
@pytest.mark.parametrize('prefix', ['', 'module.', 'backbone.'])
def test_a_supervised_resnet_fills_the_backbone(name: str, prefix: str) -> None:
    """From torchvision, a parallel wrapper, and MMClassification, whose names have a prefix."""
    detector = state_of(DETECTORS / name)
    weights = {prefix + k: v for k, v in resnet50_of_torchvision().items()}
    names = fit_names(detector, weights)
    require = [part for part in ('backbone', 'roi_head.shared_head.layer4')
               if any(k.startswith(part) for k in detector)]
    report = match_weights(detector, {names[k]: v for k, v in weights.items()}, require)
    assert report.complete and report.required == (318, 318)
    assert len(report.unused) == 2  # fc


def test_other_widths_are_named_with_their_shapes(detector: dict) -> None:
    small = state_of(ROOT / 'configs/soco_r18_fpn_quickstart.py')
    report = match_weights(detector, small, REQUIRE)
    assert not report.complete
    assert 'another shape' in report.explain()
    key = next(iter(report.mismatched))
    assert str(list(small[key].shape)) in report.explain()


def test_table_counts_every_key_once() -> None:
    model = {'backbone.a': torch.empty(2), 'neck.a': torch.empty(2), 'rpn_head.a': torch.empty(2)}
    checkpoint = {'backbone.a': torch.empty(2), 'neck.a': torch.empty(3), 'head.a': torch.empty(1),
                  'head.b': torch.empty(1)}
    table = match_weights(model, checkpoint, ('backbone', 'neck')).table()
    rows = {line.split()[0]: line.split()[1:] for line in table.splitlines() if line[0] != '-'}
    assert rows['backbone'] == ['1', '-', '-', '-']
    assert rows['neck'] == ['-', '-', '-', '1']
    assert rows['rpn_head'] == ['-', '1', '-', '-']
    assert rows['head'] == ['-', '-', '2', '-']
    assert rows['total'] == ['1', '1', '2', '1']
    assert '1 of 2 keys matched' in table


# the same module, not only the same name and shape


def head(*layers: str) -> dict[str, tuple]:
    return {f'roi_head.bbox_head.{layer}.weight': (4, 4) for layer in layers}


def test_a_linear_layer_behind_convs_is_not_the_one_of_a_head_without() -> None:
    convs = [f'shared_convs.{i}' for i in range(2)]
    theirs, ours = head(*convs, 'shared_fcs.0'), head('shared_fcs.0', 'shared_fcs.1', 'fc_cls')
    found = fed_by_another_module(theirs, ours)
    assert set(found) == set(ours) and 'shared_convs.0 in the weights' in found[next(iter(ours))]
    assert fed_by_another_module(theirs, theirs) == {}
    # the first two layers are the same, the third is behind another one
    longer = head(*convs, 'shared_convs.2', 'shared_fcs.0')
    assert set(fed_by_another_module(theirs, longer)) == {
        'roi_head.bbox_head.shared_convs.2.weight', 'roi_head.bbox_head.shared_fcs.0.weight'}
    assert fed_by_another_module({}, ours) == {}  # weights without a head
    tenth = head(*(f'shared_convs.{i}' for i in range(11)))
    assert fed_by_another_module(tenth, dict(reversed(tenth.items()))) == {}  # by number, not by name


def test_a_conv_with_a_norm_is_not_one_without() -> None:
    theirs = {f'roi_head.bbox_head.shared_convs.0.{leaf}': (4, ) for leaf in (
        'conv.weight', 'bn.weight', 'bn.num_batches_tracked')}
    old = {key: shape for key, shape in theirs.items() if 'num_batches' not in key}
    assert fed_by_another_module(old, theirs) == {}  # files of detectron2 have no counters
    ours = {'roi_head.bbox_head.shared_convs.0.conv.weight': (4, )}
    assert 'other tensors' in fed_by_another_module(theirs, ours)[next(iter(ours))]


def test_a_head_of_another_kind_is_not_loaded(detector: dict) -> None:
    """The weights of Faster R-CNN's two linear layers, and a detector with four convs before one."""
    two = {f'roi_head.bbox_head.shared_fcs.{i}.{leaf}': torch.empty(shape, device='meta')
           for i, wide in enumerate((12544, 1024)) for leaf, shape in (
               ('weight', (1024, wide)), ('bias', (1024, )))}
    theirs = {**{k: v for k, v in detector.items() if '.shared_' not in k}, **two}
    report = match_weights(detector, theirs, REQUIRE)
    assert not [k for k in report.matched if k.startswith('roi_head.bbox_head.')]
    assert {k for k in report.misplaced if '.shared_' in k} == {
        f'roi_head.bbox_head.shared_fcs.0.{leaf}' for leaf in ('weight', 'bias')}
    assert not report.complete and 'shared_convs.0 in the model' in report.explain()
    assert 'require=[backbone,neck]' in report.explain()
    assert 'other module' in report.table() and 'not loaded: layer 1' in report.table()


def pyramid(laterals: list[int], levels: int) -> dict[str, Tensor]:
    return {**{f'neck.lateral_convs.{i}.conv.weight': torch.empty(16, width, 1, 1)
               for i, width in enumerate(laterals)},
            **{f'neck.fpn_convs.{i}.conv.weight': torch.empty(16, 16, 3, 3) for i in range(levels)}}


@pytest.mark.parametrize('theirs, ours, matched', [
    (([8, 16, 32], 4), ([4, 8, 16, 32], 4), {1: 0, 2: 1, 3: 2}),  # RetinaNet's P3 is our second level
    (([4, 8, 16, 32], 4), ([8, 16, 32], 5), {0: 1, 1: 2, 2: 3}),
    (([8, 16, 32], 5), ([8, 16, 32], 5), {0: 0, 1: 1, 2: 2, 3: 3, 4: 4}),
    (([8, 16, 32], 5), ([9, 17, 33], 5), {3: 3, 4: 4}),  # of another backbone
    (([8, 16], 3), ([8, 16, 32], 3), {0: 0, 1: 1}),  # an additional level is not P5
])
def test_levels_of_a_pyramid_correspond_by_what_they_are_made_from(theirs, ours, matched) -> None:
    theirs, ours = pyramid(*theirs), pyramid(*ours)
    names = fit_names(ours, theirs)
    report = match_weights(ours, {names[k]: v for k, v in theirs.items()})
    back = {name: key for key, name in names.items()}
    found = {int(k.split('.')[2]): int(back[k].split('.')[2]) for k in report.matched if 'fpn' in k}
    assert found == matched
