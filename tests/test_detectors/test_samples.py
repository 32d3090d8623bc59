"""One detector for each kind of backbone, neck and box head: a training step, and all tensors back."""
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope
from small import ROOT

from projects.soco.compat.cpu import cpu_config
from projects.soco.detectors.build import build_detector
from projects.soco.detectors.derive import derive
from projects.soco.detectors.hand_over import hand_over
from projects.soco.detectors.read import read_detector
from projects.soco.detectors.table import part_rows
from projects.soco.evaluation.cost import made_up_batch

# Widths small enough for a CPU, by dotted key of the detector's model.
RESNET = {'backbone.base_channels': 8, 'backbone.stem_channels': 8}
R50 = {**RESNET, 'neck.in_channels': [32, 64, 128, 256], 'neck.out_channels': 32}
TWO_STAGES = {'rpn_head.in_channels': 32, 'rpn_head.feat_channels': 32,
              'roi_head.bbox_roi_extractor.out_channels': 32}
BOX_HEAD = {'roi_head.bbox_head.in_channels': 32, 'roi_head.bbox_head.fc_out_channels': 48}
CASCADE = {f'roi_head.bbox_head.{i}.{key}': value for i in range(3)
           for key, value in (('in_channels', 32), ('fc_out_channels', 48))}
CONVS = {f'roi_head.bbox_head.{i}.conv_out_channels': 24 for i in range(3)}
DENSE = {'bbox_head.in_channels': 32, 'bbox_head.feat_channels': 32}
SAMPLES = {
    'faster_rcnn/faster-rcnn_r50_fpn_1x_coco': {**R50, **TWO_STAGES, **BOX_HEAD},
    'swin/mask-rcnn_swin-t-p4-w7_fpn_1x_coco': {
        **TWO_STAGES, **BOX_HEAD, 'backbone.embed_dims': 12, 'backbone.depths': [1, 1, 1, 1],
        'neck.in_channels': [12, 24, 48, 96], 'neck.out_channels': 32,
        'roi_head.mask_head.in_channels': 32, 'roi_head.mask_roi_extractor.out_channels': 32},
    'convnext/cascade-mask-rcnn_convnext-t-p4-w7_fpn_4conv1fc-giou_amp-ms-crop-3x_coco': {
        **TWO_STAGES, **CASCADE, **CONVS, 'neck.in_channels': [8, 16, 32, 64], 'neck.out_channels': 32,
        'backbone.arch': dict(depths=[1, 1, 1, 1], channels=[8, 16, 32, 64]),
        'roi_head.mask_head.in_channels': 32, 'roi_head.mask_roi_extractor.out_channels': 32},
    'cascade_rcnn/cascade-rcnn_x101-32x4d_fpn_1x_coco': {
        **R50, **TWO_STAGES, **CASCADE, 'backbone.depth': 50, 'backbone.groups': 4},
    'retinanet/retinanet_r18_fpn_1x_coco': {
        **RESNET, **DENSE, 'neck.in_channels': [8, 16, 32, 64], 'neck.out_channels': 32},
    'fcos/fcos_r50-caffe_fpn_gn-head_1x_coco': {**R50, **DENSE},
    'dyhead/atss_r50_fpn_dyhead_1x_coco': {
        **{key.replace('neck.', 'neck.0.'): value for key, value in R50.items()},
        'neck.1.in_channels': 32, 'neck.1.out_channels': 32, 'neck.1.num_blocks': 1, **DENSE},
    'rtmdet/rtmdet_tiny_8xb32-300e_coco': {},
    'yolox/yolox_tiny_8xb8-300e_coco': {},
    'dino/dino-4scale_r50_8xb2-12e_coco': {**RESNET, 'neck.in_channels': [64, 128, 256]},
    'gn/mask-rcnn_r50_fpn_gn-all_2x_coco': {
        **R50, **TWO_STAGES, **BOX_HEAD, 'roi_head.bbox_head.conv_out_channels': 32,
        'backbone.base_channels': 32, 'backbone.stem_channels': 32,
        'neck.in_channels': [128, 256, 512, 1024],
        'roi_head.mask_head.in_channels': 32, 'roi_head.mask_roi_extractor.out_channels': 32},
    'timm_example/retinanet_timm-tv-resnet50_fpn_1x_coco': {
        'backbone.model_name': 'tf_efficientnet_lite0', 'neck.in_channels': [24, 40, 112, 320],
        'neck.out_channels': 32, **DENSE},
    'faster_rcnn/faster-rcnn_r50-caffe-c4_ms-1x_coco': {},
    'yolof/yolof_r50-c5_8xb8-1x_coco': {
        **RESNET, 'neck.in_channels': 256, 'neck.out_channels': 32, 'neck.block_mid_channels': 8,
        'bbox_head.in_channels': 32},
    'yolo/yolov3_mobilenetv2_8xb24-320-300e_coco': {},
    'maskformer/maskformer_r50_ms-16xb1-75e_coco': {
        **RESNET, 'panoptic_head.in_channels': [32, 64, 128, 256],
        'panoptic_head.pixel_decoder.encoder.num_layers': 1,
        'panoptic_head.transformer_decoder.num_layers': 1},
    'hrnet/faster-rcnn_hrnetv2p-w18-1x_coco': {**TWO_STAGES, **BOX_HEAD, 'neck.out_channels': 32},
    'pvt/retinanet_pvt-t_fpn_1x_coco': {'neck.out_channels': 32, **DENSE},
    'regnet/faster-rcnn_regnetx-400MF_fpn_ms-3x_coco': {
        **TWO_STAGES, **BOX_HEAD, 'neck.out_channels': 32},
    'efficientnet/retinanet_effb3_fpn_8xb4-crop896-1x_coco': {
        'backbone.arch': 'b0', 'neck.in_channels': [40, 112, 320], 'neck.out_channels': 32, **DENSE},
}
SLOW = ('hrnet', 'faster_rcnn/faster-rcnn_r50-caffe', 'pvt', 'efficientnet', 'regnet', 'maskformer',
        'yolo', 'dino', 'rtmdet')


def small_detector(name: str) -> Config:
    detector, _ = read_detector(f'mmdet::{name}.py')
    for key, value in SAMPLES[name].items():
        *path, last = key.split('.')
        node = detector.model
        for step in path:
            node = node[int(step)] if isinstance(node, list) else node[step]
        node[last] = value
    return detector


def small_recipe(side: int = 64) -> Config:
    cfg = Config.fromfile(ROOT / 'configs/soco_effnetlite0_fpn_own_photos.py')
    for view in cfg.train_dataloader.dataset.pipeline[1].views:
        view.size = side
    cfg.model.projector.update(hid_channels=32, out_channels=16)
    cfg.model.head.predictor.update(in_channels=16, hid_channels=32, out_channels=16)
    return cfg


def build(cfg: Config) -> torch.nn.Module:
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        return MODELS.build(cpu_config(cfg).model)


def step(cfg: Config, model: torch.nn.Module) -> None:
    """Take one step of SGD on made-up views."""
    model.train()
    trained = [p for p in model.parameters() if p.requires_grad]
    losses = model(*made_up_batch(cfg, 2), mode='loss')
    sum(value for key, value in losses.items() if key.startswith('loss')).backward()
    assert all(p.grad is not None for p in trained)  # or several processes could not train it
    torch.optim.SGD(trained, 0.1).step()


def samples() -> Iterator[Any]:
    for name in SAMPLES:
        marks = [pytest.mark.slow(4)] if name.startswith(SLOW) else []
        yield pytest.param(name, marks=marks, id=name.split('/')[1])


@pytest.mark.parametrize('name', list(samples()))
def test_a_training_step_reaches_the_detector_bit_by_bit(name, tmp_path):
    detector = small_detector(name)
    cfg, parts = derive(detector, small_recipe())
    model = build(cfg)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    step(cfg, model)
    state = model.state_dict()
    torch.save(dict(state_dict=state), tmp_path / 'epoch_1.pth')
    done = hand_over(detector, parts, tmp_path / 'epoch_1.pth', tmp_path / 'detector_start.pth')

    written = torch.load(tmp_path / 'detector_start.pth', weights_only=True)['state_dict']
    assert done.whole and sorted(done.arrived) == sorted(written)
    heads = {key.split('.')[0] for key in written}
    assert heads <= {'backbone', 'neck', 'roi_head'} and 'backbone' in heads
    assert ('neck' in heads) == bool(detector.model.get('neck'))
    assert ('roi_head' in heads) == bool(detector.model.get('roi_head'))
    rows = part_rows(build_detector(detector)[0], parts)
    assert sum(count for _, _, count, _ in rows) == len(written) + len(done.reasons)
    moved = [key for key, value in before.items() if not torch.equal(value, state[key])]
    assert len([key for key in moved if key.startswith('backbone.')]) > 10
    assert not [key for key in moved if any(f'{key}.'.startswith(f'{part}.') for part in parts.frozen)
                and 'running' not in key and 'num_batches' not in key]

