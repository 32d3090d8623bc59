"""Tests of the generators: where boxes are, and what they depend on."""
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from test_proposals.test_generate import _StopsAfter, run_tool

from projects.soco.proposals import ProposalStore
from projects.soco.proposals.executors import ProcessExecutor, SerialExecutor
from projects.soco.proposals.filters import get_filter
from projects.soco.proposals.generate import GenerateOptions, generate
from projects.soco.proposals.generators import GridBoxes, RandomBoxes, SearchBoxes, _scaled_back
from projects.soco.proposals.journal import skipped_path
from projects.soco.proposals.selective_search import SETTINGS
from projects.soco.proposals.sources import open_source
from projects.soco.proposals.store_operations import validate_store

SIDES = st.integers(1, 3000)
PHOTO_SIDES = st.integers(200, 700)


def inside(boxes, width, height):
    return (boxes[:, :2].min() >= 0 and boxes[:, 2:].min() >= 1
            and (boxes[:, 0] + boxes[:, 2]).max() <= width
            and (boxes[:, 1] + boxes[:, 3]).max() <= height)


@settings(deadline=None)
@given(SIDES, SIDES, st.integers(1, 60), st.integers(0, 2**63), st.text(min_size=1))
def test_random_boxes_lie_inside_any_image(width, height, count, seed, name):
    boxes = RandomBoxes(count, seed).boxes_for(name, width, height)
    assert boxes.shape == (count, 4) and np.issubdtype(boxes.dtype, np.integer)
    assert inside(boxes, width, height)


@settings(deadline=None)
@given(PHOTO_SIDES, PHOTO_SIDES, st.integers(0, 1000))
def test_the_official_filter_keeps_every_random_box_of_a_photo(width, height, seed):
    boxes = RandomBoxes(40, seed).boxes_for('a.jpg', width, height)
    kept, rule = get_filter('ratio3size0308post')(boxes, width, height)
    assert rule == 'ratio3size0308' and kept.tolist() == boxes.tolist()
    assert len(np.unique(boxes, axis=0)) > 30


def test_sizes_are_uniform_and_ratios_log_uniform():
    # in a square, all ratios fit up to a size of 1/sqrt(3), so those boxes cover the whole range
    boxes = RandomBoxes(10_000).boxes_for('a.jpg', 1000, 1000).astype(float)
    sizes = np.sqrt(boxes[:, 2] * boxes[:, 3]) / 1000
    np.testing.assert_allclose(np.percentile(sizes, [1, 25, 50, 75, 99]),
                               [0.305, 0.425, 0.55, 0.675, 0.795], atol=0.01)
    ratios = np.log((boxes[:, 2] / boxes[:, 3])[sizes < 3**-0.5]) / np.log(3)
    np.testing.assert_allclose(np.percentile(ratios, [1, 25, 50, 75, 99]),
                               [-0.98, -0.5, 0, 0.5, 0.98], atol=0.04)
    places = boxes[:, 0] / (1000 - boxes[:, 2])
    np.testing.assert_allclose(np.percentile(places, [1, 25, 50, 75, 99]),
                               [0.01, 0.25, 0.5, 0.75, 0.99], atol=0.02)


def test_random_boxes_of_images_that_are_too_small_or_too_long():
    small = RandomBoxes(200).boxes_for('a', 30, 24)  # no box of 32 pixels: size and ratio still apply
    sizes = np.sqrt(small[:, 2] * small[:, 3] / 720)
    assert 0.3 <= sizes.min() < 0.4 and 0.7 < sizes.max() <= 0.8
    assert (small[:, 2:].max(axis=1) <= 3 * small[:, 2:].min(axis=1)).all()
    long = RandomBoxes(200).boxes_for('a', 4000, 50)  # no ratio within 3: the size still applies
    sizes = np.sqrt(long[:, 2] * long[:, 3] / 200_000)
    assert sizes.min() >= 0.3 and sizes.max() <= 0.8
    assert RandomBoxes(3).boxes_for('a', 1, 1).tolist() == [[0, 0, 1, 1]] * 3


def test_random_boxes_depend_on_seed_and_name_only():
    first = RandomBoxes(20, 3).boxes_for('b/a.jpg', 500, 375).tolist()
    assert RandomBoxes(20, 3).boxes_for('b/a.jpg', 500, 375).tolist() == first
    # the exact numbers, to notice a version of a library that draws others
    assert first[:2] == [[210, 88, 261, 274], [28, 5, 461, 164]]
    assert RandomBoxes(20, 4).boxes_for('b/a.jpg', 500, 375).tolist() != first
    assert RandomBoxes(20, 3).boxes_for('a.jpg', 500, 375).tolist() != first


GRIDS = st.builds(GridBoxes, st.tuples(st.floats(0.1, 1), st.floats(0.1, 1)),
                  st.tuples(st.floats(0.2, 5), st.floats(0.2, 5)), st.floats(0.3, 1))


@settings(deadline=None)
@given(GRIDS, st.integers(1, 150), st.integers(1, 150))
def test_each_shape_of_a_grid_covers_the_image_once(grid, width, height):
    boxes = grid.boxes_for('a.jpg', width, height)
    assert inside(boxes, width, height)
    assert len(np.unique(boxes, axis=0)) == len(boxes)
    for shape in np.unique(boxes[:, 2:], axis=0):
        covered = np.zeros((height, width), dtype=bool)
        for x, y, w, h in boxes[(boxes[:, 2:] == shape).all(axis=1)]:
            covered[y:y + h, x:x + w] = True
        assert covered.all()


def test_a_grid_by_hand():
    assert GridBoxes((0.5,), (1.,), 1.).boxes_for('a', 100, 100).tolist() == [
        [0, 0, 50, 50], [50, 0, 50, 50], [0, 50, 50, 50], [50, 50, 50, 50]]
    # 4:1 of half the size is as long as the image; a second shape that is the same adds no boxes
    assert GridBoxes((0.5, 0.5), (4., 9.), 0.5).boxes_for('a', 100, 100)[:3].tolist() == [
        [0, 0, 100, 25], [0, 12, 100, 25], [0, 25, 100, 25]]
    steps = GridBoxes((0.3,), (1.,), 0.5).boxes_for('a', 100, 100)[:, 0]
    assert np.unique(steps).tolist() == [0, 14, 28, 42, 56, 70]


@pytest.mark.parametrize('make, message', [
    (lambda: RandomBoxes(0), '--num-boxes must be in 1'),
    (lambda: RandomBoxes(10_001), '--num-boxes'),
    (lambda: RandomBoxes(1, -1), '--seed'),
    (lambda: GridBoxes(scales=(1.1,)), '--grid-scales'),
    (lambda: GridBoxes(scales=()), '--grid-scales'),
    (lambda: GridBoxes(ratios=(0.,)), '--grid-ratios'),
    (lambda: GridBoxes(ratios=(float('nan'),)), '--grid-ratios'),
    (lambda: GridBoxes(stride=0), '--grid-stride'),
    (lambda: GridBoxes(scales=(0.01,)), 'more than 10000'),
    (lambda: SearchBoxes(short_side=15), 'at least 16 pixels, not 15'),
])
def test_parameters_out_of_range(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_each_generator_has_its_usual_filter():
    assert GenerateOptions(SearchBoxes()).box_filter.name == 'ratio3size0308post'
    assert GenerateOptions(RandomBoxes()).box_filter.name == 'all'
    assert GenerateOptions(GridBoxes(), get_filter('side32')).box_filter.name == 'side32'


def test_a_search_at_a_short_side_is_that_of_the_scaled_photo(tmp_path):
    """A photo of three times the size gets three times the boxes; a smaller one is left as it is."""
    pixels = np.full((60, 90, 3), 90, dtype=np.uint8)
    pixels[10:40, 20:60] = 200, 30, 30
    pixels[45:55, 5:80] = 20, 220, 40
    for name, times in (('small.png', 1), ('large.png', 3)):
        Image.fromarray(np.kron(pixels, np.ones((times, times, 1), np.uint8))).save(tmp_path / name)
    source, fine = open_source(tmp_path), SETTINGS['fine']
    found = {(name, side): SearchBoxes(fine, side).boxes(source, name, 10**6)
             for name in ('small.png', 'large.png') for side in (60, None)}
    small, large = found['small.png', 60], found['large.png', 60]
    assert (large.width, large.height) == (270, 180)
    assert len(small.regions) and (large.regions == 3 * small.regions).all()
    assert (small.regions == found['small.png', None].regions).all()
    assert large.regions.dtype == found['large.png', None].regions.dtype
    assert SearchBoxes(fine, 60).describe()['parameters']['short_side'] == 60
    assert 'short_side' not in SearchBoxes(fine).describe()['parameters']


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 7), st.integers(1, 7), st.data())
def test_boxes_are_scaled_back_into_the_image(width, height, across, down, data):
    x, y = data.draw(st.integers(0, width - 1)), data.draw(st.integers(0, height - 1))
    sides = data.draw(st.integers(1, width - x)), data.draw(st.integers(1, height - y))
    box = np.array([[x, y, *sides]])
    size = height * down - (down > 1), width * across - (across > 1)
    moved = _scaled_back(box, (height, width), size)[0]
    assert (moved[:2] >= 0).all() and (moved[2:] >= 0).all()
    assert moved[0] + moved[2] <= size[1] and moved[1] + moved[3] <= size[0]
    assert abs(moved[0] - x * size[1] / width) <= 0.5
    assert abs(moved[3] - box[0, 3] * size[0] / height) <= 1


@pytest.mark.parametrize('generator', [RandomBoxes(9, 5), GridBoxes((0.5, 0.7), (1.,), 0.5)])
def test_same_bytes_with_any_number_of_workers_and_after_a_stop(tmp_path, small_photos, generator):
    source, options = open_source(small_photos), GenerateOptions(generator)
    generate(source, tmp_path / '1.arrow', options, SerialExecutor())
    generate(source, tmp_path / '2.arrow', options, ProcessExecutor(2))
    with pytest.raises(KeyboardInterrupt):
        generate(source, tmp_path / '3.arrow', options, _StopsAfter(2))
    assert generate(source, tmp_path / '3.arrow', options, SerialExecutor()).reused == 2
    whole = (tmp_path / '1.arrow').read_bytes()
    assert (tmp_path / '2.arrow').read_bytes() == whole == (tmp_path / '3.arrow').read_bytes()
    store = ProposalStore.open(tmp_path / '1.arrow')
    for row, name in enumerate(source.names()):
        assert store.regions(row).tolist() == generator.boxes_for(name, 160, 120).tolist()
    assert validate_store(store) == []


def test_the_metadata_say_which_generator(tmp_path, small_photos):
    def metadata(generator):
        generate(open_source(small_photos), tmp_path / 's.arrow', GenerateOptions(generator),
                 SerialExecutor(), overwrite=True)
        return ProposalStore.open(tmp_path / 's.arrow').metadata
    found = metadata(RandomBoxes(7, 3))
    assert found['generator'] == dict(name='random', version=1,
                                      parameters=dict(num_boxes=7, seed=3))
    assert found['filter']['name'] == 'all'
    assert metadata(GridBoxes((0.5,), (1., 2.), 0.4))['generator'] == dict(
        name='grid', version=1, parameters=dict(scales=[0.5], ratios=[1., 2.], stride=0.4))


def test_another_seed_or_source_does_not_go_on(tmp_path, small_photos):
    source, out = open_source(small_photos), tmp_path / 's.arrow'
    with pytest.raises(KeyboardInterrupt):
        generate(source, out, GenerateOptions(RandomBoxes(seed=1)), _StopsAfter(1))
    with pytest.raises(ValueError, match='unfinished run.*parameters.seed: 1, now 2'):
        generate(source, out, GenerateOptions(RandomBoxes(seed=2)), SerialExecutor())
    with pytest.raises(ValueError, match='generator.name: random, now selective_search'):
        generate(source, out, GenerateOptions(), SerialExecutor())
    generate(source, out, GenerateOptions(RandomBoxes(seed=1)), SerialExecutor())
    with pytest.raises(ValueError, match=r'\(generator.name: random, now grid\).*--overwrite'):
        generate(source, out, GenerateOptions(GridBoxes()), SerialExecutor())


def test_pixels_are_not_decoded_and_bad_images_are_named(tmp_path, photo):
    (tmp_path / 'in').mkdir()
    with Image.open(photo('coffee.png')) as image:
        exif = Image.Exif()
        exif[0x0112] = 6
        image.convert('RGB').save(tmp_path / 'in/a.jpg', exif=exif)
        turned = image.size[::-1]
    data = (tmp_path / 'in/a.jpg').read_bytes()
    (tmp_path / 'in/half.jpg').write_bytes(data[:len(data) // 2])  # its header is complete
    (tmp_path / 'in/b.jpg').write_bytes(b'')
    (tmp_path / 'in/c.jpg').write_bytes(b'text')
    Image.new('1', (300, 900)).save(tmp_path / 'in/d.png')
    Image.new('1', (70_000, 1)).save(tmp_path / 'in/e.png')
    summary = generate(open_source(tmp_path / 'in'), tmp_path / 's.arrow',
                       GenerateOptions(RandomBoxes(), max_pixels=250_000), SerialExecutor())
    store = ProposalStore.open(tmp_path / 's.arrow')
    assert [row.image for row in store] == ['a.jpg', 'half.jpg']
    assert store.size(0) == store.size(1) == turned
    assert [tuple(s) for s in summary.skipped] == [
        ('b.jpg', 'empty file'), ('c.jpg', 'not an image'),
        ('d.png', 'too large: 300x900 pixels, more than 250000'),
        ('e.png', 'too large: 70000x1 pixels, a side of more than 65535')]
    assert skipped_path(tmp_path / 's.arrow').exists()


def test_tool_makes_random_boxes_and_filters_them(tmp_path, small_photos):
    done = run_tool(small_photos, tmp_path / 's.arrow', '--source', 'random', '--num-boxes', 20,
                    '--seed', 4, '--min-size', 0.6, '--workers', 1)
    assert done.returncode == 0, done.stderr
    assert 'kernels' not in done.stdout
    metadata = ProposalStore.open(tmp_path / 's.arrow').metadata
    assert metadata['generator']['parameters'] == dict(num_boxes=20, seed=4)
    assert metadata['filter']['rules'][0]['min_size'] == 0.6
    counts = ProposalStore.open(tmp_path / 's.arrow').box_counts()
    assert 0 < counts.sum() < 6 * 20


@pytest.mark.parametrize('args, message', [
    (['--source', 'random', '--grid-stride', 1], '--grid-stride belongs to --source grid, not to '
     '--source random'),
    (['--seed', 0], '--seed belongs to --source random'),
    (['--source', 'grid', '--scales', 100], '--scales belongs to --source selective_search'),
    (['--source', 'official', '--boxes', 'x', '--max-boxes', 3], '--max-boxes belongs to --source '
     'coco'),
    (['--source', 'random', '--boxes', 'x'], '--boxes belongs to --source coco or official'),
    (['--source', 'coco'], '--boxes FILE'),
    (['--source', 'random', '--num-boxes', 0], '--num-boxes must be in 1'),
])
def test_flags_that_do_not_belong_are_refused(tmp_path, small_photos, args, message):
    done = run_tool(small_photos, tmp_path / 's.arrow', *args)
    assert done.returncode == 2 and 'Traceback' not in done.stderr
    assert message in ' '.join(done.stderr.split())
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_killed_run_of_random_boxes_gives_the_same_file(tmp_path, small_photos):
    (tmp_path / 'in').mkdir()
    for i in range(4000):
        os.link(small_photos / 'a.png', tmp_path / f'in/{i:04}.png')
    command = [sys.executable, str(Path(__file__).parents[2] / 'tools/generate_proposals.py'),
               str(tmp_path / 'in'), str(tmp_path / 's.arrow'), '--source', 'random']
    process = subprocess.Popen([*command, '--workers', '1'], stdout=subprocess.DEVNULL)
    parts = tmp_path / 's.arrow.parts'
    while len(list(parts.glob('*.arrow'))) < 20 and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL and not (tmp_path / 's.arrow').exists()
    done = subprocess.run([*command, '--workers', '2'], capture_output=True, text=True)
    assert 'were reused from an earlier run' in done.stdout, done.stderr
    generate(open_source(tmp_path / 'in'), tmp_path / 't.arrow', GenerateOptions(RandomBoxes()),
             SerialExecutor())
    assert (tmp_path / 's.arrow').read_bytes() == (tmp_path / 't.arrow').read_bytes()
