"""Tests of the weight converters with other projects' names and models, and with bad files."""
import argparse
import copy
import functools
import importlib.util
import os
import pickle
import pickletools
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import parity
import pytest
import safetensors.torch
import torch
import torchvision
from mmengine.config import Config
from mmengine.registry import init_default_scope
from small import ROOT
from torch import Tensor, nn

import reference
from projects.soco.weights.convert import convert, from_official
from projects.soco.weights.match import match_weights
from projects.soco.weights.names import TARGETS, name_table
from projects.soco.weights.read import read_checkpoint, read_weights
from projects.soco.weights.write import check_output, write_weights

KINDS = {'fpn_r18': ('SoCo_FPN', 'resnet18'), 'fpn_r50': ('SoCo_FPN', 'resnet50'),
         'fpn_star_r18': ('SoCo_FPN_Star', 'resnet18'), 'c4_r50': ('SoCo_C4', 'resnet50')}
NORM = ('weight', 'bias', 'running_mean', 'running_var')


@functools.cache
def model(kind: str) -> nn.Module:
    """Return a model of the project with names and shapes only."""
    with torch.device('meta'):
        return parity.build_model(*KINDS[kind])


def weights(kind: str) -> dict[str, Tensor]:
    """Return a different small tensor for every name of a model."""
    return {name: torch.tensor([i, i + 0.5]) for i, name in enumerate(model(kind).state_dict())}


def online(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {k: v for k, v in state.items() if k.startswith(('backbone.', 'neck.', 'roi_head.'))}


def official(kind: str) -> dict[str, Tensor]:
    """Return an official model's names and shapes, from the parity file, with BN's counters."""
    keys = reference.load_parity(ROOT / f'tests/data/parity/{kind}.json')['keys']
    state = {name: torch.empty(shape, device='meta') for name, shape in keys.items()}
    counters = {name.replace('running_mean', 'num_batches_tracked'): torch.empty((), device='meta')
                for name in keys if name.endswith('running_mean')}
    return {f'module.{name}': value for name, value in {**state, **counters}.items()}


def assert_same(actual: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    """Check that names and values are identical."""
    assert set(actual) == set(expected)
    for name, value in expected.items():
        assert actual[name].dtype == value.dtype and torch.equal(actual[name], value), name


# detectron2's names, derived from its modules: wrappers.Conv2d contains its norm, ResNet has stem and
# res2 to res5, FPN has `fpn_lateral<n>` and `fpn_output<n>`, the box head starts at conv1 and fc1.

def d2_conv(name: str, inside: int, outside: int, size: int,
            norm: bool = True) -> Iterator[tuple[str, tuple]]:
    yield f'{name}.weight', (outside, inside, size, size)
    if norm:
        yield from ((f'{name}.norm.{leaf}', (outside, )) for leaf in NORM)
        yield f'{name}.norm.num_batches_tracked', ()
    else:
        yield f'{name}.bias', (outside, )


def d2_linear(name: str, inside: int, outside: int) -> Iterator[tuple[str, tuple]]:
    yield from ((f'{name}.weight', (outside, inside)), (f'{name}.bias', (outside, )))


def d2_stage(name: str, stage: int, blocks: int, basic: bool) -> Iterator[tuple[str, tuple]]:
    width = 64 * 2**(stage - 2)
    outside = width if basic else 4 * width
    inside = (64 if stage == 2 else width // 2) if basic else (64 if stage == 2 else outside // 2)
    for i in range(blocks):
        block = f'{name}.{i}'
        if inside != outside:
            yield from d2_conv(f'{block}.shortcut', inside, outside, 1)
        for n, shape in enumerate([(inside, width, 3), (width, width, 3)] if basic else
                                  [(inside, width, 1), (width, width, 3), (width, outside, 1)], 1):
            yield from d2_conv(f'{block}.conv{n}', *shape)
        inside = outside


def d2_mask_rcnn(c4: bool, blocks: tuple = (3, 4, 6, 3), basic: bool = False) -> dict[str, tuple]:
    """Return names and shapes of a whole Mask R-CNN of detectron2, 80 classes, SyncBN."""
    body = 'backbone' if c4 else 'backbone.bottom_up'
    stages = [f'{body}.res{n}' for n in (2, 3, 4)] + ['roi_heads.res5' if c4 else f'{body}.res5']
    parts = [d2_conv(f'{body}.stem.conv1', 3, 64, 7)]
    parts += [d2_stage(stage, n, blocks[n - 2], basic) for n, stage in enumerate(stages, 2)]
    top = 1024 if c4 else 256
    for n, inside in zip((2, 3, 4, 5), (64, 128, 256, 512) if basic else (256, 512, 1024, 2048)):
        if not c4:
            parts += [d2_conv(f'backbone.fpn_lateral{n}', inside, 256, 1),
                      d2_conv(f'backbone.fpn_output{n}', 256, 256, 3),
                      d2_conv(f'roi_heads.box_head.conv{n - 1}', 256, 256, 3),
                      d2_conv(f'roi_heads.mask_head.mask_fcn{n - 1}', 256, 256, 3)]
    if not c4:
        parts.append(d2_linear('roi_heads.box_head.fc1', 256 * 7 * 7, 1024))
    rpn, anchors = 'proposal_generator.rpn_head', 15 if c4 else 3
    parts += [d2_conv(f'{rpn}.conv', top, top, 3, norm=False),
              d2_conv(f'{rpn}.objectness_logits', top, anchors, 1, norm=False),
              d2_conv(f'{rpn}.anchor_deltas', top, 4 * anchors, 1, norm=False),
              d2_linear('roi_heads.box_predictor.cls_score', 2048 if c4 else 1024, 81),
              d2_linear('roi_heads.box_predictor.bbox_pred', 2048 if c4 else 1024, 320)]
    mask = 'roi_heads.mask_head'
    parts += [[(f'{mask}.deconv.weight', (2048 if c4 else 256, 256, 2, 2)),
               (f'{mask}.deconv.bias', (256, ))],
              d2_conv(f'{mask}.predictor', 256, 80, 1, norm=False)]
    return {name: shape for part in parts for name, shape in part}


@pytest.mark.parametrize('kind, detector, count', [
    ('fpn_r50', dict(c4=False), 392), ('c4_r50', dict(c4=True), 318),
    ('fpn_r18', dict(c4=False, blocks=(2, 2, 2, 2), basic=True), 194)])
def test_names_and_shapes_are_detectron2_s(kind, detector, count):
    result = convert(model(kind).state_dict(), 'detectron2')
    parts = ('backbone.', 'roi_heads.box_head.', 'roi_heads.res5.')
    wanted = {k: v for k, v in d2_mask_rcnn(**detector).items() if k.startswith(parts)}
    assert {k: tuple(v.shape) for k, v in result.state_dict.items()} == wanted
    assert len(wanted) == count
    assert set(result.dropped) == {'target network', 'projector', 'predictor'}


@pytest.mark.parametrize('kind, config, require, count', [
    ('fpn_r50', 'mask-rcnn_r50_fpn_ms-1x_coco', ['backbone', 'neck', 'roi_head.bbox_head'], 392),
    ('c4_r50', 'mask-rcnn_r50_c4_ms-1x_coco', ['backbone', 'roi_head.shared_head.layer4'], 318)])
def test_names_and_shapes_are_the_mmdet_detector_s(kind, config, require, count):
    from mmdet.registry import MODELS
    init_default_scope('mmdet')
    path = ROOT / f'configs/benchmarks/mmdetection/coco/{config}.py'
    with torch.device('meta'):
        detector = MODELS.build(Config.fromfile(path, import_custom_modules=False).model)
    result = convert(model(kind).state_dict(), 'mmdet')
    report = match_weights(detector.state_dict(), result.state_dict, require)
    assert report.complete and report.required == (count, count)
    assert not report.unused and not report.mismatched


@pytest.mark.parametrize('kind', ['fpn_r50', 'c4_r50'])
def test_torchvision_s_resnet_computes_what_our_backbone_does(kind):
    ours = parity_backbone(kind)
    state = convert({**model(kind).state_dict(), **ours.state_dict()}, 'torchvision').state_dict
    theirs = torchvision.models.resnet50(weights=None).eval()
    missing, unexpected = theirs.load_state_dict(state, strict=False)
    assert not unexpected and set(missing) == {'fc.weight', 'fc.bias'}
    theirs.fc = nn.Identity()
    pictures = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        feats = ours.backbone(pictures)[-1]
        feats = feats if kind == 'fpn_r50' else ours.roi_head.shared_head(feats)
        torch.testing.assert_close(theirs(pictures), feats.mean(dim=(2, 3)), rtol=0, atol=1e-5)
    assert feats.std() > 0.01


def parity_backbone(kind: str) -> nn.Module:
    """Return a model's backbone (with C4's last stage) with random weights and statistics."""
    source = model(kind)
    parts = nn.Module()
    parts.backbone = source.backbone
    if kind == 'c4_r50':
        parts.roi_head = nn.Module()
        parts.roi_head.shared_head = source.roi_head.shared_head
    parts = copy.deepcopy(parts).to_empty(device='cpu').eval()
    for name, value in parts.state_dict().items():
        if name.endswith('num_batches_tracked'):
            value.fill_(7)
        elif value.dim() == 4:
            nn.init.kaiming_normal_(value)
        else:
            value.uniform_(*((0.2, 0.6) if name.endswith('weight') else
                             (0.5, 1.5) if name.endswith('var') else (-0.2, 0.2)))
    return parts


@pytest.mark.parametrize('kind', ['fpn_r18', 'fpn_star_r18', 'c4_r50'])
def test_an_official_checkpoint_fills_every_key_of_our_model(kind):
    state = official(kind)
    if kind == 'c4_r50':
        state |= {'module.queue': torch.empty(128, 8), 'module.queue_ptr': torch.zeros(1)}
    result = convert(state, 'soco')
    model(kind).load_state_dict(result.state_dict, strict=True)  # raises unless all keys match
    assert result.source == 'official' and result.family == ('C4' if kind == 'c4_r50' else 'FPN')
    queue = ['module.queue', 'module.queue_ptr'] if kind == 'c4_r50' else []
    assert sorted(key for keys in result.dropped.values() for key in keys) == queue
    assert from_official(state).keys() == result.state_dict.keys()


@pytest.mark.parametrize('to', ['mmdet', 'detectron2', 'torchvision'])
def test_an_official_checkpoint_goes_to_every_format(to):
    for kind in ('fpn_r18', 'c4_r50'):
        direct = convert(official(kind), to)
        over_ours = convert(convert(official(kind), 'soco').state_dict, to)
        assert direct.state_dict.keys() == over_ours.state_dict.keys()
        assert len(direct.state_dict) + sum(map(len, direct.dropped.values())) == len(official(kind))


@pytest.mark.parametrize('kind', ['fpn_r18', 'fpn_r50', 'c4_r50'])
class TestRoundTrips:

    @pytest.mark.parametrize('to', ['mmdet', 'detectron2', 'soco'])
    def test_there_and_back(self, kind, to):
        there = convert(weights(kind), to)
        back = convert(there.state_dict, 'soco')
        assert_same(back.state_dict, weights(kind) if to == 'soco' else online(weights(kind)))
        assert back.source == to and back.family == there.family

    def test_torchvision_keeps_the_backbone(self, kind):
        c4 = kind == 'c4_r50'
        there = convert(weights(kind), 'torchvision').state_dict
        back = convert(there, 'soco', c4=c4).state_dict
        assert_same(back, {k: v for k, v in online(weights(kind)).items()
                           if c4 or k.startswith('backbone.')})

    @pytest.mark.parametrize('to', TARGETS)
    @pytest.mark.parametrize('suffix', ['.pth', '.safetensors'])
    def test_through_files(self, kind, to, suffix, tmp_path):
        result = convert(weights(kind), to)
        write_weights(result, tmp_path / f'out{suffix}')
        assert_same(read_weights(tmp_path / f'out{suffix}'), result.state_dict)
        assert os.listdir(tmp_path) == [f'out{suffix}']


def test_every_table_is_read_both_ways_without_loss():
    for family in ('FPN', 'C4'):
        for name in (*TARGETS, 'official'):
            table = name_table(name, family)
            assert len(set(table.values())) == len(table) > 5000


def test_other_types_and_layouts_of_tensors_survive(tmp_path):
    state = weights('c4_r50')
    names = list(online(state))
    big = torch.arange(10000.).view(100, 100)
    special = {names[0]: torch.tensor(3), names[1]: torch.tensor([0.1, float('nan')]).half(),
               names[2]: big.t(), names[3]: big[0],  # 3 is a view of 2
               names[4]: torch.arange(1e6)[5:7]}  # only these two values must be written
    result = convert({**state, **special}, 'mmdet')
    for suffix in ('.pth', '.safetensors'):
        write_weights(result, tmp_path / f'out{suffix}')
        found = read_weights(tmp_path / f'out{suffix}')
        assert all(found[k].dtype == v.dtype for k, v in special.items())
        for key in (names[0], names[2], names[3], names[4]):
            assert torch.equal(found[key], special[key])
        assert found[names[1]].view(torch.int16).equal(special[names[1]].view(torch.int16))
        assert (tmp_path / f'out{suffix}').stat().st_size < 300_000


class TestForms:

    @pytest.mark.parametrize('to, keys', [('mmdet', {'state_dict', 'meta'}),
                                          ('soco', {'state_dict', 'meta'}),
                                          ('detectron2', {'model'})])
    def test_a_pth_is_plain(self, to, keys, tmp_path):
        write_weights(convert(weights('fpn_r18'), to), tmp_path / 'a.pth')
        content = torch.load(tmp_path / 'a.pth', weights_only=True)
        assert set(content) == keys
        if 'meta' in keys:
            assert content['meta']['names'] == to and content['meta']['family'] == 'FPN'

    def test_torchvision_s_pth_is_bare(self, tmp_path):
        write_weights(convert(weights('fpn_r18'), 'torchvision'), tmp_path / 'a.pth')
        content = torch.load(tmp_path / 'a.pth', weights_only=True)
        assert set(content) == set(torchvision.models.resnet18().state_dict()) - {'fc.weight',
                                                                                  'fc.bias'}

    def test_safetensors_says_what_it_is(self, tmp_path):
        write_weights(convert(weights('c4_r50'), 'mmdet'), tmp_path / 'a.safetensors')
        with safetensors.safe_open(tmp_path / 'a.safetensors', 'pt') as file:
            assert file.metadata() | dict(soco_version='') == dict(
                format='pt', converted_from='soco', names='mmdet', family='C4', soco_version='')

    def test_a_pkl_is_what_detectron2_reads_literally(self, tmp_path):
        result = convert(weights('fpn_r18'), 'detectron2')
        write_weights(result, tmp_path / 'a.pkl')
        data = (tmp_path / 'a.pkl').read_bytes()
        content = pickle.loads(data, encoding='latin1')  # as its DetectionCheckpointer does
        assert content.keys() == {'model', '__author__', 'matching_heuristics'}
        assert content['matching_heuristics'] is False
        arrays = content['model']
        assert all(isinstance(a, np.ndarray) and a.flags.writeable for a in arrays.values())
        assert_same({k: torch.from_numpy(a) for k, a in arrays.items()}, result.state_dict)
        # NumPy 1 must have all names in the file; it has no numpy._core
        ops = [(op.name, arg) for op, arg, _ in pickletools.genops(data)]
        assert 'GLOBAL' not in dict(ops)
        texts = [arg for name, arg in ops if name == 'SHORT_BINUNICODE']
        assert {'numpy', 'ndarray', 'bytearray'} <= set(texts)
        assert not any(text.startswith('numpy.') for text in texts)


class TestStrictness:

    @pytest.mark.parametrize('key', ['backbone.layer1.0.se.weight', 'neck.lateral_convs.4.conv.weight',
                                     'roi_head.bbox_head.shared_convs.0.conv.scale', 'extra'])
    @pytest.mark.parametrize('to', TARGETS)
    def test_an_unknown_key_is_named(self, key, to):
        with pytest.raises(ValueError, match=f'1 of .* keys are not .*: {key}') as error:
            convert({**weights('fpn_r18'), key: torch.ones(1)}, to)
        assert 'backbone.conv1.weight' not in str(error.value)

    def test_many_unknown_keys_are_counted(self):
        extra = {f'backbone.strange{i}.weight': torch.ones(1) for i in range(30)}
        with pytest.raises(ValueError, match='30 of .* keys .*strange19.weight and 10 more'):
            convert({**weights('fpn_r18'), **extra}, 'mmdet')

    def test_an_unknown_official_key_is_named(self):
        with pytest.raises(ValueError, match='module.head.conv5.weight'):
            from_official({**official('fpn_r18'), 'module.head.conv5.weight': torch.ones(1)})

    def test_a_pyramid_s_keys_have_no_place_in_c4(self):
        mixed = weights('c4_r50') | {k: v for k, v in weights('fpn_r50').items() if 'layer4' in k}
        with pytest.raises(ValueError, match='60 of .*roi_head.shared_head.layer4.0.conv1.weight'):
            convert(online(mixed), 'mmdet')

    def test_what_it_looks_like_is_said(self):
        detector = {k: torch.ones(1) for k in d2_mask_rcnn(c4=False)}
        with pytest.raises(ValueError, match='mask_head.*looks like a whole detector'):
            convert(detector, 'mmdet')
        classifier = {**online(weights('fpn_r18')), 'head.fc.weight': torch.ones(1)}
        with pytest.raises(ValueError, match='head.fc.weight.*looks like a classifier'):
            convert(classifier, 'mmdet')
        with pytest.raises(ValueError, match='not weights of SoCo.*looks like a classifier.*encoder.'):
            convert({'encoder_q.conv1.weight': torch.ones(1), 'fc.weight': torch.ones(1)}, 'soco')

    def test_two_models_in_one_are_refused(self):
        state = weights('fpn_r18')
        with pytest.raises(ValueError, match='module.'):
            convert({**state, 'module.backbone.conv1.weight': torch.zeros(1)}, 'mmdet')

    def test_weights_without_anything_for_the_target_are_refused(self):
        state = {k: v for k, v in weights('fpn_r18').items() if k.startswith('projector.')}
        with pytest.raises(ValueError, match='Nothing.*torchvision.*projector'):
            convert(state, 'torchvision')

    def test_the_option_c4_is_for_plain_resnets(self):
        with pytest.raises(ValueError, match='soco'):
            convert(weights('c4_r50'), 'mmdet', c4=True)

    def test_a_supervised_resnet_becomes_a_detector_s_backbone(self):
        state = torchvision.models.resnet18().state_dict()
        plain = convert(state, 'mmdet')
        assert plain.dropped == {'classifier': ['fc.weight', 'fc.bias']}
        assert_same(plain.state_dict, {f'backbone.{k}': v for k, v in state.items()
                                       if not k.startswith('fc.')})
        c4 = convert(state, 'mmdet', c4=True).state_dict
        assert torch.equal(c4['roi_head.shared_head.layer4.1.bn2.bias'], state['layer4.1.bn2.bias'])


class Planted:
    """An object that creates a file when unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return open, (str(self.path), 'w')


@functools.cache
def tool():
    """Return tools/convert_weights.py as a module."""
    spec = importlib.util.spec_from_file_location('convert_weights', ROOT / 'tools/convert_weights.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class TestFiles:

    @pytest.fixture
    def run(self, monkeypatch, tmp_path):
        """Run the tool in an empty folder."""
        monkeypatch.chdir(tmp_path)

        def main(*args: str) -> None:
            monkeypatch.setattr(sys, 'argv', ['convert_weights.py', *args])
            tool().main()

        return main

    def test_our_checkpoint_becomes_a_detector_s(self, run, capsys):
        torch.save(dict(state_dict=weights('fpn_r18'), meta=dict(iter=3), optimizer=dict(a=[1])),
                   'a.pth')
        run('a.pth', 'out/b.pth', '--to', 'mmdet')
        assert_same(read_weights('out/b.pth'), online(weights('fpn_r18')))
        text = capsys.readouterr().out
        for line in ('194 moved', '9 dropped: projector', '9 dropped: predictor',
                     '203 dropped: target network'):
            assert f' {line}\n' in text
        assert 'ResNet-18, FPN of 2 channels, box head of 2: fits no detector config' in text
        assert 'are in out/b.pth' in text

    def test_c4_gets_its_detector_and_a_backbone_alone_gets_none(self, run, capsys):
        torch.save(weights('c4_r50'), 'a.pth')
        run('a.pth', 'b.pth', '--to', 'mmdet')
        assert 'ResNet-50: fits configs/benchmarks/mmdetection/coco/mask-rcnn_r50_c4' in (
            capsys.readouterr().out)
        run('a.pth', 'c.safetensors', '--to', 'torchvision')
        run('c.safetensors', 'd.pth', '--to', 'mmdet')
        assert '--pretrained supervised:d.pth' in capsys.readouterr().out
        run('c.safetensors', 'e.pth', '--to', 'mmdet', '--c4')
        assert_same(read_weights('e.pth'), online(weights('c4_r50')))

    @pytest.mark.parametrize('recipe, said', [
        ('soco_r18_fpn_quickstart', 'ResNet-18, FPN of 64 channels, box head of 256: fits configs/'
         'benchmarks/mmdetection/coco/mask-rcnn_r18_fpn_quickstart.py and configs/benchmarks/'
         'mmdetection/own_photos/faster-rcnn_r18_fpn.py\n'),
        ('soco_r101_fpn_400e', 'ResNet-101, FPN of 256 channels, box head of 1024: fits configs/'
         'benchmarks/mmdetection/coco/mask-rcnn_r101_fpn_ms-1x_coco.py\n'),
        ('soco_effnetlite0_fpn_own_photos', 'tf_efficientnet_lite0, FPN of 64 channels, box head of '
         '256: fits configs/benchmarks/mmdetection/own_photos/faster-rcnn_effnetlite0_fpn.py\n')])
    def test_depth_and_sizes_are_said_with_what_they_fit(self, recipe, said):
        from mmengine.registry import MODELS, DefaultScope

        from projects.soco.compat.cpu import cpu_config
        cfg = cpu_config(Config.fromfile(ROOT / f'configs/{recipe}.py'))
        with DefaultScope.overwrite_default_scope('mmselfsup'), torch.device('meta'):
            state = MODELS.build(cfg.model).state_dict()
        assert f'{tool().fitting(convert(state, "mmdet"), "out.pth")}\n' == said

    def test_a_resnet_inside_another_method_s_network(self, run, capsys):
        resnet = {k: v for k, v in torchvision.models.resnet18().state_dict().items() if 'fc' not in k}
        torch.save(dict(state_dict={f'module.encoder_{q}.{k}': v + (q == 'k') for q in 'kq'
                                    for k, v in resnet.items()}), 'moco.pth')
        run('moco.pth', 'r18.pth', '--to', 'mmdet')
        assert_same(read_weights('r18.pth'), {f'backbone.{k}': v for k, v in resnet.items()})
        text = capsys.readouterr().out
        assert 'dropped: not under encoder_q.' in text
        assert 'ResNet-18, without neck and RoI head' in text

    def test_an_official_checkpoint_with_its_options(self, run):
        state = {name: torch.full((2, ), i) for i, name in enumerate(official('c4_r50'))}
        torch.save(dict(opt=argparse.Namespace(lr=1.0, crop=[0.2, 1], local_rank=0), model=state,
                        optimizer=dict(state={}), scheduler=dict(after_scheduler={}), epoch=100),
                   'a.pth')
        run('a.pth', 'b.pth', '--to', 'soco')
        found = read_weights('b.pth')
        assert_same({k: found[k] for k in ('target.backbone.conv1.weight', 'head.predictor.fc0.bias')},
                    {'target.backbone.conv1.weight': state['module.encoder_k.conv1.weight'],
                     'head.predictor.fc0.bias': state['module.predictor.linear1.bias']})

    def test_nothing_is_written_when_a_key_is_unknown(self, run, tmp_path):
        torch.save({**weights('fpn_r18'), 'surprise': torch.ones(1)}, 'a.pth')
        with pytest.raises(ValueError, match='surprise'):
            run('a.pth', 'b.pth', '--to', 'mmdet')
        assert os.listdir(tmp_path) == ['a.pth']

    @pytest.mark.parametrize('name', ['a.pth', 'zip.pth', 'options.pth', 'a.pkl', 'a.PKL',
                                      'a.safetensors'])
    def test_no_code_of_a_file_is_run(self, run, name, tmp_path):
        trap = Planted(tmp_path / 'planted')
        state = {'backbone.conv1.weight': torch.ones(1)}
        if name == 'zip.pth':
            torch.save(dict(state_dict=state, extra=trap), name)
        elif name == 'options.pth':
            torch.save(dict(opt=argparse.Namespace(a=trap), model=state), name)
        else:
            Path(name).write_bytes(pickle.dumps(dict(model=state, extra=trap), 2))
        with pytest.raises(ValueError, match=name) as error:
            run(name, 'b.pth', '--to', 'mmdet')
        assert ('could run code' in str(error.value)) == (not name.endswith('safetensors'))
        assert os.listdir(tmp_path) == [name]

    @pytest.mark.parametrize('name, to, match', [
        ('b.pkl', 'mmdet', r'\.pth or \.safetensors.*Only detectron2'), ('b.onnx', 'soco', r'\.onnx'),
        ('b', 'torchvision', 'without suffix'), ('b.bin', 'detectron2', r'\.safetensors or \.pkl')])
    def test_a_wrong_suffix_is_refused_before_any_work(self, name, to, match, run, tmp_path):
        with pytest.raises(ValueError, match=match):
            run('not_even_there.pth', name, '--to', to)
        assert os.listdir(tmp_path) == []

    def test_an_output_is_replaced_only_when_asked(self, run):
        torch.save(weights('fpn_r18'), 'a.pth')
        Path('b.pth').write_text('precious')
        with pytest.raises(FileExistsError, match='b.pth exists.*--overwrite'):
            run('a.pth', 'b.pth', '--to', 'mmdet')
        assert Path('b.pth').read_text() == 'precious'
        run('a.pth', 'b.pth', '--to', 'mmdet', '--overwrite')
        assert_same(read_weights('b.pth'), online(weights('fpn_r18')))
        with pytest.raises(ValueError, match='is the input'):
            run('a.pth', './a.pth', '--to', 'mmdet', '--overwrite')

    def test_a_full_disk_leaves_what_was_there(self, run, tmp_path, monkeypatch):
        torch.save(weights('fpn_r18'), 'a.pth')
        Path('b.pth').write_text('precious')

        def full(*args) -> None:
            raise OSError(28, 'No space left on device')

        monkeypatch.setattr('projects.soco.files.os.fsync', full)
        with pytest.raises(OSError, match='No space left'):
            run('a.pth', 'b.pth', '--to', 'mmdet', '--overwrite')
        assert Path('b.pth').read_text() == 'precious'
        assert sorted(os.listdir(tmp_path)) == ['a.pth', 'b.pth']

    def test_what_is_no_checkpoint_is_named(self, run, tmp_path):
        for name in ('no.pth', 'no.safetensors'):
            with pytest.raises(FileNotFoundError, match=name):
                run(name, 'b.pth', '--to', 'mmdet')
            Path(name).write_bytes(b'a text that is long enough')
            with pytest.raises(ValueError, match=name):
                run(name, 'b.pth', '--to', 'mmdet')
        for content, match in [(dict(lr=0.1), 'found lr'), (dict(state_dict={}), 'found nothing'),
                               (dict(model={'a.weight': 1}), 'found a.weight'), ([1], 'list')]:
            torch.save(content, 'no.pth')
            with pytest.raises(ValueError, match=f'no.pth.*{match}'):
                run('no.pth', 'b.pth', '--to', 'mmdet')
        assert sorted(os.listdir(tmp_path)) == ['no.pth', 'no.safetensors']


def test_training_reads_an_official_checkpoint_and_resuming_does_not(tmp_path):
    torch.save(dict(opt=argparse.Namespace(lr=1), model=weights('fpn_r18')), tmp_path / 'a.pth')
    assert read_weights(tmp_path / 'a.pth').keys() == weights('fpn_r18').keys()
    with pytest.raises(ValueError, match='a.pth contains more than tensors'):
        read_checkpoint(tmp_path / 'a.pth')
    torch.save(dict(model=weights('fpn_r18')), tmp_path / 'b.pth')
    with pytest.raises(ValueError, match='no `state_dict`.*tools/convert_weights.py'):
        read_checkpoint(tmp_path / 'b.pth')


def test_the_suffix_of_an_output_is_the_format_s():
    for to in TARGETS:
        for suffix in ('.pth', '.safetensors'):
            check_output(f'nowhere/out{suffix}', to)
    check_output('nowhere/out.pkl', 'detectron2')


def test_a_backbone_of_timm_keeps_its_names() -> None:
    """Between this project and mmdet, whose names are the same; other formats have none for it."""
    own = {f'{prefix}backbone.timm_model.{name}': torch.randn(2) for prefix in ('', 'target.')
           for name in ('conv_stem.weight', 'blocks.0.0.bn1.bias')}
    rest = {'neck.fpn_convs.0.conv.weight': torch.randn(2), 'projector.fc0.weight': torch.randn(2)}
    same = convert({**own, **rest}, 'soco')
    assert same.state_dict.keys() == {*own, *rest} and not same.dropped
    detector = convert({**own, **rest}, 'mmdet')
    assert set(detector.state_dict) == {'neck.fpn_convs.0.conv.weight', *(
        name for name in own if name.startswith('backbone.'))}
    assert convert(detector.state_dict, 'soco').source == 'mmdet'
    with pytest.raises(ValueError, match='backbone.timm_model.conv_stem.weight'):
        convert({**own, **rest}, 'detectron2')
