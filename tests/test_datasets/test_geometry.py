import mmcv
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from projects.soco.datasets.geometry import (
    flip_boxes,
    jitter_boxes,
    overlaps,
    sample_tile,
    sample_window,
    shares_inside,
    to_view,
    zoom_of,
)

sizes = st.integers(1, 700)


@given(sizes, sizes, st.integers(0, 2**32 - 1))
def test_window_lies_in_the_photo(width, height, seed):
    x, y, w, h = sample_window(width, height, (0.5, 1.0), (3 / 4, 4 / 3),
                               np.random.default_rng(seed))
    assert x >= 0 and y >= 0 and w >= 1 and h >= 1
    assert x + w <= width and y + h <= height


def test_window_has_the_wanted_area_and_ratio():
    rng = np.random.default_rng(0)
    windows = np.array([sample_window(500, 375, (0.5, 1.0), (3 / 4, 4 / 3), rng)
                        for _ in range(2000)])
    share = windows[:, 2] * windows[:, 3] / (500 * 375)
    ratio = windows[:, 2] / windows[:, 3]
    assert share.min() > 0.49 and share.max() <= 1
    assert ratio.min() > 0.74 and ratio.max() < 1.35
    # both ends of the range are reached, and windows reach both edges of the photo
    assert share.min() < 0.52 and share.max() > 0.98
    assert (windows[:, 0] == 0).any() and (windows[:, 0] + windows[:, 2] == 500).any()


@pytest.mark.parametrize('size, expected', [((900, 100), (383, 0, 133, 100)),
                                            ((100, 900), (0, 383, 100, 133))])
def test_window_of_a_long_photo_is_central(size, expected):
    # no window with half the area and a ratio of 3/4 to 4/3 fits into 9:1
    rng = np.random.default_rng(0)
    assert sample_window(*size, (0.5, 1.0), (3 / 4, 4 / 3), rng) == expected


def test_overlaps_needs_a_shared_area():
    boxes = np.array([[0, 0, 10, 10], [10, 0, 20, 10], [9, 9, 30, 30], [20, 20, 30, 30]])
    assert overlaps(boxes, (0, 0, 10, 10)).tolist() == [True, False, True, False]


def test_to_view_by_hand():
    boxes = np.array([[10, 20, 30, 40], [0, 0, 100, 100]], dtype=np.float32)
    view = to_view(boxes, (20, 10, 40, 50), (80, 200))  # scale 2 and 4
    assert view.tolist() == [[0, 40, 20, 120], [0, 0, 80, 200]]


@given(st.lists(st.tuples(*[st.floats(0, 500, width=32)] * 4), min_size=1, max_size=8), sizes)
def test_flipping_twice_changes_nothing(rows, width):
    boxes = np.array(rows, dtype=np.float32)
    twice = flip_boxes(flip_boxes(boxes, width), width)
    np.testing.assert_allclose(twice, boxes, atol=1e-3)


def test_flip_by_hand():
    assert flip_boxes(np.array([[10., 5., 30., 9.]]), 100).tolist() == [[70, 5, 90, 9]]


def test_jitter_stays_within_its_ratio_and_spares_some_boxes():
    boxes = np.tile(np.array([[100, 200, 140, 280]], dtype=np.float32), (4000, 1))
    moved = jitter_boxes(boxes, 0.5, 0.1, np.random.default_rng(0))
    changed = (moved != boxes).any(axis=1)
    assert abs(changed.mean() - 0.5) < 0.03
    size = moved[:, 2:] - moved[:, :2]
    assert np.abs(moved[:, 0] - 100).max() <= 4 and np.abs(moved[:, 1] - 200).max() <= 8
    assert np.abs(size[:, 0] - 40).max() <= 4.001 and np.abs(size[:, 1] - 80).max() <= 8.001
    assert np.abs(moved[changed, 0] - 100).mean() == pytest.approx(2, rel=0.05)


def test_jitter_can_be_switched_off():
    boxes = np.array([[1, 2, 3, 4]], dtype=np.float32)
    assert (jitter_boxes(boxes, 0.0, 0.1, np.random.default_rng(0)) == boxes).all()


@given(st.integers(20, 4000), st.integers(20, 4000), st.tuples(st.integers(64, 1400),
                                                              st.integers(64, 1400)))
def test_zoom_is_that_of_mmcv(width, height, scale):
    expected = mmcv.image.rescale_size((width, height), scale)
    zoom = zoom_of(width, height, scale)
    assert zoom[0] == zoom[1]
    np.testing.assert_allclose((width * zoom[0], height * zoom[1]), expected, atol=0.51)


def test_zoom_without_keeping_the_ratio():
    assert zoom_of(600, 400, (300, 300), keep_ratio=False) == (0.5, 0.75)


boxes_in_unit = st.tuples(*[st.floats(0, 1)] * 4)


@given(sizes, sizes, st.floats(0.5, 900), st.floats(0.5, 900), boxes_in_unit, st.integers(0, 10**6))
def test_a_tile_lies_in_the_photo_and_contains_its_box(width, height, tile_w, tile_h, box, seed):
    x1, x2 = sorted((box[0] * width, box[2] * width))
    y1, y2 = sorted((box[1] * height, box[3] * height))
    x, y, w, h = sample_tile(width, height, (tile_w, tile_h), np.random.default_rng(seed),
                             np.array([x1, y1, x2, y2], dtype=np.float32))
    assert x >= 0 and y >= 0 and w >= 1 and h >= 1 and x + w <= width and y + h <= height
    for low, high, start, side in ((x1, x2, x, w), (y1, y2, y, h)):
        if high - low + 1.01 <= side:  # a box that nearly fills the tile may stick out by a pixel
            assert start <= low + 1e-3 and high <= start + side + 1e-3
        else:
            assert min(high, start + side) > max(low, start) - 1  # a part of it
    if tile_w <= width and tile_h <= height:
        assert (w, h) == (max(1, round(tile_w)), max(1, round(tile_h)))


def test_tiles_reach_all_places_that_contain_the_box():
    rng = np.random.default_rng(0)
    tiles = np.array([sample_tile(500, 400, (100, 80), rng, np.array([200, 0, 230, 20]))
                      for _ in range(600)])
    assert set(tiles[:, 0].tolist()) == set(range(130, 201)) and (tiles[:, 1] == 0).all()
    anywhere = np.array([sample_tile(500, 400, (100, 80), rng) for _ in range(600)])
    assert anywhere[:, 0].min() < 20 and anywhere[:, 0].max() > 380 and anywhere[:, 1].max() > 300


def test_a_tile_larger_than_the_photo_keeps_its_shape():
    assert sample_tile(400, 50, (100, 100), np.random.default_rng(0))[1:] == (0, 50, 50)


def test_shares_inside_by_hand():
    boxes = np.array([[0, 0, 10, 10], [5, 0, 15, 10], [20, 20, 30, 30], [5, 5, 5, 9],
                      [np.nan, 0, 9, 9]])
    assert shares_inside(boxes, (0, 0, 10, 10)).tolist() == [1, 0.5, 0, 0, 0]
