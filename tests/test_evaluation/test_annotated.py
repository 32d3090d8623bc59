"""Photos and boxes of a COCO json, and their features."""
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.registry import MODELS, DefaultScope
from PIL import Image
from small import make_photos, tiny_config

from projects.soco.evaluation.annotated import backbone_features, embed_labelled, read_labelled
from projects.soco.evaluation.objects import unit, working_copy
from projects.soco.proposals.sources import open_source


def coco(rows: list, photos: int = 3) -> dict:
    """Return a COCO json; `rows` contain image, category, bbox and further fields."""
    return dict(
        images=[dict(id=i, file_name=f'photo_{i:03}.png', width=96, height=72) for i in range(photos)],
        categories=[dict(id=c, name=name, supercategory='thing')
                    for c, name in ((1, 'cat'), (2, 'dog'), (5, 'kite'))],
        annotations=[dict(id=n, image_id=image, category_id=category, bbox=bbox, **more)
                     for n, (image, category, bbox, more) in enumerate(rows)])


ROWS = [(0, 1, [8, 8, 40, 30], dict(area=700.0)), (0, 2, [30, 20, 40, 40], {}),
        (1, 1, [0, 0, 96, 72], {}), (2, 2, [50, 40, 46, 32], dict(iscrowd=0))]


@pytest.fixture
def read(tmp_path):
    make_photos(tmp_path / 'photos', 3)

    def read_rows(content, **options):
        path = tmp_path / 'marks.json'
        path.write_text(json.dumps(coco(content) if isinstance(content, list) else content))
        return read_labelled(path, open_source(tmp_path / 'photos'), 48, **options)

    read_rows.folder = tmp_path / 'photos'
    return read_rows


def test_boxes_classes_areas_and_pixels(read):
    seen = []
    found = read(ROWS, report=lambda done, total: seen.append((done, total)))
    assert found.names == ['photo_000.png', 'photo_001.png', 'photo_002.png'] and not found.left_out
    assert found.photos.tolist() == [0, 0, 1, 2] and found.classes.tolist() == [0, 1, 0, 1]
    assert found.class_names == ['cat', 'dog'] and found.areas.tolist() == [700, 1600, 6912, 1472]
    assert found.boxes[0].tolist() == [8, 8, 48, 38]
    assert found.view_boxes[0].tolist() == pytest.approx([4, 8 * 48 / 72, 24, 38 * 48 / 72])
    assert seen == [(1, 3), (2, 3), (3, 3)]
    rgb = Image.open(read.folder / found.names[1]).resize((48, 48), Image.BILINEAR)
    bgr = found.views[1].permute(1, 2, 0).numpy().astype(int)
    assert np.abs(bgr[..., ::-1] - np.asarray(rgb)).max() <= 2


def test_what_is_left_out_is_said(read):
    (read.folder / 'photo_001.png').write_bytes(b'no picture')
    found = read([*ROWS, (2, 1, [1, 1, 9, 9], {}), (0, 5, [1, 1, 9, 9], {}), (2, 2, [3, 3, 0, 9], {}),
                  (0, 1, [0, 0, 90, 70], dict(iscrowd=1)), (0, 2, [10, 10, 1e-9, 9], {})])
    assert found.names == ['photo_000.png', 'photo_002.png']
    assert found.photos.tolist() == [0, 0, 1, 1] and found.class_names == ['cat', 'dog']
    assert found.left_out == [
        '1 boxes of zero size', '1 crowd regions', '1 boxes too small for the view',
        '1 photos that cannot be read: photo_001.png (not an image)',
        '1 categories with a single object: kite']


def test_a_photo_with_nothing_else_goes_with_its_single_object(read):
    found = read([(0, 5, [1, 1, 9, 9], {}), (1, 1, [8, 8, 40, 30], {}), (2, 1, [8, 8, 40, 30], {})])
    assert found.names == ['photo_001.png', 'photo_002.png'] and found.photos.tolist() == [0, 1]
    assert len(found.views) == 2 and len(found.view_boxes) == len(found.boxes) == 2


def test_some_photos_evenly_spread(read):
    rows = [*ROWS, (2, 1, [1, 1, 9, 9], {})]
    assert read(rows, num_photos=2).names == ['photo_000.png', 'photo_002.png']


@pytest.mark.parametrize('rows, message', [
    ([(0, 1, [1, 1, 9], {})], r'marks.json cannot .*annotations\[0\] .* has the bbox \[1, 1, 9\]'),
    ([(0, 1, [1, 1, -9, 9], {})], 'negative width or height: 1 .*-9'),
    ([(0, 1, [1, 1, float('nan'), 9], {})], 'not a finite number: 1 .*nan'),
    ([(0, 2, [200, 10, 9, 9], {})], 'outside of their photo: 1 .*200, 10, 9, 9.* of 96x72'),
    ([(0, 1, '1 1 9 9', {})], "has the bbox '1 1 9 9'"),
    ([(7, 1, [1, 1, 9, 9], {})], 'image_id 7'), ([(0, 9, [1, 1, 9, 9], {})], 'category_id 9'),
    ([(0, 1, [1, 1, 9, 9], {})], 'no object to score; left out: 1 categories .*: cat'),
    ([], 'no object to score'), ({'images': []}, "no key 'annotations'")])
def test_bad_annotations_are_named(read, rows, message):
    with pytest.raises(ValueError, match=message):
        read(rows)


def test_photos_that_are_not_there(read):
    content = coco(ROWS, photos=3)
    content['images'] += [dict(id=10 + i, file_name=f'gone_{i}.jpg') for i in range(7)]
    with pytest.raises(ValueError, match="Photos, of 10, that are not in .*photos: 7 .'gone_0.jpg'; "
                                         "'gone_1.jpg'; 'gone_2.jpg'; and 4 more"):
        read(content)
    content = coco(ROWS)
    for row in content['images']:
        row['file_name'] = f'photos/{row["file_name"]}'
    assert any('folders before it left out): 3' in line for line in read(content).mended)
    del content['images'][1]['file_name']
    with pytest.raises(ValueError, match='id 1. has no file_name'):
        read(content)


def test_photos_of_another_size(read):
    make_photos(read.folder, 1, size=(48, 36))
    with pytest.raises(ValueError, match='photo_000.png.* is 48x36 pixels, not 96x72'):
        read(ROWS)


def test_a_name_that_leads_out_is_refused(read):
    content = coco(ROWS)
    content['images'][0]['file_name'] = '../secret.png'
    Path(read.folder.parent / 'secret.png').write_bytes(b'')
    with pytest.raises(ValueError, match='Photos, of 3, that are not in .*lead out of the folder'):
        read(content)


def test_features_are_those_of_the_target_network_whatever_the_batch_holds(read, tmp_path):
    """With the same number of boxes per photo, the result equals that of `extract_feat`."""
    cfg = tiny_config(tmp_path / 'model', photos=1)
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        model = MODELS.build(cfg.model)
    torch.manual_seed(1)
    for parameter in model.target.parameters():
        parameter.data.add_(0.01 * torch.randn_like(parameter))
    found = read([*ROWS, (1, 2, [4, 4, 30, 30], {}), (2, 1, [1, 1, 60, 60], {})])
    before = {key: value.clone() for key, value in model.state_dict().items()}
    done = []
    feats = embed_labelled(model, found, batch_size=3, report=done.append)
    assert done == [3] and feats.shape == (6, 256) and all(feats.norm(dim=1) > 0.99)
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())

    view = torch.empty(3, 3, 48, 48)
    model.data_preprocessor.prepare(torch.stack(found.views), 0, None, view)
    bboxes = found.view_boxes.view(3, 1, 1, 2, 4).expand(3, 2, 2, 2, 4)
    with torch.no_grad():
        obj_feats, _ = working_copy(model).extract_feat([view] * 3, bboxes, target=True)
    assert torch.allclose(feats, unit(obj_feats[1][0].flatten(0, 1)), atol=1e-5)
    # three photos in batches of two: 2 + 1
    embed_labelled(model, found, batch_size=2, report=done.append)
    assert done == [3, 2, 1]


def test_backbone_features_are_means_over_the_box_of_every_stage():
    # two channels for the left and right half, and a constant one of a coarser stage
    fine = torch.zeros(1, 2, 8, 8)
    fine[:, 0, :, :4], fine[:, 1, :, 4:] = 3, 3
    coarse = torch.full((1, 1, 2, 2), 5.)
    rois = torch.tensor([[0, 4., 4., 12., 28.], [0, 20., 4., 28., 28.], [0, 0., 0., 32., 32.]])
    found = backbone_features([fine, coarse], rois, 32)
    expected = torch.tensor([[1, 0, 1], [0, 1, 1], [0.5 ** 0.5, 0.5 ** 0.5, 1]])
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


def test_features_of_the_backbone_do_not_depend_on_neck_and_head(read, tmp_path):
    cfg = tiny_config(tmp_path / 'tiny')
    with DefaultScope.overwrite_default_scope('mmselfsup'):
        model = MODELS.build(cfg.model)
    labelled = read(ROWS)
    before = {kind: embed_labelled(model, labelled, features=kind) for kind in ('object', 'backbone')}
    for module in (model.target['neck'], model.target['roi_head']):
        for parameter in module.parameters():
            parameter.data.normal_()
    assert torch.equal(embed_labelled(model, labelled, features='backbone'), before['backbone'])
    assert not torch.allclose(embed_labelled(model, labelled), before['object'])
    with pytest.raises(ValueError, match="one of object, backbone, not 'neck'"):
        embed_labelled(model, labelled, features='neck')
