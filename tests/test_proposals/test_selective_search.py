"""Tests of selective search, against the official code and scikit-image, and by hand."""
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from skimage.feature import local_binary_pattern
from skimage.segmentation import felzenszwalb

from projects.soco.proposals import grouping, jit
from projects.soco.proposals.segmentation import segment
from projects.soco.proposals.selective_search import SearchSetting, selective_search

PARITY = Path(__file__).parents[1] / 'data' / 'parity'
PACKAGED, PHOTOS, ORIGINALS = (
    json.loads((PARITY / f'selective_search_{name}.json').read_text())
    for name in ('packaged', 'photos', 'originals'))


def read_rgb(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.array(image.convert('RGB'))


def matched_share(ours: np.ndarray, theirs: np.ndarray, least: float = 0.95) -> float:
    """Return the share of `theirs` that are matched one-to-one by `ours` at an IoU of `least`."""
    free = [tuple(box) for box in ours.tolist()]
    found = 0
    for x, y, w, h in theirs.tolist():
        for other in free:
            across = min(x + w, other[0] + other[2]) - max(x, other[0])
            along = min(y + h, other[1] + other[3]) - max(y, other[1])
            common = max(across, 0) * max(along, 0)
            if common >= least * (w * h + other[2] * other[3] - common):
                free.remove(other)
                found += 1
                break
    return found / len(theirs)


@pytest.mark.parametrize('name', sorted(PACKAGED))
def test_official_regions_of_packaged_photos(name, photo):
    image, expected = read_rgb(photo(name)), np.array(PACKAGED[name]['regions_xywh'])
    regions = selective_search(image)
    if name.endswith('.png'):
        assert regions.tolist() == expected.tolist()
    assert matched_share(regions, expected) >= 0.995


@pytest.mark.parametrize('folder, reference, misses', [('photos', PHOTOS, 1),
                                                       ('originals', ORIGINALS, 1)])
def test_official_regions_of_further_photos(folder, reference, misses, photo_data):
    shares = []
    for name, values in reference.items():
        regions = selective_search(read_rgb(photo_data / folder / name))
        expected = np.array(values['regions_xywh'])
        same = regions.tolist() == values['regions_xywh']
        shares.append(1. if same else 0.999 * matched_share(regions, expected))
    assert sum(share < 1 for share in shares) <= misses
    assert np.mean(shares) >= 0.995


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 60), st.integers(1, 60), st.integers(0, 2**32 - 1), st.integers(1, 40))
def test_segments_are_those_of_scikit_image(height, width, seed, min_size):
    image = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    labels, count = segment(image, 100., 0.9, min_size)
    if height > 1 and width > 1:
        expected = felzenszwalb(image / 255., scale=100, sigma=0.9, min_size=min_size)
        np.testing.assert_array_equal(labels, expected)
    first_seen = labels.ravel()[np.sort(np.unique(labels, return_index=True)[1])]
    assert first_seen.tolist() == list(range(count))


@pytest.mark.parametrize('image', [
    np.random.default_rng(0).integers(0, 256, (33, 47, 3), dtype=np.uint8),
    np.full((300, 40, 3), 77, np.uint8),
    np.random.default_rng(0).integers(0, 3, (20, 400, 3), dtype=np.uint8),
])
def test_patterns_are_those_of_scikit_image(image):
    codes = grouping.local_binary_patterns(image)
    for channel in range(3):
        with pytest.warns(UserWarning):
            expected = local_binary_pattern(image[..., channel].astype(np.float64), 8, 1.)
        np.testing.assert_array_equal(codes[channel], expected)


def test_histogram_bins_are_those_of_numpy():
    for bins in (10, 25):
        table = grouping.histogram_bins(bins)
        for value in range(256):
            assert np.histogram([value], bins, (0., 255.))[0][table[value]] == 1


def test_two_flat_halves_are_two_regions():
    image = np.zeros((100, 200, 3), np.uint8)
    image[:, 100:] = 255
    # Neither contains a corner of the other, so they never merge; sides are last minus first.
    regions = selective_search(image, SearchSetting(sigma=0.))
    assert regions.tolist() == [[0, 0, 99, 99], [100, 0, 99, 99]]


def test_nested_square_is_merged_with_its_ground():
    image = np.zeros((100, 100, 3), np.uint8)
    image[30:60, 20:70] = 255
    regions = selective_search(image, SearchSetting(sigma=0.))
    assert regions.tolist() == [[0, 0, 99, 99], [20, 30, 49, 29], [0, 0, 99, 99]]


@pytest.mark.parametrize('shape', [(1, 1, 3), (1, 500, 3), (500, 1, 3), (2, 2, 3), (3, 1000, 3)])
def test_tiny_and_elongated_images(shape):
    image = np.random.default_rng(1).integers(0, 256, shape, dtype=np.uint8)
    regions = selective_search(image)
    height, width = shape[:2]
    assert len(regions) >= 1
    assert (regions >= 0).all()
    assert (regions[:, 0] + regions[:, 2] < width).all()
    assert (regions[:, 1] + regions[:, 3] < height).all()


def test_result_does_not_depend_on_memory_layout(photo):
    image = read_rgb(photo('chelsea.png'))
    expected = selective_search(image)
    assert np.array_equal(selective_search(np.asfortranarray(image)), expected)
    assert np.array_equal(selective_search(image[:, ::-1][:, ::-1]), expected)


def test_paper_neighbours_touch():
    image = np.zeros((100, 200, 3), np.uint8)
    image[:, 100:] = 255
    regions = selective_search(image, SearchSetting(sigma=0., official=False))
    assert regions.tolist() == [[0, 0, 99, 99], [100, 0, 99, 99], [0, 0, 199, 99]]
    labels = np.array([[0, 0, 1], [2, 2, 1], [2, 2, 3]], np.int32)
    assert grouping.touching_pairs(labels, 4).tolist() == [[0, 1], [0, 2], [1, 2], [1, 3], [2, 3]]


def test_paper_histograms_count_hue():
    # Three stripes: red, a slightly darker red, and green as bright as the first. Texture, size and
    # fill are equal. By value alone no two stripes are similar; hue joins the red ones.
    image = np.zeros((100, 300, 3), np.uint8)
    image[:, :100, 0], image[:, 100:200, 0], image[:, 200:, 1] = 200, 190, 200
    paper = selective_search(image, SearchSetting(sigma=0., scales=(1.,), official=False))
    assert paper.tolist()[3] == [0, 0, 199, 99]


def test_paper_setting_joins_everything(photo):
    image = read_rgb(photo('chelsea.png'))
    regions = selective_search(image, 'uijlings')
    segments = (len(regions) + 1) // 2
    assert len(regions) == 2 * segments - 1
    assert regions[-1].tolist() == [0, 0, image.shape[1] - 1, image.shape[0] - 1]


def test_several_scales_and_spaces_give_more_boxes_without_repeats(photo):
    image = read_rgb(photo('chelsea.png'))
    one = SearchSetting(official=False)
    many = SearchSetting(scales=(300., 100.), colour_spaces=('rgb', 'lab', 'hsv', 'grey'),
                         official=False)
    first, all_regions = selective_search(image, one), selective_search(image, many)
    assert len(all_regions) > 2 * len(first)
    assert len(np.unique(all_regions, axis=0)) == len(all_regions)
    assert {tuple(box) for box in first.tolist()} <= {tuple(box) for box in all_regions.tolist()}


@pytest.mark.parametrize('parameters, message', [
    (dict(colour_spaces=('cmyk',)), 'unknown colour space'), (dict(scales=()), 'one scale'),
    (dict(scales=(0.,)), 'above 0'), (dict(sigma=-1.), 'sigma'), (dict(min_size=0), 'min_size')])
def test_impossible_settings_are_refused(parameters, message):
    with pytest.raises(ValueError, match=message):
        SearchSetting(**parameters)


def test_parameters_change_the_result(photo):
    image = read_rgb(photo('chelsea.png'))
    coarse = selective_search(image, SearchSetting(scales=(1000.,)))
    assert len(coarse) < len(selective_search(image))


@pytest.mark.parametrize('image, message', [
    (np.zeros((4, 4, 3), np.float32), 'uint8'),
    (np.zeros((4, 4), np.uint8), 'RGB'),
    (np.zeros((4, 4, 4), np.uint8), 'RGB'),
    (np.zeros((0, 4, 3), np.uint8), 'RGB'),
    ([[1, 2]], 'uint8'),
    (np.zeros((1, 65536, 3), np.uint8), 'too large'),
])
def test_other_arrays_are_refused(image, message):
    with pytest.raises(ValueError, match=message):
        selective_search(image)


def test_unknown_setting_is_refused():
    with pytest.raises(ValueError, match='unknown setting .*soco'):
        selective_search(np.zeros((4, 4, 3), np.uint8), 'fast')


def test_kernels_compile_where_nothing_can_be_cached(monkeypatch):
    def refuse(*args, **kwargs):
        raise PermissionError

    monkeypatch.setattr(jit.Path, 'mkdir', refuse)
    jit.cache_folder.cache_clear()
    assert jit.cache_folder() is None
    assert jit.kernel(lambda x: x + 1)(1) == 2
    monkeypatch.undo()
    jit.cache_folder.cache_clear()
    assert jit.cache_folder().is_dir()


def test_every_kernel_file_counts_for_the_cache():
    package = Path(jit.__file__).parent
    users = {path.name for path in package.glob('*.py') if 'import kernel' in path.read_text()}
    assert users | {'jit.py'} == set(jit.KERNEL_FILES)
