"""Small objects: the resolution of a detector, tiles, level borders, and what is suggested."""
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import DATASETS, MODELS, DefaultScope
from small import ROOT, make_photos
from torch.utils.data import default_collate

from projects.soco.compat.cpu import cpu_config
from projects.soco.detectors.derive import derive, set_run
from projects.soco.detectors.object_sizes import (
    LARGE,
    SMALL,
    advise_by_annotations,
    advise_by_proposals,
    choose_proposals,
    describe_met,
    fit_levels,
    read_annotated,
    resolution_of,
    view_sizes,
)
from projects.soco.launch.configs import load_config
from projects.soco.proposals.store import ProposalStore, StoreWriter

RECIPE = ROOT / 'configs/soco_effnetlite0_fpn_own_photos.py'


def detector(scale=(1333, 800), keep_ratio: bool | None = True, wrapped: bool = False) -> Config:
    resize = dict(type='mmdet.Resize', scale=scale)
    if keep_ratio is not None:
        resize['keep_ratio'] = keep_ratio
    dataset = dict(type='CocoDataset', pipeline=[dict(type='LoadImageFromFile'), resize])
    return Config(dict(
        model=dict(
            type='RetinaNet', bbox_head=dict(type='RetinaHead', num_classes=2, in_channels=16),
            backbone=dict(type='ResNet', depth=18, base_channels=8, stem_channels=8),
            neck=dict(type='FPN', in_channels=[8, 16, 32, 64], out_channels=16, num_outs=4)),
        test_dataloader=dict(
            dataset=dict(type='RepeatDataset', dataset=dataset) if wrapped else dataset)))


def write_store(path: Path, sides: list[int], size: tuple[int, int] = (400, 300),
                at: float = 0.5, **metadata) -> ProposalStore:
    """A store of two photos with a box of each side, at a share of the room: in the middle, or at 0."""
    regions = np.array([[round((size[0] - side) * at), round((size[1] - side) * at), side, side]
                        for side in sides])
    with StoreWriter(path, dict(rules=['all'], **metadata)) as writer:
        for i in range(2):
            writer.add(f'photo_{i:03}.png', *size, regions, 'all')
    return ProposalStore.open(path)


def derived(objects: str, of: Config) -> Config:
    recipe = load_config(str(RECIPE), {})
    resolution = resolution_of(of)
    cfg, _ = derive(of, recipe, view_sizes(recipe, resolution) if objects == SMALL else None)
    choose_proposals(cfg, objects, resolution)
    return cfg


@pytest.fixture(scope='module')
def small_cfg() -> Config:
    return derived(SMALL, detector((128, 96)))


# the resolution


def test_the_resolution_is_that_of_the_test_pipeline():
    found = resolution_of(detector())
    assert found[:2] == ((1333, 800), True) and str(found) == 'at most 1333 × 800 pixels'
    assert found.key == 'test_dataloader.dataset.pipeline.1.scale'
    inside = resolution_of(detector(300, None, wrapped=True))
    assert inside[:2] == ((300, 300), False)  # as mmcv's Resize without keep_ratio
    assert inside.key == 'test_dataloader.dataset.dataset.pipeline.1.scale'


@pytest.mark.parametrize('scale, sizes', [
    ((1333, 800), [256, 256, 160]), ((300, 200), [192, 192, 128]), ((20, 10), [32, 32, 32])])
def test_tiles_are_not_larger_than_what_the_detector_sees(scale, sizes):
    recipe = load_config(str(RECIPE), {})
    assert view_sizes(recipe, resolution_of(detector(scale))) == sizes


def test_a_detector_without_a_scale_is_refused_for_small_objects_only():
    assert resolution_of(Config(dict(model=dict()))) is None
    with pytest.raises(ValueError, match='no Resize with a scale.*use --objects large'):
        view_sizes(load_config(str(RECIPE), {}), None)


# the config


def test_large_objects_are_seen_in_the_whole_photo():
    pipeline = derived(LARGE, detector()).train_dataloader.dataset.pipeline
    assert pipeline[0] == dict(type='LoadProposals', keep=dict(
        min_side=8, max_ratio=3, min_size=0.1, max_size=0.8, fallback=True))
    assert 'tile' not in pipeline[1] and [view.size for view in pipeline[1].views] == [96, 96, 64]


def test_borders_follow_from_the_sizes_in_the_views(small_cfg, tmp_path):
    assert small_cfg.train_dataloader.dataset.pipeline[1].tile == 96
    extractor = small_cfg.model.roi_head.bbox_roi_extractor
    for side, borders in ((20, [10, 20, 40]), (60, [30, 60, 120])):
        # the detector sees photos of 400 x 300 pixels at 128 x 96; the others are too small or large
        photo_side = side / 128 * 400
        store = write_store(tmp_path / f'{side}.arrow', [round(photo_side), 4, 290])
        cfg = Config(dict(small_cfg._cfg_dict))
        cfg.train_dataloader.dataset.pipeline[1].jitter_prob = 0.0
        sentence = fit_levels(cfg, store)
        np.testing.assert_allclose(cfg.model.roi_head.bbox_roi_extractor.level_sizes, borders, atol=1)
        assert '1 per photo' in sentence and 'P2 up to' in sentence
    assert extractor.featmap_strides == [4, 8, 16, 32]


@pytest.mark.parametrize('sides, metadata, message', [
    ([10], {}, 'No photo has a proposal of 16 to 77 pixels.*Use --objects large'),
    ([100], dict(filter=dict(name='ratio3size0308post')), 'only the boxes that the filter ratio3'),
])
def test_proposals_that_do_not_fit_are_refused(small_cfg, tmp_path, sides, metadata, message):
    with pytest.raises(ValueError, match=message):
        fit_levels(small_cfg, write_store(tmp_path / 'store.arrow', sides, **metadata))


def test_the_derived_config_trains_a_step_on_tiles(small_cfg, tmp_path):
    make_photos(tmp_path / 'photos', 2, (400, 300))
    sides = [60, 70, 80, 90, 220]
    store = write_store(tmp_path / 'store.arrow', sides)
    cfg = cpu_config(small_cfg)
    set_run(cfg, tmp_path / 'photos', tmp_path / 'store.arrow')
    fit_levels(cfg, store)
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        dataset, model = DATASETS.build(cfg.train_dataloader.dataset), MODELS.build(cfg.model)
    batch = default_collate([dataset[i] for i in range(2)])
    batch.pop('bad')
    assert [view.shape[2] for view in batch['inputs']] == [96, 96, 64]
    zoom = 96 / 300
    first = batch['bboxes'][:, :, 0]
    size = (first[..., 2:] - first[..., :2]).prod(dim=-1).sqrt()
    assert size.max() <= max(sides) * zoom * 1.11  # jitter; at the detector's resolution
    assert size.median() > 0.5 * 60 * zoom
    model.train()
    losses = model(**model.data_preprocessor(batch, True), mode='loss')
    sum(value for key, value in losses.items() if key.startswith('loss')).backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all()
               for p in model.parameters() if p.requires_grad)


# what is suggested


def coco(path: Path, sides: list[float], size: tuple[int, int] = (320, 240)) -> Path:
    path.write_text(json.dumps(dict(
        images=[dict(id=1, file_name='photo_000.png', width=size[0], height=size[1])],
        annotations=[dict(id=i, image_id=1, category_id=1, bbox=[0, 0, side, side])
                     for i, side in enumerate(sides)],
        categories=[dict(id=1, name='thing')])))
    return path


@pytest.mark.parametrize('side, objects, option', [
    (22, LARGE, SMALL),  # 22 of 320 pixels, 73 as the detector sees them
    (22, SMALL, None), (130, LARGE, None), (130, SMALL, LARGE)])
def test_annotated_sizes_suggest_an_option(tmp_path, side, objects, option):
    advice = advise_by_annotations(read_annotated(coco(tmp_path / 'a.json', [side] * 3)), objects,
                                   resolution_of(detector()))
    if option is None:
        assert advice is None
    else:
        assert advice.endswith(f'Try --objects {option}.') and 'a.json annotates 3 objects' in advice
        assert f'size of 0% of them, those of --objects {option} of 100%' in advice


def test_objects_that_the_detector_hardly_sees(tmp_path):
    path = coco(tmp_path / 'a.json', [20] * 3, (4000, 3000))
    advice = advise_by_annotations(read_annotated(path), LARGE, resolution_of(detector()))
    assert '5 pixels as the detector sees it (at most 1333 × 800 pixels)' in advice
    assert '--cfg-options test_dataloader.dataset.pipeline.1.scale=[4999,3000]' in advice


@pytest.mark.parametrize('content', [
    [], {}, dict(images=[], annotations=None), dict(images=[3], annotations=[dict(image_id=1)]),
    dict(images=[dict(id=1, width='a', height=2)], annotations=[dict(image_id=1, bbox=[0, 0, 1, 1])]),
    dict(images=[dict(id=1, width=9, height=9)], annotations=[dict(image_id=1, bbox=[0, 0, None, 1])])])
def test_a_json_without_sizes_suggests_nothing(tmp_path, content):
    (tmp_path / 'a.json').write_text(json.dumps(content))
    annotated = read_annotated(tmp_path / 'a.json')
    assert advise_by_annotations(annotated, LARGE, resolution_of(detector())) is None


@pytest.mark.parametrize('sides, suggested', [([20] * 19 + [150], True), ([20] * 3 + [150], False)])
def test_few_large_proposals_suggest_small_objects(tmp_path, sides, suggested):
    advice = advise_by_proposals(write_store(tmp_path / 'store.arrow', sides))
    assert (advice is not None) == suggested
    if suggested:
        assert advice.startswith('Only 5% of the boxes') and 'try --objects small' in advice


def test_the_share_of_annotated_objects_that_proposals_meet(small_cfg, tmp_path):
    """Of 60 pixels, which is met; of 90, for which 60 is too small; of 290, which is left out."""
    store = write_store(tmp_path / 'store.arrow', [60, 290], at=0)
    path = coco(tmp_path / 'a.json', [60, 90, 290, 0], (400, 300))
    assert describe_met(small_cfg, store, read_annotated(path)) == (
        'A proposal that is used meets 25.0% of the 4 annotated objects (IoU of at least 0.5).')
    path.write_text(path.read_text().replace('photo_000', 'another'))
    assert describe_met(small_cfg, store, read_annotated(path)) is None
