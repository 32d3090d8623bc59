import math
import sys

import pytest
import torch
from mmcv.ops import RoIAlign
from mmengine.registry import init_default_scope
from torchvision.ops import roi_align

from projects.soco.models.necks import SoCoFPN
from projects.soco.models.roi_heads import (
    SoCoBBoxHead,
    SoCoC4RoIHead,
    SoCoRoIExtractor,
    SoCoRoIHead,
    bboxes_to_rois,
    use_torchvision,
)


def extractor(**kwargs) -> SoCoRoIExtractor:
    return SoCoRoIExtractor(roi_layer=dict(type='RoIAlign', output_size=7, sampling_ratio=0),
                            out_channels=4, featmap_strides=[4, 8, 16, 32], **kwargs)


def boxes_of_size(*sizes: float) -> torch.Tensor:
    """Return RoIs of image 0 with sqrt(w * h) = size, twice as wide as high."""
    return torch.tensor([[0, 1, 2, 1 + s * math.sqrt(2), 2 + s / math.sqrt(2)] for s in sizes])


def test_levels_on_both_sides_of_every_border():
    rois = boxes_of_size(1, 47.9, 48.1, 95.9, 96.1, 191.9, 192.1, 224)
    assert extractor().map_roi_levels(rois, 4).tolist() == [0, 0, 1, 1, 2, 2, 3, 3]


def test_a_size_on_the_border_belongs_to_the_finer_level():
    rois = torch.tensor([[0, 0, 0, 48, 48], [0, 0, 0, 96, 96], [0, 0, 0, 192, 192.]])
    assert extractor().map_roi_levels(rois, 4).tolist() == [0, 1, 2]


def test_borders_are_settings():
    rois = boxes_of_size(20, 30, 60, 100)
    assert extractor(level_sizes=(24, 48, 96)).map_roi_levels(rois, 4).tolist() == [0, 1, 2, 3]
    with pytest.raises(ValueError, match='level_sizes'):
        extractor(level_sizes=(96, 48, 192))
    with pytest.raises(ValueError, match='3 increasing sizes'):
        extractor(level_sizes=(48, 96))


def test_each_box_is_pooled_from_its_own_level():
    feats = tuple(torch.rand(2, 4, 224 // s, 224 // s) for s in (4, 8, 16, 32))
    boxes = torch.tensor([[[10, 10, 50, 50], [0, 0, 200, 224.]], [[30, 20, 100, 110],
                                                                    [5, 5, 180, 160.]]])
    pooled = extractor()(feats, bboxes_to_rois(boxes))
    for i, (image, level) in enumerate([(0, 0), (0, 3), (1, 1), (1, 2)]):
        expected = roi_align(feats[level][image:image + 1], [boxes.flatten(0, 1)[i:i + 1]], 7,
                             spatial_scale=1 / 2**(level + 2), aligned=True)
        torch.testing.assert_close(pooled[i:i + 1], expected)


def test_pools_in_float32_under_autocast():
    feats = tuple(torch.rand(1, 4, 224 // s, 224 // s).bfloat16() for s in (4, 8, 16, 32))
    with torch.autocast('cpu', dtype=torch.bfloat16):
        pooled = extractor()(feats, torch.tensor([[0, 10.3, 10.7, 60.1, 90.9]]))
    expected = extractor()(tuple(f.float() for f in feats),
                           torch.tensor([[0, 10.3, 10.7, 60.1, 90.9]]))
    assert pooled.dtype == torch.float32 and torch.equal(pooled, expected)


def test_a_level_that_no_box_falls_on_still_has_a_gradient():
    feats = tuple(torch.rand(1, 4, 224 // s, 224 // s, requires_grad=True) for s in (4, 8, 16, 32))
    extractor()(feats, torch.tensor([[0, 10., 10., 30., 30.]])).sum().backward()
    assert feats[0].grad.abs().sum() > 0
    for feat in feats[1:]:
        assert feat.grad is not None and feat.grad.abs().sum() == 0


def test_only_images_with_a_box_on_a_level_are_converted(monkeypatch):
    feats = tuple(torch.rand(3, 4, 224 // s, 224 // s).bfloat16().requires_grad_()
                  for s in (4, 8, 16, 32))
    boxes = torch.tensor([[2, 10, 10, 30, 30], [0, 0, 0, 200, 200], [2, 4, 4, 50, 40],
                          [1, 0, 0, 60, 60.]])
    converted, convert = [], torch.Tensor.float
    monkeypatch.setattr(torch.Tensor, 'float', lambda t: converted.append(t.shape) or convert(t))
    pooled = extractor()(feats, boxes)
    monkeypatch.undo()
    assert [shape[0] for shape in converted if len(shape) == 4] == [1, 1, 0, 1]
    grad = torch.rand(pooled.shape)
    pooled.backward(grad)
    for level, (feat, rows) in enumerate(zip(feats, ([0, 2], [3], [], [1]), strict=True)):
        alone = feat.detach().float().requires_grad_()
        expected = roi_align(alone, boxes[rows], 7, 1 / (4 * 2**level), 0, True)
        assert torch.equal(pooled[rows], expected)
        expected.backward(grad[rows])
        assert torch.equal(feat.grad, alone.grad.bfloat16())


def test_output_and_gradient_are_written_once(monkeypatch):
    init_default_scope('mmselfsup')

    def fail(*args, **kwargs):
        raise AssertionError("MMCV's function, which fills them with zeros")

    monkeypatch.setattr(sys.modules[RoIAlign.__module__], 'roi_align', fail)
    head = SoCoC4RoIHead(dict(type='mmdet.SingleRoIExtractor', out_channels=4, featmap_strides=[16],
                              roi_layer=dict(type='RoIAlign', output_size=2, sampling_ratio=0)),
                         dict(type='mmdet.ResLayer', depth=18, stage=3, stride=2))
    head.shared_head = torch.nn.Identity()
    assert head((torch.rand(1, 4, 8, 8), ), torch.tensor([[[0, 0, 60., 60]]])).shape == (1, 4)
    most = torch.nn.ModuleList([RoIAlign(2, pool_mode='max')])  # torchvision takes the mean only
    use_torchvision(most)
    assert not most[0].use_torchvision and extractor().roi_layers[3].use_torchvision


def test_rois_carry_the_index_of_their_image():
    rois = bboxes_to_rois(torch.arange(24.).view(2, 3, 4))
    assert rois[:, 0].tolist() == [0, 0, 0, 1, 1, 1]
    assert rois[4, 1:].tolist() == [16, 17, 18, 19]


def test_head_shapes():
    init_default_scope('mmselfsup')
    head = SoCoRoIHead(
        bbox_roi_extractor=dict(
            type='SoCoRoIExtractor', out_channels=4, featmap_strides=[4, 8, 16, 32],
            roi_layer=dict(type='RoIAlign', output_size=7, sampling_ratio=0)),
        bbox_head=dict(type='SoCoBBoxHead', in_channels=4, conv_out_channels=6, fc_out_channels=10))
    feats = tuple(torch.rand(2, 4, 224 // s, 224 // s) for s in (4, 8, 16, 32))
    boxes = torch.tensor([0, 0, 60, 60.]).expand(2, 5, 4)
    assert head(feats, boxes).shape == (10, 10)
    assert isinstance(head.bbox_head, SoCoBBoxHead) and len(head.bbox_head.shared_convs) == 4


def test_a_head_pools_from_chosen_maps_and_brings_them_to_one_width():
    init_default_scope('mmselfsup')
    head = SoCoRoIHead(
        bbox_roi_extractor=dict(
            type='SoCoRoIExtractor', roi_layer=dict(type='RoIAlign', output_size=7, sampling_ratio=0),
            out_channels=4, featmap_strides=[8, 16], level_sizes=[50]),
        levels=[2, 1], level_channels=[3, 5])
    feats = [torch.rand(1, 9, 2, 2), torch.rand(1, 5, 8, 8), torch.rand(1, 3, 16, 16)]
    boxes = torch.tensor([[[0, 0, 40, 40], [0, 0, 120, 120.]]])
    features = head(feats, boxes)
    assert features.shape == (2, 4)
    features.sum().backward()
    assert all(p.grad is not None for p in head.parameters())


@pytest.mark.parametrize('autocast', [False, True])
def test_the_pyramid_is_merged_in_the_precision_of_its_maps(autocast):
    neck = SoCoFPN([3, 4, 5], 4)
    neck.lateral_convs = torch.nn.ModuleList(torch.nn.Conv2d(n, 4, 1) for n in (3, 4, 5))
    seen = []
    for conv in neck.fpn_convs:
        conv.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    maps = [torch.rand(2, n, s, s) for n, s in ((3, 8), (4, 4), (5, 2))]
    with torch.autocast('cpu', torch.bfloat16, enabled=autocast):
        laterals = [conv(x) for conv, x in zip(neck.lateral_convs, maps)]
        neck(maps)
    expected = laterals[2]
    for level, lateral in zip(seen, reversed(laterals), strict=True):
        if level is not seen[0]:
            expected = lateral + expected.repeat_interleave(2, 2).repeat_interleave(2, 3)
        assert level.dtype == (torch.bfloat16 if autocast else torch.float32)
        assert torch.equal(level, expected)
