"""Localisation: which boxes a detector learns to find, how it is trained, and what it is handed."""
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mmengine.config import Config
from torchvision.ops import box_iou

from projects.soco.annotations.judge import read_coco
from projects.soco.detectors.build import build_detector
from projects.soco.detectors.localise import (
    choose_objects,
    class_tensors,
    hand_over_localised,
    localisation_config,
    why_not,
    write_objects,
)
from projects.soco.detectors.read import read_detector
from projects.soco.proposals.filters import custom_filter, get_filter
from projects.soco.proposals.store import ProposalStore, StoreWriter

FASTER = 'mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py'
THIN = {'model.backbone.depth': 18, 'model.backbone.base_channels': 8,
        'model.backbone.stem_channels': 8, 'model.neck.in_channels': [8, 16, 32, 64]}
NARROW = {**THIN, 'model.neck.out_channels': 16,
          'model.rpn_head.in_channels': 16, 'model.rpn_head.feat_channels': 16,
          'model.roi_head.bbox_roi_extractor.out_channels': 16,
          'model.roi_head.bbox_head.in_channels': 16, 'model.roi_head.bbox_head.fc_out_channels': 32}


def store_of(path: Path, *photos: list) -> ProposalStore:
    with StoreWriter(path, dict(rules=['all'])) as writer:
        for i, boxes in enumerate(photos):
            writer.add(f'{i}.png', 100, 80, np.array(boxes, dtype=np.float64).reshape(-1, 4), 'all')
    return ProposalStore.open(path)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 60), *[st.integers(0, 40)] * 3), max_size=30),
       st.integers(1, 8))
def test_objects_are_proposals_that_hardly_overlap(tmp_path_factory, boxes, most):
    store = store_of(tmp_path_factory.mktemp('objects') / 'p.arrow', boxes)
    keep = custom_filter(min_side=5, max_ratio=3)
    chosen = choose_objects(store, keep, 0, most)
    assert chosen.tolist() == choose_objects(store, keep, 0, most).tolist()
    assert len(chosen) <= most and {tuple(box) for box in chosen.tolist()} <= set(boxes)
    assert all(min(w, h) >= 5 and max(w, h) <= 3 * min(w, h) for _, _, w, h in chosen.tolist())
    corners = torch.from_numpy(np.concatenate([chosen[:, :2], chosen[:, :2] + chosen[:, 2:]], axis=1))
    overlaps = box_iou(corners, corners).fill_diagonal_(0)
    assert not len(chosen) or overlaps.max() <= 0.6
    if len(chosen) < most:  # then each proposal left out overlaps one that was chosen
        fit, _ = keep(np.array(boxes, dtype=np.float64).reshape(-1, 4), 100, 80)
        fit = torch.from_numpy(np.concatenate([fit[:, :2], fit[:, :2] + fit[:, 2:]], axis=1))
        assert not len(fit) or (box_iou(fit, corners).max(dim=1).values > 0.6 - 1e-9).all()


def test_objects_are_annotations_of_one_class(tmp_path):
    store = store_of(tmp_path / 'p.arrow', [[10, 10, 20, 20], [60, 30, 30, 40]], [], [[0, 0, 100, 80]])
    assert write_objects(store, get_filter('all'), tmp_path / 'objects.json') == 3
    content = read_coco(tmp_path / 'objects.json').accept().content
    assert [row['file_name'] for row in content['images']] == ['0.png', '1.png', '2.png']
    assert sorted(row['bbox'] for row in content['annotations']) == [
        [0, 0, 100, 80], [10, 10, 20, 20], [60, 30, 30, 40]]
    assert [row['name'] for row in content['categories']] == ['object']
    with pytest.raises(ValueError, match='No photo of .*p.arrow has a proposal.*--localise 0'):
        write_objects(store, custom_filter(min_side=200), tmp_path / 'none.json')


def test_the_detector_is_trained_as_it_says_without_masks_and_validation():
    detector, _ = read_detector('mmdet::mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py')
    paths = Path('/photos'), Path('/objects.json')
    cfg = localisation_config(detector, *paths, 100, 4, from_random=False)
    assert cfg.train_cfg == dict(type='ResumableIterLoop', max_iters=200)  # batches of two
    assert cfg.model.roi_head.bbox_head.num_classes == 1 and 'mask_head' not in cfg.model.roi_head
    assert cfg.val_dataloader is None and cfg.val_cfg is None and cfg.val_evaluator is None
    assert cfg.optim_wrapper == detector.optim_wrapper and cfg.model.backbone.frozen_stages == 1
    assert 'with_mask=True' not in cfg.pretty_text and cfg.pretty_text.count('/objects.json') == 1
    assert detector.model.roi_head.mask_head.num_classes == 80  # not changed
    thawed = localisation_config(detector, *paths, 100, 4, from_random=True, processes=2)
    assert thawed.train_cfg.max_iters == 100
    assert thawed.model.backbone.frozen_stages == -1 and thawed.model.backbone.norm_eval is False


def test_a_semantic_branch_is_left_out_with_its_maps():
    detector, _ = read_detector('mmdet::htc/htc_r50_fpn_1x_coco.py')
    cfg = localisation_config(detector, Path('/i'), Path('/o.json'), 8, 1, True)
    assert 'semantic_head' not in cfg.model.roi_head and 'with_seg=True' not in cfg.pretty_text


@pytest.mark.parametrize('name, names', [
    (FASTER, {'roi_head.bbox_head.fc_cls', 'roi_head.bbox_head.fc_reg'}),
    ('mmdet::retinanet/retinanet_r50_fpn_1x_coco.py', {'bbox_head.retina_cls'}),
    ('mmdet::cascade_rcnn/cascade-rcnn_r50_fpn_1x_coco.py',
     {f'roi_head.bbox_head.{i}.fc_cls' for i in range(3)})])
def test_what_depends_on_the_classes(name, names):
    detector, _ = read_detector(name, THIN)
    assert why_not(detector) is None
    leaves = 'weight', 'bias'
    assert class_tensors(detector) == {f'{each}.{leaf}' for each in names for leaf in leaves}


@pytest.mark.parametrize('name, reason', [
    ('mmdet::solo/solo_r50_fpn_1x_coco.py', 'no head for boxes'),
    ('mmdet::yolact/yolact_r50_1xb8-55e_coco.py', 'learns from masks'),
    ('mmdet::ms_rcnn/ms-rcnn_r50_fpn_1x_coco.py', 'without its branch for masks'),
    ('mmdet::panoptic_fpn/panoptic-fpn_r50_fpn_1x_coco.py', 'panoptic')])
def test_detectors_that_need_more_than_boxes_are_named(name, reason):
    assert reason in why_not(read_detector(name)[0])


@pytest.mark.parametrize('classes', [1, 3])
def test_all_but_the_classes_is_handed_over(tmp_path, classes):
    """Also with one class, when all shapes are equal."""
    options = {**NARROW, 'model.roi_head.bbox_head.num_classes': classes}
    detector, _ = read_detector(FASTER, options)
    cfg = localisation_config(detector, tmp_path, tmp_path / 'objects.json', 8, 1, from_random=True)
    trained = build_detector(Config(dict(model=cfg.model)))[0]
    torch.nn.init.constant_(trained.rpn_head.rpn_cls.bias, 0.25)
    torch.save(dict(state_dict=trained.state_dict(), meta={}), tmp_path / 'iter_4.pth')
    arrived, left = hand_over_localised(detector, tmp_path / 'iter_4.pth', tmp_path / 'start.pth')
    start = torch.load(tmp_path / 'start.pth', weights_only=True)['state_dict']
    state = build_detector(detector)[0].state_dict()
    assert left == 4 and arrived == len(start) == len(state) - 4
    assert state.keys() - start.keys() == class_tensors(detector)
    assert (start['rpn_head.rpn_cls.bias'] == 0.25).all()
