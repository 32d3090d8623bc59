"""The way back to the detector, its proof, and the recipes as derived from their detectors."""
import parity
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope
from small import ROOT
from test_detectors.test_samples import build, small_detector, small_recipe

from projects.soco.compat.cpu import cpu_config
from projects.soco.detectors.derive import derive, preprocessor
from projects.soco.detectors.hand_over import hand_over
from projects.soco.detectors.read import read_detector
from projects.soco.detectors.table import format_table, part_rows
from projects.soco.evaluation.cost import made_up_batch, match_detector
from projects.soco.runs.config_changes import read_dumped
from projects.soco.runs.next_steps import commands
from projects.soco.runs.publish import publish
from projects.soco.runs.read import Run
from projects.soco.weights.convert import for_detector
from projects.soco.weights.read import read_checkpoint

FASTER = 'faster_rcnn/faster-rcnn_r50_fpn_1x_coco'
CASCADE = 'cascade_rcnn/cascade-rcnn_x101-32x4d_fpn_1x_coco'


@pytest.fixture(scope='module')
def cascade() -> tuple:
    detector = small_detector(CASCADE)
    cfg, parts = derive(detector, small_recipe())
    return detector, parts, build(cfg).state_dict()


def save(folder, state) -> str:
    torch.save(dict(state_dict=state), folder / 'epoch_1.pth')
    return folder / 'epoch_1.pth'


def test_one_head_goes_to_every_stage_of_a_cascade(cascade, tmp_path):
    detector, parts, state = cascade
    state = {**state, 'neck.fpn_convs.0.conv.bias': torch.full((32, ), float('nan'))}  # equal too
    weights = for_detector(state, parts.prefixes).state_dict
    fc = state['roi_head.bbox_head.shared_fcs.0.weight']
    for stage in range(3):
        assert torch.equal(weights[f'roi_head.bbox_head.{stage}.shared_fcs.0.weight'], fc)
    done = hand_over(detector, parts, save(tmp_path, state), tmp_path / 'start.pth')
    assert len(done.arrived) == len(weights)
    assert done.reasons['roi_head.bbox_head.1.fc_cls.weight'].startswith('no: classifier')
    assert match_detector(detector, state, parts.prefixes).required == (len(weights), len(weights))
    assert done.reasons['rpn_head.rpn_conv.weight'] == 'no: it learns from annotated objects'


@pytest.mark.parametrize('change, message', [
    (lambda state: state.pop('neck.fpn_convs.2.conv.bias'), 'neck.fpn_convs.2.conv.bias: it is not in'),
    (lambda state: state.update({'backbone.conv1.weight': torch.zeros(4, 3, 7, 7)}), r'it is \[4, 3'),
    (lambda state: state.update({'neck.extra.weight': torch.zeros(1)}), 'it is not in the detector'),
    (lambda state: state.update({'roi_head.bbox_head.shared_convs.0.weight': torch.zeros(1)}),
     'is shared_fcs.0 in the model and shared_convs.0'),
], ids=['missing', 'shape', 'left over', 'another module'])
def test_weights_of_another_network_are_refused(cascade, tmp_path, change, message):
    detector, parts, state = cascade
    state = dict(state)
    change(state)
    with pytest.raises(ValueError, match=message):
        hand_over(detector, parts, save(tmp_path, state), tmp_path / 'start.pth')
    assert not (tmp_path / 'start.pth').exists()


def test_a_run_of_any_detector_is_published_with_its_names(tmp_path):
    """Also P6 and P7 of a pyramid; the box head that one-stage detectors throw away is not."""
    detector = small_detector('fcos/fcos_r50-caffe_fpn_gn-head_1x_coco')
    cfg, parts = derive(detector, small_recipe())
    assert cfg.model.channels_last is True  # a step is faster so, and nothing else shows it
    state = build(cfg).state_dict()
    run = tmp_path / 'work/run'
    run.mkdir(parents=True)
    checkpoint, text = run / 'epoch_1.pth', cfg.pretty_text
    torch.save(dict(state_dict=state, meta=dict(cfg=text, epoch=1, iter=2)), checkpoint)
    published = publish(checkpoint, tmp_path / 'out', name='mine')
    weights = read_checkpoint(published.weights[0])['state_dict']
    assert weights.keys() == for_detector(state, parts.prefixes).state_dict.keys()
    assert 'neck.fpn_convs.4.conv.weight' in weights
    assert not [key for key in weights if key.startswith('roi_head.')]
    assert sum(map(len, published.conversion.dropped.values())) == len(state) - len(weights)
    assert 'RoI head of pretraining alone' in published.conversion.dropped
    card = published.card.read_text()
    assert f'python tools/train.py detector.py --pretrained {published.weights[0].name}' in card
    assert 'BGR, mean [102.9801' in card and str(tmp_path) not in card
    command = commands(Run(run, checkpoint=checkpoint, config=read_dumped(text)))[-1]
    assert f'tools/train.py {tmp_path}/work/detector.py --pretrained' in command.line


def test_the_table_says_what_is_pretrained(cascade):
    detector, parts, _ = cascade
    with DefaultScope.overwrite_default_scope('mmdet'):
        model = MODELS.build(cpu_config(detector).model)
    rows = {(part, modules): (count, why) for part, modules, count, why in part_rows(model, parts)}
    assert rows['backbone', 'ResNeXt'] == (318, 'yes') and rows['neck', 'FPN'] == (16, 'yes')
    assert rows['roi_head.bbox_head.*.shared layers', 'Shared2FCBBoxHead'] == (
        12, 'yes, once for its 3 stages')
    assert rows['rpn_head', 'RPNHead'] == (6, 'no: it learns from annotated objects')
    assert sum(count for count, _ in rows.values()) == len(model.state_dict())
    assert 'yes, once' in format_table(part_rows(model, parts))


def test_mean_std_and_channels_are_the_detectors():
    caffe, _ = read_detector('mmdet::fcos/fcos_r50-caffe_fpn_gn-head_1x_coco.py')
    assert preprocessor(caffe) == dict(type='SoCoDataPreprocessor', bgr_to_rgb=False,
                                       mean=[102.9801, 115.9465, 122.7717], std=[1.0, 1.0, 1.0])
    yolox, _ = read_detector('mmdet::yolox/yolox_tiny_8xb8-300e_coco.py')
    assert preprocessor(yolox) == dict(type='SoCoDataPreprocessor', bgr_to_rgb=False,
                                       mean=[0.0, 0.0, 0.0], std=[1.0, 1.0, 1.0])


# the recipes, derived from their detectors

MASK = ROOT / 'configs/benchmarks/mmdetection/coco'
DETECTORS = {'SoCo_FPN': 'mask-rcnn_r50_fpn_ms-1x_coco.py',
             'SoCo_FPN_Star': 'mask-rcnn_r50_fpn_ms-1x_coco.py',
             'SoCo_C4': 'mask-rcnn_r50_c4_ms-1x_coco.py'}
recipe_model = parity.build_model


def derived_model(kind: str, arch: str) -> torch.nn.Module:
    """Build the model of a parity file from its detector."""
    recipe = Config.fromfile(ROOT / 'configs' / parity.RECIPES[kind], import_custom_modules=False)
    detector, _ = read_detector(str(MASK / DETECTORS[kind]))
    detector.model.backbone.depth = int(arch[len('resnet'):])
    if detector.model.backbone.depth < 50:
        detector.model.neck.in_channels = [64, 128, 256, 512]
    if kind == 'SoCo_C4':  # the detector has one more norm, which SoCo-C4 has not
        detector.model.roi_head.shared_head.type = 'ResLayer'
    return build(derive(detector, recipe)[0])


@pytest.mark.parametrize('name', [
    pytest.param('fpn_r18', marks=pytest.mark.slow(5)),
    pytest.param('fpn_star_r18', marks=pytest.mark.slow(6)),
    pytest.param('c4_r50', marks=pytest.mark.slow(10))])
def test_derived_recipes_give_the_numbers_of_the_recipes(name, monkeypatch):
    """All losses, features and gradients of the parity files, to the last digit."""
    path = ROOT / f'tests/data/parity/{name}.json'
    expected = parity.compare(path)
    built = []

    def build_derived(kind: str, arch: str) -> torch.nn.Module:
        built.append(derived_model(kind, arch))
        return built[0]

    monkeypatch.setattr(parity, 'build_model', build_derived)
    assert parity.compare(path) == expected
    head = built[0].roi_head
    kind = head.shared_head if name == 'c4_r50' else head.bbox_head
    assert type(kind).__module__.startswith('mmdet.')


def test_a_derived_config_is_whole(tmp_path):
    """It is read without its detector, and its model computes the same."""
    cfg, _ = derive(small_detector(FASTER), small_recipe())
    cfg.dump(tmp_path / 'pretraining.py')
    again = Config.fromfile(tmp_path / 'pretraining.py', import_custom_modules=False)
    torch.manual_seed(0)
    first = build(cfg)
    torch.manual_seed(0)
    second = build(again)
    batch = made_up_batch(cfg, 2)
    assert torch.equal(*(model.loss(*batch)['loss_12'] for model in (first, second)))
    assert 'colours' not in again and again.train_cfg == small_recipe().train_cfg
