"""Tests of the import of boxes from json files: exact numbers, and errors for files that do not fit."""
import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from test_proposals.test_generate import _StopsAfter, run_tool

from projects.soco.proposals import ProposalStore
from projects.soco.proposals.executors import ProcessExecutor, SerialExecutor
from projects.soco.proposals.filters import get_filter
from projects.soco.proposals.formats import export_coco, export_official
from projects.soco.proposals.generate import GenerateOptions, generate
from projects.soco.proposals.imports import read_coco, read_official
from projects.soco.proposals.sources import open_source
from projects.soco.proposals.store_operations import validate_store

IMAGES = [dict(id=10, file_name='c.png', width=160, height=120),
          dict(id=3, file_name='./b/1.png')]


def write(path, content):
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def make(generator, images, out, executor=None, **options):
    summary = generate(open_source(images), out, GenerateOptions(generator, **options),
                       executor or SerialExecutor())
    return ProposalStore.open(out), summary


def content(store):
    return {store.name(i): store.regions(i).tolist() for i in range(len(store))}


def coco(*annotations, images=IMAGES):
    return dict(images=images, annotations=[dict(image_id=image, bbox=box, **more)
                                            for image, box, more in annotations])


def test_official_json_there_and_back(tmp_path, small_photos):
    boxes = {'a': [[1, 2, 30, 40], [1, 2, 30, 40]], '1': [], 'x': [[0, 0, 159, 119]]}
    generator = read_official(write(tmp_path / 'in.json', boxes))
    store, _ = make(generator, small_photos, tmp_path / 's.arrow')
    assert generator.notes == [f'3 images of {small_photos} are left out: {tmp_path}/in.json does '
                               f'not name them']
    assert [row.image for row in store] == ['a.png', 'b/1.png', 'b/deep/x.png']
    assert store.box_dtype == 'uint16' and store.size(0) == (160, 120)
    assert store.metadata['generator']['name'] == 'official'
    assert store.metadata['generator']['parameters']['file'] == 'in.json'
    export_official(store, tmp_path / 'out.json')
    assert json.loads((tmp_path / 'out.json').read_text()) == boxes
    assert sorted(p.name for p in tmp_path.iterdir()) == ['in.json', 'out.json', 's.arrow']


@pytest.fixture(scope='module')
def blank(tmp_path_factory):
    """Make four blank images of 640 × 480 pixels."""
    folder = tmp_path_factory.mktemp('blank')
    for i in range(4):
        Image.new('1', (640, 480)).save(folder / f'{i}.png')
    return folder


def _spans(most):
    """Draw start and length within a side, with 0 to many decimals."""
    numbers = (st.integers(0, most // 2) | st.floats(0, most // 2)
               | st.floats(0, most // 2).map(lambda value: round(value, 2)))
    return st.tuples(numbers, numbers)


BOXES = st.builds(lambda h, v: [h[0], v[0], h[1], v[1]], _spans(640), _spans(480))


@settings(max_examples=25, deadline=None,
          suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.lists(BOXES, max_size=4), min_size=1, max_size=4).filter(any))
def test_coco_json_there_and_back(tmp_path, blank, images):
    boxes = {f'{i}.png': value for i, value in enumerate(images)}
    write(tmp_path / 'in.json', coco(
        *((7 * i, box, {}) for i, value in enumerate(images) for box in value),
        images=[dict(id=7 * i, file_name=name, width=640, height=480)
                for i, name in enumerate(boxes)]))
    generate(open_source(blank), tmp_path / 's.arrow',
             GenerateOptions(read_coco(tmp_path / 'in.json')), SerialExecutor(), overwrite=True)
    store = ProposalStore.open(tmp_path / 's.arrow')
    assert validate_store(store) == []
    export_coco(store, tmp_path / 'out.json')
    back = json.loads((tmp_path / 'out.json').read_text())
    found = {image['file_name']: [a['bbox'] for a in back['annotations']
                                  if a['image_id'] == image['id']] for image in back['images']}
    assert found == boxes


def test_crowds_are_left_out_and_images_without_boxes_stay(tmp_path, small_photos):
    path = write(tmp_path / 'in.json', coco(
        (10, [5, 5, 50, 60.5], dict(iscrowd=0)), (10, [0, 0, 100, 100], dict(iscrowd=1))))
    generator = read_coco(path)
    store, summary = make(generator, small_photos, tmp_path / 's.arrow')
    assert content(store) == {'b/1.png': [], 'c.png': [[5, 5, 50, 60.5]]}
    assert store.box_dtype == 'float32' and summary.skipped == []
    assert '1 crowd regions are left out' in generator.notes


RESULTS = [dict(image_id=10, category_id=1, bbox=[i, i, 40, 40], score=score)
           for i, score in enumerate([0.3, 0.9, 0.1, 0.9, 0.5])]


@pytest.mark.parametrize('limits, kept', [
    ({}, [0, 1, 2, 3, 4]), (dict(min_score=0.5), [1, 3, 4]), (dict(max_boxes=3), [1, 3, 4]),
    (dict(max_boxes=1), [1]), (dict(min_score=0.2, max_boxes=9), [0, 1, 3, 4])])
def test_detection_results_and_their_scores(tmp_path, small_photos, limits, kept):
    write(tmp_path / 'results.json', RESULTS)
    write(tmp_path / 'images.json', dict(images=IMAGES))
    generator = read_coco(tmp_path / 'results.json', tmp_path / 'images.json', **limits)
    store, _ = make(generator, small_photos, tmp_path / 's.arrow')
    assert content(store) == {'b/1.png': [], 'c.png': [[i, i, 40, 40] for i in kept]}
    parameters = store.metadata['generator']['parameters']
    assert parameters['min_score'] == limits.get('min_score')
    assert parameters['images_json']['file'] == 'images.json'


def test_same_bytes_with_any_number_of_workers_and_after_a_stop(tmp_path, small_photos):
    boxes = {'a': [[1, 2, 30, 40]], '1': [[0.5, 2, 3, 4]], 'x': [[0, 0, 159, 119]], 'c': []}
    generator = read_official(write(tmp_path / 'in.json', boxes))
    make(generator, small_photos, tmp_path / '1.arrow')
    make(generator, small_photos, tmp_path / '2.arrow', ProcessExecutor(2))
    with pytest.raises(KeyboardInterrupt):
        make(generator, small_photos, tmp_path / '3.arrow', _StopsAfter(2))
    assert make(generator, small_photos, tmp_path / '3.arrow')[1].reused == 2
    whole = (tmp_path / '1.arrow').read_bytes()
    assert (tmp_path / '2.arrow').read_bytes() == whole == (tmp_path / '3.arrow').read_bytes()
    write(tmp_path / 'in.json', dict(boxes, a=[]))
    with pytest.raises(ValueError, match='generator.parameters.sha256'):
        make(read_official(tmp_path / 'in.json'), small_photos, tmp_path / '1.arrow')


def test_filters_apply_to_imported_boxes(tmp_path, small_photos):
    generator = read_official(write(tmp_path / 'in.json', {'a': [[0, 0, 31, 60], [0, 0, 60, 60]]}))
    store, _ = make(generator, small_photos, tmp_path / 's.arrow', box_filter=get_filter('side32'))
    assert content(store) == {'a.png': [[0, 0, 60, 60]]}
    assert store.metadata['filter']['name'] == 'side32'


def test_boxes_outside_their_image_are_named(tmp_path, small_photos):
    path = write(tmp_path / 'in.json', {'a': [[0, 0, 9, 9], [100, 0, 61, 9]], 'c': [[0, 0, 1, 1]]})
    store, summary = make(read_official(path), small_photos, tmp_path / 's.arrow')
    assert content(store) == {'c.png': [[0, 0, 1, 1]]}
    assert [tuple(row) for row in summary.skipped] == [
        ('a.png', 'box 1 (100, 0, 61, 9) extends beyond the image of 160 × 120 pixels')]
    with pytest.raises(ValueError, match='a.png: box 1 .* extends beyond the image'):
        generate(open_source(small_photos), tmp_path / 't.arrow',
                 GenerateOptions(read_official(path)), SerialExecutor(), strict=True)
    # boxes with fractions may extend beyond the image by a pixel, as annotations do
    path = write(tmp_path / 'in.json', {'a': [[-0.5, 0, 161, 120.9]], 'c': [[-1.5, 0, 9, 9]]})
    store, summary = make(read_official(path), small_photos, tmp_path / 'u.arrow')
    assert [row.image for row in store] == ['a.png'] and summary.skipped[0].image == 'c.png'


def test_images_of_another_size_are_named(tmp_path, small_photos):
    images = [dict(id=1, file_name='a.png', width=120, height=160),
              dict(id=2, file_name='c.png', width=160, height=120)]
    path = write(tmp_path / 'in.json', coco((1, [0, 0, 9, 9], {}), (2, [0, 0, 9, 9], {}),
                                            images=images))
    store, summary = make(read_coco(path), small_photos, tmp_path / 's.arrow')
    assert [row.image for row in store] == ['c.png']
    assert summary.skipped[0].reason == ('its boxes are for 120x160 pixels, but it has 160x120: '
                                         'perhaps it is turned by its EXIF data')


def test_images_of_another_data_set_are_named(tmp_path, small_photos):
    path = write(tmp_path / 'in.json', {'a': [[0, 0, 9, 9]], 'none': [], 'nil': []})
    with pytest.raises(ValueError, match='2 of 3 images that .*in.json names are not in .*; the '
                       'first is none'):
        make(read_official(path), small_photos, tmp_path / 's.arrow')
    one = dict(id=1, file_name='1.png')
    path = write(tmp_path / 'in.json', coco((1, [0, 0, 9, 9], {}), images=[one]))
    with pytest.raises(ValueError, match=f'1 of 1 .*1.png is in {small_photos}/b: give that as '
                       'IMAGES'):
        make(read_coco(path), small_photos, tmp_path / 's.arrow')
    twice = tmp_path / 'twice'
    (twice / 'b').mkdir(parents=True)
    for name in ('a.png', 'b/a.jpg'):
        (twice / name).write_bytes((small_photos / 'a.png').read_bytes())
    path = write(tmp_path / 'in.json', {'a': [[0, 0, 9, 9]]})
    with pytest.raises(ValueError, match=r'two images with the base name a \(a.png and b/a.jpg\)'):
        make(read_official(path), twice, tmp_path / 's.arrow')
    assert sorted(p.name for p in tmp_path.iterdir()) == ['in.json', 'twice']


BOX = '[1, 2, 3, 4]'


@pytest.mark.parametrize('text, message', [
    ('{"a": ', 'not a json file'), ('{}', 'looks like an empty object'),
    ('{"a": []}', 'contains no box for any of its 1 images'),
    ('[1]', 'looks like a list of int'), ('3', 'looks like a single int'),
    ('{"a": 3, "b": 4}', "looks like an object with the keys 'a', 'b'"),
    ('{"images": [], "annotations": []}', 'looks like a COCO json .*--source coco'),
    ('[{"image_id": 1, "bbox": [1, 1, 1, 1]}]', 'looks like COCO detection results'),
    ('{"a": [[1, 2, 3]]}', 'box 0 of the image a .* four numbers'),
    (f'{{"a": [{BOX}, [1, 2, 3, "4"]]}}', 'box 1 of the image a .* four numbers'),
    ('{"a": [{"x": 1}]}', 'box 0 of the image a .* four numbers'),
    ('{"a": [[1, 2, 3, NaN]]}', 'box 0 of the image a .* not finite'),
    ('{"a": [[1, 2, 3, 1e999]]}', 'not finite'),
    ('{"a": [[1, 2, 3, 1' + 400 * '0' + ']]}', 'not finite'),
    (f'{{"b": [], "a": [{BOX}, [9, 9, 3, -4]]}}', 'box 1 of the image a .*negative side')])
def test_other_official_files_are_refused(tmp_path, text, message):
    with pytest.raises(ValueError, match=message):
        read_official(write(tmp_path / 'in.json', text))


@pytest.mark.parametrize('content, limits, message', [
    ({}, {}, 'looks like an empty object'), ([], {}, 'looks like an empty list'),
    ({'a': [[1, 2, 3, 4]]}, {}, 'looks like an official SoCo json.*--source official'),
    (dict(images=IMAGES), {}, 'with images but without annotations'),
    (RESULTS, {}, 'detection results.*--images-json'),
    (coco(), {}, 'contains no box for any of its 2 images'),
    (coco((10, [1, 1, 1, 1], dict(iscrowd=1))), {}, r'contains no box.*\(1 crowd'),
    (coco((10, [1, 1, 1, 1], {}), (4, [1, 1, 1, 1], {})), {},
     r'1 of 2 boxes belong to images that .* annotations\[1\] .*image_id 4'),
    (coco(images=[*IMAGES, IMAGES[0]]), {}, 'lists the image c.png or its id twice'),
    (coco(images=[dict(id=1)]), {}, r'images\[0\] .* has no id, or no file_name'),
    (dict(images=IMAGES, annotations=[dict(image_id=10, caption='a')]), {},
     r'annotations\[0\] .* no image_id or no bbox'),
    (coco((10, [1, 1, 1, -1], {})), {}, 'box 0 of the image c.png .*negative side'),
    (coco((10, [1, 1, 1, 1], {})), dict(min_score=0.5), r'annotations\[0\] .* has no score'),
    (coco((10, [1, 1, 1, 1], {})), dict(images_json='in.json'), 'images of its own'),
    (coco((10, [1, 1, 1, 1], dict(score=0.4))), dict(min_score=0.5), r'contains no box .*scores'),
    (coco((10, [1, 1, 1, 1], dict(score=0.4))), dict(max_boxes=0), '--max-boxes must be'),
])
def test_other_coco_files_are_refused(tmp_path, content, limits, message):
    with pytest.raises(ValueError, match=message):
        read_coco(write(tmp_path / 'in.json', content), **limits)


def test_tool_imports(tmp_path, small_photos):
    write(tmp_path / 'results.json', RESULTS)
    write(tmp_path / 'images.json', dict(images=IMAGES))
    done = run_tool(small_photos, tmp_path / 's.arrow', '--source', 'coco', '--boxes',
                    tmp_path / 'results.json', '--images-json', tmp_path / 'images.json',
                    '--min-score', 0.5, '--max-boxes', 2, '--workers', 1)
    assert done.returncode == 0, done.stderr
    text = ' '.join(done.stdout.split())
    assert '3 boxes are left out by their scores' in text and '4 images of' in text
    assert content(ProposalStore.open(tmp_path / 's.arrow')) == {
        'b/1.png': [], 'c.png': [[1, 1, 40, 40], [3, 3, 40, 40]]}
    done = run_tool(small_photos, tmp_path / 't.arrow', '--source', 'official', '--boxes',
                    tmp_path / 'nowhere.json', '--workers', 1)
    assert done.returncode == 2 and 'there is no file' in done.stderr
    done = run_tool(small_photos, tmp_path / 't.arrow', '--source', 'official', '--workers', 1,
                    '--boxes', write(tmp_path / 'in.json', {'a': [[0, 0, 9, 9]], 'c': []}))
    assert done.returncode == 0 and len(ProposalStore.open(tmp_path / 't.arrow')) == 2
