import os

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from projects.soco.pictures import photos
from projects.soco.pictures.canvas import PALETTE, save_image
from projects.soco.pictures.photos import draw_proposals, draw_views

GREY = 128


def grey(height: int, width: int) -> np.ndarray:
    return np.full((height, width, 3), GREY, dtype=np.uint8)


def extent(picture: np.ndarray, color: tuple[int, int, int]) -> list[tuple[int, int, int, int]]:
    """Return the areas of exactly one colour with sides above 30 px, (x, y, w, h)."""
    mask = (picture == color).all(-1).astype(np.uint8)
    areas = cv2.connectedComponentsWithStats(mask)[2][1:, :4]
    return [tuple(area) for area in areas.tolist() if min(area[2:]) > 30]


def annotated(image: np.ndarray, boxes: list, labels: list | None = None) -> np.ndarray:
    """Draw boxes as on a view, with the numbers from 1 as labels."""
    numbers = [str(i + 1) for i in range(len(boxes))]
    colors = [PALETTE[i % len(PALETTE)] for i in range(len(boxes))]
    return photos._annotate(image, boxes, numbers if labels is None else labels, colors, 1)


def test_boxes_have_edges_in_their_colour():
    out = annotated(grey(400, 500), [[50, 100, 250, 300], [300, 40, 480, 380]])
    assert out.shape == (400, 500, 3) and out.dtype == np.uint8
    for (x1, y1, x2, y2), color in zip([(50, 100, 250, 300), (300, 40, 480, 380)], PALETTE):
        for x, y in ((x1, (y1 + y2) // 2), (x2 - 1, (y1 + y2) // 2), ((x1 + x2) // 2, y1),
                     ((x1 + x2) // 2, y2 - 1)):
            assert tuple(out[y, x]) == color
        assert (out[(y1 + y2) // 2, (x1 + x2) // 2] == GREY).all()
    assert (out[5, 5] == GREY).all()


def test_labels_are_on_chips_in_the_colour_of_the_box():
    plain = annotated(grey(320, 320), [[40, 40, 280, 280]], labels=[''])
    numbered = annotated(grey(320, 320), [[40, 40, 280, 280]])
    named = annotated(grey(320, 320), [[40, 40, 280, 280]], labels=['motorcycle'])

    def chip_width(picture: np.ndarray) -> int:
        changed = (picture != plain).any(-1)
        assert changed[:40].sum() == 0 and changed[70:].sum() == 0
        return int(changed.any(0).sum())

    assert 10 < chip_width(numbered) < 30 < 60 < chip_width(named)
    assert (numbered == PALETTE[0]).all(-1).sum() > (plain == PALETTE[0]).all(-1).sum() + 50


def test_coinciding_boxes_all_stay_visible():
    boxes = np.repeat([[50., 60., 300., 290.]], 4, axis=0)
    out = annotated(grey(320, 400), boxes)
    for color in PALETTE[:4]:
        assert (out[150] == color).all(-1).any() and (out[:, 170] == color).all(-1).any()


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(*[st.floats(-50, 400)] * 4), max_size=12))
def test_chips_never_overlap_and_stay_inside(corners):
    boxes = np.array([[min(a, c), min(b, d), max(a, c), max(b, d)] for a, b, c, d in corners])
    places, original = [], photos.draw_chip

    def spy(*args):
        places.append(original(*args))
        return places[-1]

    photos.draw_chip = spy
    try:
        out = annotated(grey(320, 360), boxes)
    finally:
        photos.draw_chip = original
    assert out.shape == (320, 360, 3) and len(places) == len(boxes)
    covered = np.zeros(out.shape[:2], int)
    for x1, y1, x2, y2 in places:
        assert 0 <= x1 < x2 <= 360 and 0 <= y1 < y2 <= 320
        covered[y1:y2, x1:x2] += 1
    assert covered.max() <= 1


@pytest.mark.parametrize('image, boxes, message', [
    (np.zeros((4, 4), np.uint8), [], r'`image`.*\(H, W, 3\)'),
    (np.zeros((4, 4, 3), np.float32), [], '`image`.*uint8.*float32'),
    (grey(9, 9), [[1, 2, 3]], r'`boxes`.*\(n, 4\).*\(1, 3\)'),
    (grey(9, 9), [[1, 2, 3, np.nan]], '`boxes` must be finite'),
])
def test_what_is_wrong_is_named(image, boxes, message):
    with pytest.raises(ValueError, match=message):
        draw_proposals(image, boxes, 'title')


def test_draw_proposals_colours_by_size_small_ones_on_top():
    large, small = [20, 20, 620, 460], [300, 20, 360, 80]
    out = draw_proposals(grey(480, 640), [small, large], '2 proposals')
    top = 16 + 34
    assert out.shape[1] == 640 + 2 * 16 and out.shape[0] > 480 + top
    at = {name: tuple(int(v) for v in out[top + y, 16 + x])
          for name, x, y in (('large', 20, 300), ('small', 330, 79), ('shared', 330, 20))}
    assert at['large'] == (255, 0, 255) and at['small'] == (0, 255, 255) == at['shared']
    assert (out[:16] == 255).all() and (out[:, :16] == 255).all()
    assert (out[16:top] < 100).any(), 'the title is missing'
    assert (draw_proposals(grey(480, 640), [small, large], '')[16:top] == 255).all()


def test_draw_proposals_takes_no_boxes_and_a_long_title():
    out = draw_proposals(grey(480, 640), np.zeros((0, 4)), 'a very long title ' * 30)
    assert out.shape == (480 + 34 + 32, 640 + 32, 3)
    assert (out[:, -16:] == 255).all()


def sample_views() -> tuple[list[np.ndarray], np.ndarray, np.ndarray]:
    views = [grey(224, 224), grey(224, 224), grey(112, 112)]
    bboxes = np.array([
        [[[20, 30, 120, 110], [100, 120, 210, 200]], [[10, 60, 160, 180], [170, 10, 220, 60]]],
        [[[60, 40, 180, 200], [5, 5, 55, 60]], [[20, 20, 80, 100], [82, 60, 110, 110]]],
    ], dtype=np.float32)
    return views, bboxes, np.array([[[1, 2], [2, 1]], [[2, 0], [1, 0]]])


def test_draw_views_gives_an_object_one_colour_in_both_views():
    views, bboxes, _ = sample_views()
    out = draw_views(grey(300, 400), np.zeros((0, 4)), views, bboxes)
    for k in range(2):
        # Rows from top to bottom, then view 1 before view v; cells are 448 px: factors 2 and 4.
        found = sorted(extent(out, PALETTE[k]), key=lambda area: (area[1] > 500, area[0]))
        assert len(found) == 4
        for (*_, w, h), box, factor in zip(found, bboxes[:, :, k].reshape(4, 4), (2, 2, 2, 4)):
            assert (w, h) == pytest.approx((box[2:] - box[:2]) * factor, abs=12)
        left, right = found[0], found[1]
        assert right[0] - left[0] == pytest.approx(
            448 + 16 + 2 * (bboxes[0, 1, k, 0] - bboxes[0, 0, k, 0]), abs=12)


def test_draw_views_writes_the_levels_where_given(monkeypatch):
    views, bboxes, levels = sample_views()
    written, original = [], photos.draw_chip
    monkeypatch.setattr(photos, 'draw_chip', lambda draw, box, label, *rest: (
        written.append(label), original(draw, box, label, *rest))[1])
    draw_views(grey(300, 400), [[10, 10, 200, 200]], views, bboxes)
    assert written == ['1', '2', '1', '2', '3', '4', '3', '4']
    written.clear()
    names = ['P2', 'P3', 'P4']
    draw_views(grey(300, 400), [[10, 10, 200, 200]], views, bboxes, levels, names)
    assert written == ['1 P3', '2 P4', '1 P4', '2 P3', '3 P4', '4 P2', '3 P3', '4 P2']


def test_pairs_with_the_same_boxes_in_view_1_show_the_same_objects(monkeypatch):
    """SoCo*: the fourth view shares the second one's crop."""
    views, bboxes, _ = sample_views()
    written, original = [], photos.draw_chip
    monkeypatch.setattr(photos, 'draw_chip', lambda draw, box, label, *rest: (
        written.append(label), original(draw, box, label, *rest))[1])
    draw_views(grey(300, 400), np.zeros((0, 4)), [*views, grey(112, 112)],
               np.concatenate([bboxes, [[bboxes[0, 0], bboxes[0, 1] / 2]]]))
    assert written == ['1', '2'] * 2 + ['3', '4'] * 2 + ['1', '2'] * 2


def test_draw_views_titles_name_each_view_and_its_size(monkeypatch):
    views, bboxes, _ = sample_views()
    titles, original = [], photos.titled
    monkeypatch.setattr(photos, 'titled', lambda picture, title, *room: (
        titles.append(title), original(picture, title, *room))[1])
    draw_views(grey(300, 400), [[10, 10, 200, 200]], views, bboxes, name='a.jpg')
    assert sorted(titles) == ['a.jpg, 400x300, proposals: 1', 'view 1, 224x224', 'view 1, 224x224',
                              'view 2, 224x224', 'view 3, 112x112']


def test_the_title_of_a_narrow_photo_is_not_cut_and_views_stand_in_line():
    views, bboxes, _ = sample_views()
    name = 'n01440764/n01440764_10026.JPEG'
    narrow = draw_views(grey(400, 100), [[10, 10, 90, 200]], views, bboxes, name=name)
    wide = draw_views(grey(100, 400), [[10, 10, 90, 90]], views, bboxes, name=name)
    assert narrow.shape[1] == wide.shape[1]
    title = slice(16, 50)
    written = [np.flatnonzero((picture[title, :800] < 128).any((0, 2))).max()
               for picture in (narrow, wide)]
    assert written[0] == written[1] > 500


@pytest.mark.parametrize('change, message', [
    (lambda v, b, lv: (v[:2], b, lv), r'`bboxes`.*P = 1 pairs for 2 views'),
    (lambda v, b, lv: (v, b[:, :1], lv), r'`bboxes`.*\(P, 2, K, 4\)'),
    (lambda v, b, lv: (v[:1], b[:0], lv), 'at least one'),
    (lambda v, b, lv: (v, b, lv[:1]), r'`levels` must have shape \(2, 2, 2\)'),
    (lambda v, b, lv: (v, b, lv + 2), '`levels`.*below the number of `level_names`, 4'),
    (lambda v, b, lv: ([v[0], v[1] / 2, v[2]], b, lv), r'`views\[1\]`'),
])
def test_draw_views_names_what_is_wrong(change, message):
    views, bboxes, levels = change(*sample_views())
    with pytest.raises(ValueError, match=message):
        draw_views(grey(30, 40), np.zeros((0, 4)), views, bboxes, levels, ['P2', 'P3', 'P4', 'P5'])


def test_save_image_keeps_every_pixel(tmp_path):
    picture = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    path = save_image(picture, tmp_path / 'a' / 'b.png')
    np.testing.assert_array_equal(np.asarray(Image.open(path)), picture)


def test_save_image_leaves_the_old_file_when_writing_fails(tmp_path, monkeypatch):
    path = save_image(grey(4, 4), tmp_path / 'a.png')
    before = path.read_bytes()

    def fail(*_):
        raise OSError('disk full')

    monkeypatch.setattr(os, 'fsync', fail)
    with pytest.raises(OSError, match='disk full'):
        save_image(grey(8, 8), path)
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


def test_save_image_wants_a_png(tmp_path):
    with pytest.raises(ValueError, match=r'ends in \.png'):
        save_image(grey(4, 4), tmp_path / 'a.jpg')
    with pytest.raises(ValueError, match='`array`'):
        save_image(np.zeros((4, 4), np.uint8), tmp_path / 'a.png')
