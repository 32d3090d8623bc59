"""Starting weights of other libraries and methods: each file is made from its own naming."""
import argparse
import pickle
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import Mock

import numpy as np
import pytest
import safetensors.torch
import torch
from mmengine.config import Config
from mmengine.logging import HistoryBuffer
from mmengine.registry import MODELS, DefaultScope
from mmengine.runner import BaseLoop, Runner
from small import ROOT, tiny_config
from torch import Tensor, nn

import projects.soco.datasets  # noqa: F401  (registers it)
from projects.soco.compat.cpu import cpu_config
from projects.soco.engine import PretrainedWeightsHook, ResumableEpochLoop
from projects.soco.evaluation.loading import build_model, build_start
from projects.soco.weights.match import brought_parts, fit_names, match_weights
from projects.soco.weights.names import name_table
from projects.soco.weights.read import read_weights

COUNTER = 'num_batches_tracked'


@pytest.fixture(scope='module')
def cfg(tmp_path_factory: pytest.TempPathFactory) -> Config:
    return tiny_config(tmp_path_factory.mktemp('formats'), photos=2)


@pytest.fixture(scope='module')
def online(cfg: Config) -> dict[str, Tensor]:
    """The online network's tensors with values that no new model has, BN's statistics too."""
    state = build_model(cfg, seed=3).state_dict()
    return {key: value + 7 for key, value in state.items() if not key.startswith('target.')}


def resnet(online: dict[str, Tensor]) -> dict[str, Tensor]:
    """Names as torchvision, timm and MoCo have them inside of their networks."""
    return {key.removeprefix('backbone.'): value for key, value in online.items()
            if key.startswith('backbone.')}


def under(prefix: str, state: dict[str, Tensor], shift: float = 0) -> dict[str, Tensor]:
    return {prefix + key: value + shift for key, value in state.items()}


def extra(*names: str) -> dict[str, Tensor]:
    return {name: torch.ones(3, 4) for name in names}


# What each library or method writes: from the tensors of a ResNet to the content of the file. A second
# network in the file has other values: it must not be the one that arrives.
FILES: dict[str, Callable[[dict[str, Tensor]], dict]] = {
    'torchvision': lambda r: {**r, **extra('fc.weight', 'fc.bias')},
    'timm': lambda r: dict(state_dict={**r, **extra('fc.weight')}, arch='resnet18', epoch=3,
                           args=argparse.Namespace(lr=1), state_dict_ema=under('', r, 1)),
    'mmcls': lambda r: dict(meta={}, state_dict={**under('backbone.', r), **extra('head.fc.weight')}),
    'moco v1 and v2': lambda r: dict(epoch=200, arch='resnet18', state_dict={
        **under('module.encoder_k.', r, 1), **under('module.encoder_q.', r),
        **extra('module.encoder_q.fc.0.weight', 'module.queue', 'module.queue_ptr')}),
    'moco v3': lambda r: dict(state_dict={
        **under('module.momentum_encoder.', r, 1), **under('module.base_encoder.', r),
        **extra('module.base_encoder.fc.0.weight', 'module.predictor.0.weight')}),
    'simclr of mmselfsup': lambda r: dict(meta={}, state_dict={
        **under('backbone.', r), **extra('neck.fc0.weight', 'neck.bn0.running_mean')}),
    'byol of mmselfsup': lambda r: dict(state_dict={
        **under('target_net.module.0.', r, 1), **under('backbone.', r),
        **extra('neck.fc0.weight', 'head.predictor.fc0.weight', 'target_net.module.1.fc0.weight')}),
    'byol of mmselfsup 0.x': lambda r: dict(state_dict={
        **under('target_net.0.', r, 1), **under('online_net.0.', r),
        **extra('online_net.1.fc0.weight')}),
    'byol, online_network': lambda r: dict(state_dict={
        **under('target_network.0.', r, 1), **under('online_network.0.', r)}),
    'densecl of mmselfsup': lambda r: dict(state_dict={
        **under('encoder_k.module.0.', r, 1), **under('backbone.', r),
        **extra('neck.mlp.0.weight', 'neck.mlp2.0.weight', 'queue', 'queue2')}),
    'dino, training': lambda r: dict(
        student={**under('module.backbone.', r, 1), **extra('module.head.mlp.0.weight')},
        teacher={**under('backbone.', r), **extra('head.mlp.0.weight')}, epoch=1,
        optimizer=dict(state={0: dict(momentum_buffer=torch.ones(1))}), args=argparse.Namespace(),
        dino_loss=dict(center=torch.ones(1))),
    'swav': lambda r: under('module.', {**r, **extra('projection_head.0.weight', 'prototypes.weight')}),
    'barlow twins, vicreg': lambda r: dict(epoch=9, model={
        **under('module.backbone.', r), **extra('module.projector.0.weight', 'module.bn.running_var')}),
    'simsiam': lambda r: dict(state_dict={
        **under('module.encoder.', r),
        **extra('module.encoder.fc.0.weight', 'module.predictor.0.weight')}),
    'pixpro': lambda r: dict(opt=argparse.Namespace(lr=1), model={
        **under('module.encoder_k.', r, 1), **under('module.encoder.', r),
        **extra('module.projector.linear1.weight', 'module.projector_k.linear1.weight',
                'module.value_transform.weight')}),
    'vissl': lambda r: dict(classy_state_dict=dict(base_model=dict(model=dict(
        trunk=under('_feature_blocks.', r), heads=extra('0.clf.0.weight'))))),
    'solo-learn': lambda r: dict(state_dict={
        **under('momentum_backbone.', r, 1), **under('backbone.', r),
        **extra('projector.0.weight', 'classifier.weight')}),
    'detectron2, a backbone': lambda r: dict(model={
        d2.removeprefix('backbone.bottom_up.'): r[ours.removeprefix('backbone.')]
        for ours, d2 in name_table('detectron2', 'FPN').items()
        if ours.removeprefix('backbone.') in r} | extra('stem.fc.weight')),
}


def load(model: nn.Module, state: dict[str, Tensor], trains: bool = True, **hook: object) -> str:
    """Load weights as a Runner does, and return what is logged."""
    lines: list[str] = []
    runner = SimpleNamespace(
        model=model, _resume=False, _load_from='start.pth', logger=SimpleNamespace(info=lines.append),
        _train_loop=Mock(spec=BaseLoop) if trains else None)
    checkpoint = dict(state_dict=dict(state))
    PretrainedWeightsHook(**hook).after_load_checkpoint(runner, checkpoint)
    model.load_state_dict(checkpoint['state_dict'], strict=True)
    return '\n'.join(lines)


def arrived(model: nn.Module, online: dict[str, Tensor]) -> set[str]:
    """Return the modules of SoCo, target included, of which every tensor is the file's."""
    state = model.state_dict()
    parts: dict[str, bool] = {}
    for key, value in state.items():
        name = key.removeprefix('target.')
        part = 'target.' * (key != name) + name.split('.')[0]
        parts[part] = parts.get(part, True) and (
            name in online and (torch.equal(value, online[name]) or name.endswith(COUNTER)))
    return {part for part, whole in parts.items() if whole}


@pytest.mark.parametrize('name', FILES)
def test_a_backbone_arrives_in_the_online_and_the_target_network(cfg, online, name, tmp_path):
    torch.save(FILES[name](resnet(online)), tmp_path / 'start.pth')
    model = build_model(cfg, seed=1)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    log = load(model, read_weights(tmp_path / 'start.pth'))
    assert arrived(model, online) == {'backbone', 'target.backbone'}  # running_mean and _var, too
    assert '120 of 120 keys matched' in log and 'target ' in log
    state = model.state_dict()
    others = [key for key in state if 'backbone.' not in key]
    assert all(torch.equal(state[key], before[key]) for key in others)


WHOLE = ('backbone', 'neck', 'roi_head')
RPN_AND_MASKS = ('rpn_head.rpn_cls.weight', 'roi_head.bbox_head.fc_cls.weight',
                 'roi_head.mask_head.conv_logits.weight')
DETECTORS: dict[str, Callable[[dict[str, Tensor]], dict]] = {
    'mmdet': lambda d: dict(meta=dict(dataset_meta=dict(classes=('a', ))), state_dict={
        **d, **extra(*RPN_AND_MASKS)}),
    'mmdet, of its own Runner': lambda d: dict(
        message_hub=dict(log_scalars=dict(loss=HistoryBuffer([1., 2.], [1, 1]))),
        meta=dict(seed=np.int64(3)), state_dict={**d, **extra(*RPN_AND_MASKS)}),
    'mmdet, semi-supervised': lambda d: dict(state_dict={
        **under('student.', d, 1), **under('teacher.', {**d, **extra(*RPN_AND_MASKS)})}),
    'detectron2': lambda d: dict(iteration=9, model={
        **{name_table('detectron2', 'FPN')[key]: value for key, value in d.items()
           if not key.endswith(COUNTER)},  # FrozenBN has none
        **extra('pixel_mean', 'proposal_generator.rpn_head.conv.weight',
                'roi_heads.box_predictor.cls_score.weight', 'roi_heads.mask_head.mask_fcn1.weight')}),
    'official SoCo': lambda d: dict(opt=argparse.Namespace(), model={
        f'module.{name_table("official", "FPN")[key]}': value for key, value in d.items()}),
    'SoCo without its target': lambda d: dict(state_dict=d),
}


@pytest.mark.parametrize('name', DETECTORS)
def test_a_whole_detector_brings_backbone_neck_and_head(cfg, online, name, tmp_path):
    parts = {*WHOLE, 'projector', 'head'} if 'SoCo' in name else {*WHOLE}
    own = {key: value for key, value in online.items() if key.split('.')[0] in parts}
    torch.save(DETECTORS[name](own), tmp_path / 'start.pth')
    model = build_model(cfg, seed=1)
    load(model, read_weights(tmp_path / 'start.pth'))
    assert arrived(model, online) == parts | {f'target.{part}' for part in parts - {'head'}}


def test_a_target_in_the_file_is_kept(cfg, online):
    """A pretraining checkpoint brings online network, target, projector and predictor."""
    state = {**online, **under('target.', {key: value for key, value in online.items()
                                          if not key.startswith('head.')}, shift=1)}
    model = build_model(cfg, seed=1)
    load(model, state)
    assert arrived(model, online) == {*WHOLE, 'projector', 'head'}
    key = 'backbone.bn1.running_var'
    assert torch.equal(model.state_dict()[f'target.{key}'], online[key] + 1)
    del state['target.neck.fpn_convs.0.conv.weight']
    with pytest.raises(ValueError, match='target.*target.neck.fpn_convs.0.conv.weight'):
        load(build_model(cfg, seed=1), state)


def test_what_a_file_has_some_of_must_arrive_whole(cfg, online):
    detector = {key: value for key, value in online.items() if key.split('.')[0] in WHOLE}
    no_norm = {key: value for key, value in detector.items()  # the FPN that most detectors have
               if not (key.startswith('neck.') and '.bn.' in key)}
    with pytest.raises(ValueError, match='start.pth: .*backbone, neck, roi_head.bbox_head matched'
                       r'.*neck.lateral_convs.0.bn.*require=\[backbone,roi_head.bbox_head\]'):
        load(build_model(cfg, seed=1), no_norm)
    log = load(build_model(cfg, seed=1), no_norm, require=['backbone', 'roi_head.bbox_head'])
    assert 'neck ' in log
    hole = {key: value for key, value in detector.items() if key != 'backbone.layer3.1.bn2.running_var'}
    with pytest.raises(ValueError, match='backbone.layer3.1.bn2.running_var'):
        load(build_model(cfg, seed=1), hole)


def test_another_depth_width_or_kind_is_refused_with_its_reason(cfg, online, tmp_path):
    import torchvision
    for make, message in (
        (torchvision.models.resnet50, 'It has a ResNet-50, and this model a ResNet-18'),
        (torchvision.models.resnet34, 'It has a ResNet-34, and this model a ResNet-18'),
        (torchvision.models.resnet18, r'another shape.*\[64, 3, 7, 7\] in the checkpoint and \[16, 3'),
        (torchvision.models.mobilenet_v2, 'not in the checkpoint.*classifier'),
    ):
        with torch.device('meta'):
            state = make().state_dict()
        model = build_model(cfg, seed=1)
        with pytest.raises(ValueError, match=message) as error:
            load(model, state)
        assert 'start.pth' in str(error.value)
    with pytest.raises(ValueError, match='0 of 120 keys of backbone.*begin with lr'):
        load(build_model(cfg, seed=1), {'lr': torch.ones(1)})


def detector(config: str) -> nn.Module:
    cfg = cpu_config(Config.fromfile(ROOT / 'configs/benchmarks' / config))
    where = 'cpu' if config.startswith('classification') else 'meta'  # mmcls calls .item()
    with DefaultScope.overwrite_default_scope(cfg.default_scope), torch.device(where):
        return MODELS.build(cfg.model)


@pytest.mark.parametrize('config', [
    'mmdetection/coco/mask-rcnn_r50_c4_ms-1x_coco.py',
    'mmdetection/coco/mask-rcnn_r50_fpn_ms-1x_coco.py',
    'classification/resnet50_linear-8xb32-steplr-100e_in1k.py'])
def test_c4_s_last_stage_a_detector_and_the_linear_evaluation_are_filled(config):
    import torchvision
    state = detector(config).state_dict()
    with torch.device('meta'):
        names = torchvision.models.resnet50().state_dict()
    body = {key: value for key, value in names.items() if not key.startswith('fc.')}
    for name in ('torchvision', 'mmcls', 'moco v1 and v2', 'moco v3', 'swav', 'solo-learn'):
        content = FILES[name](body)
        weights = content.get('state_dict', content)
        renamed = {new: weights[key] for key, new in fit_names(state, weights).items()}
        report = match_weights(state, renamed, brought_parts(state, renamed))
        assert report.complete and report.required == (318, 318), (name, report.explain())


def test_a_backbone_of_timm_takes_plain_and_wrapped_names():
    """TIMMBackbone has its tensors one name deeper; its own checkpoints stay as they are."""
    inside = {f'blocks.{i}.conv.weight': torch.ones(1) for i in range(30)}
    model = {**under('backbone.timm_model.', inside), 'neck.fpn_convs.0.conv.weight': torch.ones(1)}
    for prefix in ('', 'module.', 'backbone.', 'backbone.timm_model.', 'teacher.backbone.'):
        names = fit_names(model, under(prefix, inside))
        assert set(names.values()) == set(under('backbone.timm_model.', inside)), prefix


class TestFiles:

    @pytest.fixture
    def runner(self, cfg, tmp_path, monkeypatch) -> Callable[..., Runner]:
        """Start a run up to its first iteration."""
        monkeypatch.setattr(ResumableEpochLoop, 'run', lambda loop: loop.runner.model)

        def start(path: Path) -> Runner:
            mine = Config(cfg.to_dict())
            mine.update(load_from=str(path), work_dir=str(tmp_path / 'work'), log_level='INFO')
            mine.experiment_name = f'formats_{path.name}_{tmp_path.name}'
            runner = Runner.from_cfg(mine)
            runner.train()
            return runner

        return start

    @pytest.mark.parametrize('suffix', ['.pth', '.safetensors', '.pkl'])
    def test_a_run_starts_from_each(self, runner, online, tmp_path, suffix):
        path = tmp_path / f'start{suffix}'
        if suffix == '.pkl':
            arrays = {key: value.numpy() for key, value in FILES['detectron2, a backbone'](
                resnet(online))['model'].items()}
            path.write_bytes(pickle.dumps(dict(model=arrays, __author__='torchvision',
                                               matching_heuristics=True), protocol=2))
        elif suffix == '.safetensors':
            safetensors.torch.save_file({key: value.contiguous() for key, value in FILES[
                'torchvision'](resnet(online)).items()}, path)
        else:
            torch.save(FILES['moco v1 and v2'](resnet(online)), path)
        model = runner(path).model
        assert arrived(model, online) == {'backbone', 'target.backbone'}
        log = next((tmp_path / 'work').glob('*/*.log')).read_text()
        assert f'Weights from {path} (' in log and ' is backbone.' in log
        assert 'do not match exactly' not in log

    def test_another_depth_stops_the_run_before_its_first_step(self, runner, tmp_path):
        import torchvision
        torch.save(torchvision.models.resnet34().state_dict(), tmp_path / 'r34.pth')
        with pytest.raises(ValueError, match='r34.pth: .*ResNet-34, and this model a ResNet-18'):
            runner(tmp_path / 'r34.pth')
        log = next((tmp_path / 'work').glob('*/*.log')).read_text()
        assert 'shape differs' in log

    def test_a_pickle_makes_arrays_only(self, tmp_path):
        arrays = dict(a=np.arange(6, dtype='>f4').reshape(2, 3).T, b=np.array(3), c=np.ones((0, 2)),
                      d=np.float16([1.5]))
        for protocol in range(5):
            path = tmp_path / f'{protocol}.pkl'
            path.write_bytes(pickle.dumps(dict(model=arrays, epoch=np.int64(3)), protocol))
            found = read_weights(path)
            assert found.keys() == arrays.keys()
            for name, value in arrays.items():
                native = value.astype(value.dtype.newbyteorder('='))
                assert torch.equal(found[name], torch.from_numpy(native))
        for content, message in (
            (dict(model=dict(a=np.array([object()]))), 'could run code'),
            (dict(blobs=dict(a=np.ones(1))), "Caffe2's Detectron"), ([1], 'could run code'),
            (dict(model=dict(a=Path('x'))), 'it uses pathlib'),
            (dict(model=dict(a=1)), 'contains no weights')):
            (tmp_path / 'bad.pkl').write_bytes(pickle.dumps(content))
            with pytest.raises(ValueError, match=f'bad.pkl.*{message}'):
                read_weights(tmp_path / 'bad.pkl')
        with pytest.raises(FileNotFoundError, match='gone.pkl'):
            read_weights(tmp_path / 'gone.pkl')


def test_a_study_s_start_has_the_same_weights_as_its_run(cfg, online, tmp_path):
    torch.save(FILES['torchvision'](resnet(online)), tmp_path / 'r18.pth')
    assert arrived(build_start(cfg, tmp_path / 'r18.pth'), online) == {'backbone', 'target.backbone'}
