import io
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from projects.soco.datasets.geometry import overlaps
from projects.soco.datasets.transforms import (
    LoadProposals,
    PackSoCoInputs,
    ProposalCutout,
    ProposalViews,
    cut_view,
)
from projects.soco.proposals.filters import get_filter
from projects.soco.proposals.images import ImageError

VIEWS = [dict(size=64), dict(size=64, area=(0.5, 1.0)), dict(size=32, area=(0.5, 1.0))]


def picture(width: int = 120, height: int = 90, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def sample(boxes, seed: int = 0, **size) -> dict:
    img, boxes = picture(**size), np.array(boxes, dtype=np.float32).reshape(-1, 4)
    return dict(img=img, reduction=1, row=row(boxes, img.shape[1], img.shape[0]), proposals=boxes,
                rng=np.random.default_rng(seed))


def row(boxes, width: int = 120, height: int = 90) -> SimpleNamespace:
    return SimpleNamespace(width=width, height=height, boxes=np.array(boxes, dtype=np.float32))


def encoded(image: np.ndarray) -> bytes:
    return cv2.imencode('.png', image)[1].tobytes()


def jpeg(image: np.ndarray, orientation: int = 1) -> bytes:
    file, exif = io.BytesIO(), Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(image[..., ::-1]).save(file, 'jpeg', quality=98, subsampling=0, exif=exif)
    return file.getvalue()


class TestLoadProposals:

    def test_decodes_and_clips(self):
        results = LoadProposals().transform(dict(
            bytes=encoded(picture()), img_path='a.png', row=row([[-5, 0, 300, 50]])))
        assert (results['img'] == picture()).all()
        assert results['proposals'].tolist() == [[0, 0, 120, 50]]

    def test_keeps_the_first_boxes(self):
        boxes = [[i, i, i + 40, i + 40] for i in range(5)]
        results = LoadProposals(max_proposals=2).transform(
            dict(bytes=encoded(picture()), img_path='a.png', row=row(boxes)))
        assert results['proposals'].tolist() == boxes[:2]

    @pytest.mark.parametrize('content, reason', [
        (b'', 'empty file'), (b'this is text', 'not an image'),
        (encoded(picture())[:400], 'truncated')])
    def test_names_what_cannot_be_decoded(self, content, reason):
        with pytest.raises(ImageError, match=f'some/a.png: .*{reason}'):
            LoadProposals().transform(dict(bytes=content, img_path='some/a.png', row=row([])))

    def test_names_a_photo_of_another_size(self):
        with pytest.raises(ImageError, match='measures 120x90 pixels.*made for 60x45'):
            LoadProposals().transform(
                dict(bytes=encoded(picture()), img_path='a.png', row=row([], 60, 45)))

    @pytest.mark.parametrize('content', [encoded(picture()), jpeg(picture())])
    def test_refuses_more_pixels_than_the_generator(self, content):
        with pytest.raises(ImageError, match='too large: 120x90 pixels, more than 10799'):
            LoadProposals().transform(
                dict(bytes=content, img_path='a', row=row([]), max_pixels=120 * 90 - 1))

    def test_boxes_that_are_none_are_never_chosen(self):
        """Not finite, negative, outside or empty boxes, which only another program can write."""
        none = [[np.nan, 0, 50, 50], [0, 0, np.nan, np.nan], [60, 60, 20, 20], [200, 0, 300, 50],
                [-90, -90, -10, -10], [30, 30, 30, 60], [np.inf, 0, np.inf, 9], [-np.inf] * 4]
        for seed in range(5):
            results = LoadProposals().transform(dict(bytes=encoded(picture()), row=row(none),
                                                     rng=np.random.default_rng(seed)))
            bboxes = ProposalViews(VIEWS)(results)['bboxes']
            assert (bboxes[:, 0] == [0, 0, 64, 64]).all()  # the whole view, as without boxes
            results = LoadProposals().transform(dict(
                bytes=encoded(picture()), row=row(none + [[-900, -900, 900, 900]]),
                rng=np.random.default_rng(seed)))
            assert results['proposals'][-1].tolist() == [0, 0, 120, 90]
            assert np.isfinite(ProposalViews(VIEWS)(results)['bboxes']).all()

    def test_thousands_of_boxes(self):
        rng = np.random.default_rng(0)
        corner = rng.uniform(0, 80, (50_000, 2))
        boxes = np.concatenate([corner, corner + rng.uniform(1, 40, (50_000, 2))], axis=1)
        results = LoadProposals().transform(dict(bytes=encoded(picture()), row=row(boxes), rng=rng))
        bboxes = ProposalViews(VIEWS)(results)['bboxes']
        assert bboxes.shape == (2, 2, 4, 4) and np.isfinite(bboxes).all()
        assert len(np.unique(bboxes[0, 0], axis=0)) == 4


class TestFilteredProposals:

    @settings(max_examples=40, deadline=None)
    @given(st.lists(st.tuples(*[st.integers(0, 300)] * 4), max_size=8))
    def test_the_official_filter_keeps_what_the_generator_keeps(self, regions):
        regions = np.array(regions, dtype=np.uint16).reshape(-1, 4)
        regions[:, 2:] = np.minimum(regions[:, 2:], np.array([400, 300]) - regions[:, :2])
        boxes = np.concatenate([regions[:, :2], regions[:, :2] + regions[:, 2:]], axis=1)
        kept = LoadProposals(keep='ratio3size0308post').select(row(boxes, 400, 300))['proposals']
        expected = get_filter('ratio3size0308post')(regions, 400, 300)[0]
        assert np.array_equal(kept[:, :2], expected[:, :2])
        assert np.array_equal(kept[:, 2:] - kept[:, :2], expected[:, 2:])

    @pytest.mark.parametrize('scale, keep_ratio, kept', [
        ((500, 300), True, [1, 2]),  # 10 x 10, 30 x 30, 60 x 60 and 80 x 20 pixels, as they are
        ((1000, 600), True, [0, 1]),
        ((250, 150), True, [2]),
        ((500, 900), False, [3]),  # 10 x 30, 30 x 90, 60 x 180 and 80 x 60 pixels
    ])
    def test_pixels_are_those_that_the_detector_sees(self, scale, keep_ratio, kept):
        boxes = [[0, 0, 10, 10], [5, 5, 35, 35], [50, 50, 110, 110], [10, 0, 90, 20]]
        load = LoadProposals(keep=dict(min_side=20, max_side=80, max_ratio=2),
                             seen_at=dict(scale=scale, keep_ratio=keep_ratio))
        found = load.select(row(boxes, 500, 300))
        assert found['proposals'].tolist() == [boxes[i] for i in kept]
        assert found['zoom'] == (scale[0] / 500, scale[1] / 300)

    @pytest.mark.parametrize('wrong', [
        dict(keep='ratio'), dict(keep=dict(min_sides=3)), dict(keep=dict(min_side=9, max_side=3)),
        dict(seen_at=dict(scale=(0, 10))), dict(seen_at=dict(keep_ratio=True)),
        dict(seen_at=dict(scale=(10, 10), ratio=1))])
    def test_refuses_what_is_no_filter(self, wrong):
        with pytest.raises(ValueError, match='filter|seen_at'):
            LoadProposals(**wrong)


def smooth(width: int, height: int) -> np.ndarray:
    """Return enlarged coarse noise, of which a JPEG is nearly lossless."""
    return cv2.resize(picture(width // 40, height // 40), (width, height),
                      interpolation=cv2.INTER_CUBIC)


def load(content: bytes, width: int, height: int, boxes=(), **kwargs) -> dict:
    boxes = np.reshape(boxes, (-1, 4))
    return LoadProposals(**kwargs)(dict(bytes=content, img_path='a.jpg', row=row(boxes, width, height),
                                        rng=np.random.default_rng(0)))


class TestScaledDecoding:

    @pytest.mark.parametrize('side, reduction', [(None, 1), (322, 1), (321, 2), (160, 4), (40, 8)])
    def test_keeps_so_many_pixels_and_the_boxes(self, side, reduction):
        results = load(jpeg(smooth(803, 642)), 803, 642, [[20, 30, 700, 600]], scaled_side=side)
        assert results['reduction'] == reduction
        assert results['img'].shape[:2] == (-(-642 // reduction), -(-803 // reduction))
        assert results['proposals'].tolist() == [[20, 30, 700, 600]]

    def test_only_jpegs(self):
        assert load(encoded(smooth(800, 640)), 800, 640, scaled_side=40)['reduction'] == 1

    @pytest.mark.parametrize('orientation', range(1, 9))
    def test_shows_the_same_upright(self, orientation):
        """Windows, boxes and flips equal those of unscaled decoding; pixels nearly do."""
        stored = smooth(803, 642)
        size = (803, 642) if orientation < 5 else (642, 803)
        boxes = [[20, 30, 500, 600], [100, 200, 400, 620]]
        whole = load(jpeg(stored, orientation), *size, boxes)
        scaled = load(jpeg(stored, orientation), *size, boxes, scaled_side=320)
        assert (whole['reduction'], scaled['reduction']) == (1, 2)
        views = ProposalViews(VIEWS)
        views(whole), views(scaled)
        assert (whole['bboxes'] == scaled['bboxes']).all()
        for a, b in zip(whole['views'], scaled['views']):
            assert np.abs(a.astype(int) - b.astype(int)).mean() < 4  # a shift of two pixels gives 7

    def test_a_photo_of_another_size_is_named(self):
        with pytest.raises(ImageError, match='measures 803x642 pixels.*made for 900x642'):
            load(jpeg(smooth(803, 642)), 900, 642, scaled_side=320)

    def test_refuses_no_pixels(self):
        with pytest.raises(ValueError, match='scaled_side'):
            LoadProposals(scaled_side=0)


class TestProposalViews:

    def test_rows_are_the_same_objects(self):
        """Mapping each view's boxes back to the photo gives the same proposal in every row."""
        boxes = [[10, 10, 60, 50], [30, 20, 110, 80], [50, 5, 100, 70], [0, 30, 70, 90],
                 [20, 15, 90, 85]]
        transform = ProposalViews(VIEWS, jitter_prob=0.0, flip_prob=0.0)
        for seed in range(30):
            results = sample(boxes, seed)
            windows, picks = transform._draw_windows(results['proposals'], 120, 90,
                                                     np.random.default_rng(seed))
            bboxes = transform(results)['bboxes']
            assert bboxes.shape == (2, 2, 4, 4)
            for p, (window, chosen) in enumerate(zip(windows[1:], picks)):
                assert len(set(chosen.tolist())) == 4  # 5 candidates, no repeats
                whole = np.array(boxes, dtype=np.float32)[chosen]
                np.testing.assert_allclose(
                    bboxes[p, 0], whole * np.tile([64 / 120, 64 / 90], 2), rtol=1e-5)
                x, y, w, h = window
                size = VIEWS[p + 1]['size']
                back = bboxes[p, 1] * np.tile([w / size, h / size], 2) + np.tile([x, y], 2)
                clipped = np.clip(whole, [x, y, x, y], [x + w, y + h, x + w, y + h])
                np.testing.assert_allclose(back, clipped, atol=1e-3)

    def test_a_short_list_is_filled_with_aligned_repeats(self):
        results = ProposalViews(VIEWS, jitter_prob=0.0, flip_prob=0.0)(
            sample([[10, 10, 110, 80], [20, 5, 90, 85]], seed=3))
        for first, other in results['bboxes']:
            pairs = {(tuple(a), tuple(b)) for a, b in zip(first.tolist(), other.tolist())}
            assert len(pairs) == 2

    def test_without_proposals_the_whole_views_are_compared(self):
        bboxes = ProposalViews(VIEWS)(sample([], seed=1))['bboxes']
        assert (bboxes[:, 0] == [0, 0, 64, 64]).all()
        assert (bboxes[0, 1] == [0, 0, 64, 64]).all() and (bboxes[1, 1] == [0, 0, 32, 32]).all()

    def test_only_the_first_view_is_jittered(self):
        boxes = [[20, 20, 80, 70]]
        still = ProposalViews(VIEWS, jitter_prob=0.0, flip_prob=0.0)
        moved = ProposalViews(VIEWS, jitter_prob=1.0, flip_prob=0.0)
        for seed in range(5):
            a, b = still(sample(boxes, seed))['bboxes'], moved(sample(boxes, seed))['bboxes']
            assert (a[:, 0] != b[:, 0]).any()
            assert (a[:, 1] == b[:, 1]).all()

    def test_a_flip_mirrors_pixels_and_boxes_together(self):
        boxes = [[20, 20, 80, 70], [5, 10, 60, 60]]
        plain = ProposalViews(VIEWS, flip_prob=0.0)(sample(boxes, 4))
        flipped = ProposalViews(VIEWS, flip_prob=1.0)(sample(boxes, 4))
        for v, view in enumerate(VIEWS):
            assert (flipped['views'][v] == plain['views'][v][:, ::-1]).all()
            a = plain['bboxes'][:, 0] if v == 0 else plain['bboxes'][v - 1, 1]
            b = flipped['bboxes'][:, 0] if v == 0 else flipped['bboxes'][v - 1, 1]
            np.testing.assert_allclose(b[..., 0], view['size'] - a[..., 2], atol=1e-4)
            np.testing.assert_allclose(b[..., 2], view['size'] - a[..., 0], atol=1e-4)
            assert (b[..., [1, 3]] == a[..., [1, 3]]).all()

    def test_views_can_share_a_window_and_its_proposals(self):
        star = VIEWS + [dict(size=32, same_window_as=1)]
        boxes = [[i * 5, 10, i * 5 + 40, 60] for i in range(10)]
        results = ProposalViews(star, flip_prob=0.0)(sample(boxes, 2))
        assert (results['bboxes'][2, 0] == results['bboxes'][0, 0]).all()
        np.testing.assert_allclose(results['bboxes'][2, 1] * 2, results['bboxes'][0, 1], rtol=1e-6)

    def test_windows_are_drawn_again_until_enough_is_shared(self):
        # one proposal in a corner; crops that miss it are drawn again
        transform = ProposalViews([dict(size=32), dict(size=32, area=(0.3, 0.4))],
                                  min_shared=1, max_tries=5)
        box = np.array([[0, 0, 12, 12]], dtype=np.float32)

        def share(tries: int) -> float:
            transform.max_tries = tries
            rng = np.random.default_rng(0)
            return np.mean([overlaps(box, transform._draw_windows(box, 120, 90, rng)[0][1])[0]
                            for _ in range(300)])

        assert share(5) > share(1) + 0.2

    @settings(max_examples=60, deadline=None)
    @given(st.lists(st.tuples(st.integers(0, 100), st.integers(0, 80), st.integers(1, 60),
                              st.integers(1, 60)), max_size=8), st.integers(0, 10**6))
    def test_boxes_lie_in_their_views(self, regions, seed):
        boxes = [[x, y, min(x + w, 120), min(y + h, 90)] for x, y, w, h in regions]
        bboxes = ProposalViews(VIEWS)(sample(boxes, seed))['bboxes']
        assert np.isfinite(bboxes).all() and bboxes.min() >= 0
        assert (bboxes[..., :2] <= bboxes[..., 2:]).all()
        assert bboxes[:, 0].max() <= 64 and bboxes[1, 1].max() <= 32

    @settings(max_examples=60, deadline=None)
    @given(st.lists(st.tuples(st.integers(0, 380), st.integers(0, 280), st.integers(4, 20),
                              st.integers(4, 20)), min_size=1, max_size=12),
           st.sampled_from([(1.0, 1.0), (2.0, 2.0), (0.5, 0.5), (2.0, 1.0)]), st.integers(0, 10**6))
    def test_tiles_show_objects_as_the_detector_sees_them(self, regions, zoom, seed):
        """Mapped back, rows of all views are proposals in one tile, and view 1 has the resolution."""
        whole = np.array([[x, y, x + w, y + h] for x, y, w, h in regions], dtype=np.float32)
        cut = ProposalViews(VIEWS, jitter_prob=0.0, flip_prob=0.0, tile=64)
        windows, _, bboxes = cut.choose(dict(
            row=row(whole, 400, 300), proposals=whole, zoom=zoom, rng=np.random.default_rng(seed)))
        x, y, w, h = windows[0]
        assert (w, h) == (64 / zoom[0], 64 / zoom[1])  # half a pixel of the photo at most, elsewhere
        for a, b, c, d in windows[1:]:
            assert x <= a and y <= b and a + c <= x + w and b + d <= y + h
        seen = np.concatenate([whole[:, :2] - [x, y], whole[:, 2:] - [x, y]], axis=1) * (zoom * 2)
        in_tile = np.clip(seen, 0, 64)
        assert (in_tile == seen).all(axis=1).any()  # a proposal is in the tile as a whole
        for p, (first, other) in enumerate(bboxes):
            if (first == [0, 0, 64, 64]).all():  # the crop shares none with the tile
                continue
            size = VIEWS[p + 1]['size']
            a, b, c, d = windows[p + 1]
            for k in range(4):
                rows = np.flatnonzero(np.isclose(in_tile, first[k], atol=1e-3).all(axis=1))
                clipped = np.clip(whole[rows], [a, b, a, b], [a + c, b + d, a + c, b + d])
                moved = (clipped - [a, b, a, b]) * ([size / c, size / d] * 2)
                rows = rows[np.isclose(moved, other[k], atol=1e-3).all(axis=1)]
                assert len(rows)
                for box, factor in ((first[k], np.prod(zoom)), (other[k], size / c * size / d)):
                    area = (whole[rows, 2:] - whole[rows, :2]).prod(axis=1) * factor
                    assert ((box[2:] - box[:2]).prod() >= 0.499 * area).all()

    def test_tiles_go_where_proposals_are_and_differ_between_epochs(self):
        boxes = np.array([[900, 700, 920, 715], [100, 80, 130, 100]], dtype=np.float32)
        cut = ProposalViews(VIEWS, tile=64)

        def tile(epoch: int) -> tuple:
            rng = np.random.default_rng([0, epoch, 0])
            return cut.choose(dict(row=row(boxes, 1000, 800), proposals=boxes, zoom=(1.0, 1.0),
                                   rng=rng))[0][0]

        tiles = [tile(epoch) for epoch in range(60)]
        assert tiles == [tile(epoch) for epoch in range(60)] and len(set(tiles)) > 40
        inside = np.array([[x <= a and y <= b and c <= x + w and d <= y + h for a, b, c, d in boxes]
                           for x, y, w, h in tiles])
        assert inside.any(axis=1).all() and inside[:, 0].sum() > 15 and inside[:, 1].sum() > 15

    def test_a_tile_of_a_photo_without_proposals(self):
        results = ProposalViews(VIEWS, tile=64)(dict(sample([], seed=1), zoom=(1.0, 1.0)))
        assert (results['bboxes'][:, 0] == [0, 0, 64, 64]).all() and len(results['views']) == 3

    def test_refuses_a_tile_of_no_pixels(self):
        with pytest.raises(ValueError, match='tile of ProposalViews'):
            ProposalViews(VIEWS, tile=0)

    @pytest.mark.parametrize('views', [
        [dict(size=64)], [dict(size=64), dict(area=(0.5, 1.0))],
        [dict(size=64), dict(size=64, scale=(0.5, 1))], [dict(size=64), dict(size=4, same_window_as=1)],
        [dict(size=64), dict(size=64, finest_level=-1)], [dict(size=64, blurr=1), dict(size=64)],
    ])
    def test_refuses_views_that_make_no_sense(self, views):
        with pytest.raises(ValueError, match='view'):
            ProposalViews(views)


@pytest.mark.parametrize('size', [32, 64, 150])
def test_cutting_is_pils_antialiased_resize(size):
    image = cv2.GaussianBlur(picture(200, 160), (0, 0), 1.5)
    view = cut_view(image, (20, 10, 150, 120), size, flip=False)
    pil = Image.fromarray(image).crop((20, 10, 170, 130)).resize((size, size), Image.BILINEAR)
    assert np.abs(view.astype(int) - np.asarray(pil).astype(int)).max() <= 1


class TestProposalCutout:

    def cut(self, seed: int = 0, **kwargs) -> tuple[np.ndarray, np.ndarray]:
        boxes = [[i * 5, 10, i * 5 + 60, 70] for i in range(10)]
        results = ProposalViews(VIEWS)(sample(boxes, seed))
        return ProposalCutout(**kwargs)(results)['cutouts'], results['bboxes']

    def test_squares_lie_at_boxes_of_all_views_but_the_first(self):
        for seed in range(20):
            cutouts, bboxes = self.cut(seed, prob=1.0)
            assert cutouts.shape == (3, 4, 4) and not cutouts[0].any()
            for p in range(2):
                centre = (cutouts[p + 1, :, :2] + cutouts[p + 1, :, 2:]) / 2
                assert (centre >= bboxes[p, 1, :, :2] - 9).all()
                assert (centre <= bboxes[p, 1, :, 2:] + 9).all()

    def test_area_and_probability(self):
        shares, cut = [], []
        for seed in range(200):
            cutouts, bboxes = self.cut(seed, prob=0.5, area=(0.1, 0.3))
            size = (cutouts[1, :, 2:] - cutouts[1, :, :2]).astype(float)
            box = bboxes[0, 1, :, 2:] - bboxes[0, 1, :, :2]
            chosen = size.prod(axis=1) > 0
            cut.append(chosen.mean())
            shares += (size.prod(axis=1) / box.prod(axis=1))[chosen].tolist()
        assert abs(np.mean(cut) - 0.5) < 0.06
        assert 0.15 < np.mean(shares) < 0.25

    def test_nothing_at_probability_zero(self):
        assert not self.cut(prob=0.0)[0].any()


def test_packing():
    results = ProposalViews(VIEWS)(sample([[10, 10, 100, 80]]))
    packed = PackSoCoInputs()(results)
    assert [tuple(v.shape) for v in packed['inputs']] == [(3, 64, 64), (3, 64, 64), (3, 32, 32)]
    assert (packed['inputs'][2].permute(1, 2, 0).numpy() == results['views'][2]).all()
    assert packed['bboxes'].shape == (2, 2, 4, 4)
    assert packed['colours']['weights'].shape == (3, 7, 3) and not packed['cutouts'].any()
    assert packed['finest_levels'].tolist() == [0, 0, 0]
