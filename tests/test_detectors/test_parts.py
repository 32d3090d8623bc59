"""What of a detector is pretrained: levels, heads, settings that are lifted, and refusals."""
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope

from projects.soco.detectors.heads import level_sizes
from projects.soco.detectors.parts import choose_levels, find_parts, without_gradient
from projects.soco.detectors.read import config_path, lifted, read_detector
from projects.soco.models.roi_heads import keep_shared_layers

FASTER = 'mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py'


def detector(**model) -> Config:
    """A detector with small parts; `model` replaces some of them."""
    return Config(dict(model=dict(dict(
        type='RetinaNet',
        backbone=dict(type='ResNet', depth=18, base_channels=8, stem_channels=8),
        neck=dict(type='FPN', in_channels=[8, 16, 32, 64], out_channels=16, num_outs=4),
        bbox_head=dict(type='RetinaHead', num_classes=2, in_channels=16)), **model)))


def box_head(kind: str = 'Shared2FCBBoxHead', **settings) -> dict:
    return dict(dict(type=kind, in_channels=16, fc_out_channels=24, num_classes=2), **settings)


# levels


def test_the_papers_borders():
    assert level_sizes([4, 8, 16, 32], [224, 224, 112]) == [48, 96, 192, 384]
    assert level_sizes([4, 8, 16], [128, 128, 64]) == [27, 55, 110]  # of the recipe for own photos


@pytest.mark.parametrize('strides, chosen', [
    ([4, 8, 16, 32, 64], ([0, 1, 2, 3], [4, 8, 16, 32])),  # P6 is for boxes above 219 pixels
    ([32, 16, 8], ([2, 1, 0], [8, 16, 32])),  # coarsest first, as in YOLOv3
    ([4, 4], ([1], [4])),  # two stacks of an Hourglass: the last is the deepest
    ([16], ([0], [16])),
])
def test_levels_are_those_that_boxes_reach(strides, chosen):
    assert choose_levels(strides, [128, 128, 64]) == chosen


def test_a_roi_head_pools_from_its_own_levels():
    assert choose_levels([4, 8, 16, 32], [128], dict(featmap_strides=[4, 8])) == ([0, 1], [4, 8])


def test_a_module_is_named_instead_of_its_parameters():
    net = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Sequential(torch.nn.Linear(2, 2)))
    net[0](torch.ones(2)).sum().backward()
    assert without_gradient(net) == ['1']
    net[0].bias.grad = None
    assert without_gradient(net) == ['0.bias', '1']


def test_what_no_box_reaches_is_frozen():
    fpn = dict(type='FPN', in_channels=[8, 16, 32, 64], out_channels=16, num_outs=5, start_level=1,
               add_extra_convs='on_input')
    parts = find_parts(detector(neck=fpn), [64, 64])
    assert parts.strides == (8, 16, 32) and parts.frozen == ['neck.fpn_convs.3', 'neck.fpn_convs.4']


def test_several_maps_without_a_neck_get_convs_of_their_own():
    parts = find_parts(detector(neck=None), [64, 64])
    assert parts.neck is None and parts.roi_head['level_channels'] == [8, 16, 32, 64]
    assert parts.prefixes == {'backbone.': ('backbone.', )}


def test_views_grow_until_the_detector_runs():
    neck = dict(type='SSDNeck', in_channels=(32, 64), out_channels=(32, 64, 16, 16),
                level_strides=(2, 1), level_paddings=(1, 0), l2_norm_scale=None)
    backbone = dict(type='ResNet', depth=18, base_channels=8, stem_channels=8, out_indices=(2, 3))
    parts = find_parts(detector(backbone=backbone, neck=neck), [64, 32])
    assert parts.sizes == (256, 256) and any('Views of 256' in note for note in parts.notes)


# box heads


@pytest.mark.parametrize('head, names', [
    (box_head(), ['shared_fcs.0', 'shared_fcs.1']),
    (box_head('Shared4Conv1FCBBoxHead', conv_out_channels=8),
     [*(f'shared_convs.{i}' for i in range(4)), 'shared_fcs.0']),
    (box_head('ConvFCBBoxHead', num_shared_fcs=1, num_cls_fcs=1, num_reg_fcs=2,
              conv_out_channels=8), ['shared_fcs.0']),
    (box_head('ConvFCBBoxHead', num_shared_convs=1, with_avg_pool=True, conv_out_channels=8,
              loss_cls=dict(type='SeesawLoss', num_classes=2)), ['shared_convs.0']),
    (box_head('SCNetBBoxHead', num_shared_fcs=2), ['shared_fcs.0', 'shared_fcs.1']),
], ids=['two fcs', 'four convs', 'branches', 'no fc', 'scnet'])
def test_only_the_shared_layers_of_a_box_head_stay(head, names):
    with DefaultScope.overwrite_default_scope('mmdet'):
        whole = MODELS.build(head)
        kept = keep_shared_layers(MODELS.build(head))
    kept.init_weights()  # mmdet's rules name layers that are gone
    assert list(dict.fromkeys('.'.join(key.split('.')[:2]) for key in kept.state_dict())) == names
    kept.load_state_dict({key: whole.state_dict()[key] for key in kept.state_dict()})
    images = torch.rand(3, 16, 7, 7)
    features = kept(images)[0]
    seen = []  # what the detector's classifier or its branch sees
    first = whole.cls_fcs[0] if len(whole.cls_fcs) else whole.fc_cls
    first.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    whole(images)
    assert torch.equal(features, seen[0])


def test_a_box_head_without_shared_layers_is_replaced_and_said_so():
    head = dict(type='SABLHead', num_classes=2, cls_in_channels=16, reg_in_channels=16)
    parts = find_parts(detector(roi_head=dict(type='StandardRoIHead', bbox_head=head)), [64, 64])
    assert parts.roi_head['bbox_head']['type'] == 'SoCoBBoxHead'
    assert 'SABLHead has no convs' in parts.reasons['roi_head.bbox_head.']
    assert list(parts.prefixes) == ['backbone.', 'neck.']


def test_a_stage_with_other_layers_is_not_given_those_of_the_first():
    heads = [box_head(), box_head(), box_head('Shared4Conv1FCBBoxHead', conv_out_channels=8)]
    parts = find_parts(detector(roi_head=dict(type='CascadeRoIHead', bbox_head=heads)), [64, 64])
    assert parts.prefixes['roi_head.bbox_head.'] == ('roi_head.bbox_head.0.', 'roi_head.bbox_head.1.')
    assert 'differ' in parts.reasons['roi_head.bbox_head.2.']


# what is lifted


def test_frozen_stages_and_norms_are_lifted_and_said_so():
    backbone = dict(type='ResNeXt', depth=50, groups=4, frozen_stages=1, with_cp=True,
                    norm_cfg=dict(type='BN', requires_grad=False),
                    init_cfg=dict(type='Pretrained', checkpoint='torchvision://resnet50'))
    new, notes = lifted(backbone, 'backbone')
    assert new['frozen_stages'] == -1 and new['norm_eval'] is False and new['with_cp'] is False
    assert new['init_cfg'] is None and new['norm_cfg']['requires_grad'] is True
    assert len(notes) == 5 and 'torchvision://resnet50' in ' '.join(notes)
    assert backbone['frozen_stages'] == 1 and 'norm_eval' not in backbone  # the detector is unchanged
    assert lifted(dict(type='mmcls.ConvNeXt', frozen_stages=0), 'backbone')[1] == []


def test_a_nested_backbone_is_lifted_too():
    neck = dict(type='RFP', rfp_backbone=dict(type='DetectoRS_ResNet', frozen_stages=1))
    assert lifted(neck, 'neck')[0]['rfp_backbone']['frozen_stages'] == -1


# refusals


def write(folder, text: str) -> str:
    path = folder / 'config.py'
    path.write_text(text)
    return str(path)


@pytest.mark.parametrize('text, message', [
    ('a = 1', 'it has no model'),
    ('model = dict(type="SoCo", backbone=dict())', 'pretraining config already'),
    ('model = dict(type="SoftTeacher", detector=dict(type="FasterRCNN"))', 'under model.detector'),
    ('model = dict(type="FasterRCNN")', 'FasterRCNN, has no backbone'),
    ('model = dict(type="BaseReID", backbone=dict(type="ResNet", depth=18))', 'not a detector'),
    ('model = dict(type="mmcls.ImageClassifier", backbone=dict(type="ResNet"))', 'not a detector'),
    ('model = dict(type="MyDetector", backbone=dict(type="ResNet"))', 'MyDetector is not installed'),
    ('model = dict(', 'cannot be read as a config'),
    ('custom_imports = dict(imports="mmyolo.models")\n'
     'model = dict(type="RetinaNet", backbone=dict(type="YOLOv8"))', "No module named 'mmyolo'"),
    ('model = dict(type="RetinaNet", backbone=dict(type="mmpretrain.Imaginary"))',
     'no Imaginary'),
])
def test_a_config_that_is_no_detector_is_refused(tmp_path, text, message):
    with pytest.raises(ValueError, match=message) as error:
        read_detector(write(tmp_path, text))
    assert 'config.py' in str(error.value)


def test_a_config_that_is_missing():
    with pytest.raises(FileNotFoundError, match='as it is named in .*configs'):
        config_path('mmdet::faster_rcnn/faster-rcnn_r51')
    with pytest.raises(FileNotFoundError, match='or a config that MMDetection ships'):
        config_path('nothing/here.py')
    assert config_path(FASTER.removesuffix('.py')) == config_path(FASTER)


@pytest.mark.parametrize('parts, message', [
    (dict(backbone=dict(type='mmcls.VisionTransformer', arch=dict(
        embed_dims=8, num_layers=1, num_heads=1, feedforward_channels=8), img_size=64),
          neck=None), 'no feature maps'),
    (dict(neck=dict(type='mmcls.GlobalAveragePooling')), 'no feature maps'),
    (dict(backbone=dict(type='ResNet', depth=19)), 'The backbone of the detector cannot be built'),
    (dict(neck=dict(type='Imaginary')), 'The neck of the detector cannot be built'),
    (dict(neck=dict(type='FPN', in_channels=[8, 16, 32], out_channels=8, num_outs=3)), 'do not run'),
])
def test_parts_without_levels_are_refused(parts, message):
    with pytest.raises(ValueError, match=message):
        find_parts(detector(**parts), [64, 64])


def test_a_missing_package_is_named(monkeypatch):
    def missing(*args, **kwargs):
        raise RuntimeError('timm is not installed')
    monkeypatch.setattr('mmcls.models.backbones.timm_backbone.TIMMBackbone.__init__', missing)
    with pytest.raises(ValueError, match='timm is not installed.*Install the package'):
        find_parts(detector(backbone=dict(type='mmcls.TIMMBackbone', model_name='x')), [64])


def test_classes_in_place_of_names_are_understood(tmp_path):
    """As in the configs of MMEngine's newer kind."""
    path = write(tmp_path, (
        'from mmengine.config import read_base\n'
        'from mmdet.models.backbones.resnet import ResNet\n'
        'from mmdet.models.detectors.retinanet import RetinaNet\n'
        'from mmdet.models.necks.fpn import FPN\n'
        'model = dict(type=RetinaNet, backbone=dict(type=ResNet, depth=18), neck=dict(\n'
        '    type=FPN, in_channels=[64, 128, 256, 512], out_channels=16, num_outs=4))\n'))
    cfg, _ = read_detector(path)
    parts = find_parts(cfg, [64, 64])
    assert parts.strides == (4, 8, 16, 32) and not parts.frozen
