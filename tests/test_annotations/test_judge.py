"""What is mended in a COCO file, and what is refused, without looking at photos."""
import codecs
import copy
import json
import math
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from test_annotations.marks import marks

from projects.soco.annotations.classes import match_classes
from projects.soco.annotations.findings import MENDED, NOTE, REFUSED
from projects.soco.annotations.judge import judge_coco, read_coco
from projects.soco.annotations.read import read_categories, read_json, read_lines
from projects.soco.annotations.summary import count_classes


def edited(edit: Callable[[dict], object]) -> dict:
    content = marks()
    edit(content)
    return content


def each(table: str, **values: object) -> Callable[[dict], object]:
    return lambda c: [row.update(values) for row in c[table]]


def without(table: str, key: str, rows: slice = slice(None)) -> Callable[[dict], object]:
    return lambda c: [row.pop(key) for row in c[table][rows]]


def first(**values: object) -> Callable[[dict], object]:
    return lambda c: c['annotations'][0].update(values)


def test_nothing_is_found_in_a_clean_file() -> None:
    content = marks()
    before = copy.deepcopy(content)
    judged = judge_coco(content, 'a.json', masks=True)
    assert judged.findings == [] and content == before and not judged.mended
    assert judged.accept() is judged and judged.lines() == []


def roboflow(c: dict) -> None:
    """Roboflow's heading: category 0 without objects, named as the project or as a class."""
    c['categories'].insert(0, dict(id=0, name='car', supercategory='none'))
    for row in c['categories'][1:]:
        row['supercategory'] = 'car'


def as_text(c: dict) -> None:
    """Ids and boxes as text, as tools that go through tables write them."""
    for row in c['images']:
        row['id'] = str(row['id'])
    for row in c['annotations']:
        row.update(image_id=float(row['image_id']), bbox=[str(v) for v in row['bbox']], area='200.0')


def restart_ids(c: dict) -> None:
    for row in c['annotations']:
        row['id'] = (row['id'] - 1) % 2 + 1


def scale_boxes(c: dict) -> None:
    for row in c['annotations']:
        row['bbox'] = [row['bbox'][0] / 60, row['bbox'][1] / 40, 20 / 60, 10 / 40]


def to_corners(c: dict) -> None:
    for row in c['annotations']:
        row['bbox'] = [40, 20, 59, 39]


def bytes_as_text(c: dict) -> None:
    """`str(mask.encode(...))`: compressed counts as Python prints bytes; a backslash is doubled."""
    c['annotations'][0]['segmentation'] = dict(size=[40, 60], counts=str(b'`0\\1N'))


MENDS = {
    'annotations without iscrowd, taken as 0: 6': without('annotations', 'iscrowd'),
    'annotations without iscrowd, taken as 0: 1': first(iscrowd=None),
    'values of iscrowd in another form, written as 0 or 1: 6': each('annotations', iscrowd=False),
    "values of iscrowd in another form, written as 0 or 1: 1 .*'0'": first(iscrowd='0'),
    'annotations without area, computed: 6': without('annotations', 'area'),
    'areas that are not a positive number.*: 1 .*: nan': first(area=float('nan')),
    'areas that are not a positive number.*: 1 .*: 0': first(area=0),
    'areas that are not a positive number.*: 1 .*: -200': first(area=-200),
    r'annotation ids .*numbered from 1\): 4 .annotations\[2\] has the id 1, as has annotations\[0\]':
        restart_ids,
    r'annotation ids .*: 1 .annotations\[0\] has no id': without('annotations', 'id', slice(1)),
    "annotation ids .*: 1 .*the id '4f-1'": first(id='4f-1'),
    'annotation ids .*: 1 .*counts a match with id 0 as a miss': first(id=0),
    "image ids that are numbers in another form.*: 9 .id '1'": as_text,
    'category ids that are numbers in another form.*: 6': lambda c: [
        row.update(category_id=str(row['category_id'])) for row in c['annotations']],
    'boxes of numbers as text, written as numbers: 6': as_text,
    'annotations without bbox, taken from their polygons: 2': lambda c: [
        c['annotations'][0].pop('bbox'), c['annotations'][1].update(bbox=[])],
    'boxes that stick out of their photo by over 2 pixels, clipped: 1 .*in .0.png. of 60x40':
        first(bbox=[50, 30, 20, 9.5]),
    "sizes of images in another form.*: 1 .*'60'": lambda c: c['images'][0].update(width='60'),
    'entries of images that are listed twice, kept once: 1': lambda c: c['images'].append(
        dict(c['images'][0])),
    'entries of categories that are listed twice, kept once: 1': lambda c: c['categories'].append(
        dict(c['categories'][0])),
    "class names of several categories, joined: 1 .'car' with the ids 0, 1": roboflow,
    "class names of several categories, joined: 1 .'car' with the ids 1, 2": lambda c: c[
        'categories'][1].update(name='car'),
    'category names that are numbers, taken as text: 1': lambda c: c['categories'][0].update(name=7),
    'masks in another form.*: 1 .*5, 6, 25': lambda c: c['annotations'][0].update(
        segmentation=c['annotations'][0]['segmentation'][0]),
    'masks in another form.*: 2': lambda c: [
        c['annotations'][0]['segmentation'].append([1, 1, 2, 2]),
        c['annotations'][1].update(segmentation=[[[6, 6], [26, 6], [26, 16]]])],
    'masks in another form.*: 1 ': bytes_as_text,
}


@pytest.mark.parametrize('message', MENDS)
def test_what_has_one_meaning_is_mended(message: str) -> None:
    content = edited(MENDS[message])
    judged = judge_coco(content, 'a.json', masks=True).accept()
    assert judged.mended and any(re.match(message, f.line()) for f in judged.of(MENDED)), judged.lines()
    assert re.match('a.json, mended in memory: [A-Z]', judged.lines()[0])
    again = judge_coco(content, 'a.json', masks=True)
    assert not again.mended and not again.of(REFUSED)  # nothing is left to mend
    wanted = marks()
    for row in content['annotations']:
        assert set(map(type, row['bbox'])) <= {int, float} and row['iscrowd'] in (0, 1)
        assert row['area'] > 0 and type(row['id']) is int and row['id'] > 0
        assert row['image_id'] in [1, 2, 3]
    assert len(content['annotations']) == len(wanted['annotations'])
    assert [row['file_name'] for row in content['images']] == ['0.png', '1.png', '2.png']


def test_the_mended_values() -> None:
    assert edited(roboflow)['categories'][0]['id'] == 0
    content = edited(roboflow)
    judge_coco(content, 'a.json').accept()
    assert [row['id'] for row in content['categories']] == [1, 2]  # the one with objects
    content = edited(lambda c: c['annotations'][0].update(
        area=None, segmentation=[[5, 6, 25, 6, 5, 16]]))
    judge_coco(content, 'a.json').accept()
    assert content['annotations'][0]['area'] == 100  # of the triangle
    content = edited(first(area=200, bbox=[50, 36, 20, 10]))
    judge_coco(content, 'a.json').accept()
    assert content['annotations'][0]['bbox'] == [50, 36, 10, 4]
    assert content['annotations'][0]['area'] == 40
    content = edited(bytes_as_text)
    judge_coco(content, 'a.json').accept()
    assert content['annotations'][0]['segmentation']['counts'] == '`0\\1N'


REFUSALS = {
    "missing keys: 1 .no key 'categories'": lambda c: c.pop('categories'),
    'annotations should be a list, but is a dict': lambda c: c.update(annotations={}),
    r'images\[1\] should be an object': lambda c: c['images'].insert(1, 'b.png'),
    'entries of images without an id: 1': without('images', 'id', slice(1)),
    r'entries of images with an id of another one: 1 .images\[1\] has the id 1': lambda c: c[
        'images'][1].update(id=1),
    r'image_id of no entry of images: 1 .annotations\[0\] .id 1. has image_id 77': first(image_id=77),
    r'category_id of no entry of categories: 1 .*has category_id 9': first(category_id=9),
    r"category_id of no entry of categories: 1 .*has no key 'category_id'": without(
        'annotations', 'category_id', slice(1)),
    r'boxes that are not four numbers: 1 .*\[1, 2, 3, 4, 5\]': first(bbox=[1, 2, 3, 4, 5]),
    r'boxes that are not four numbers: 1 .*\[1, 2, 3\]': first(bbox=[1, 2, 3]),
    r'boxes that are not four numbers: 1 .*has no bbox': lambda c: [
        c['annotations'][0].pop(key) for key in ('bbox', 'segmentation')],
    r"boxes that are not four numbers: 1 .*'x': 1": first(bbox=dict(x=1, y=2, w=3, h=4)),
    r'boxes that are not four numbers: 1 .*None': first(bbox=[1, 2, None, 4]),
    r'not a finite number: 1 .annotations\[0\] .*nan': first(bbox=[1, 2, float('nan'), 4]),
    'not a finite number: 1 .*inf': first(bbox=[1, 2, float('inf'), 4]),
    'negative width or height: 1 .*-4': first(bbox=[10, 10, 5, -4]),
    'boxes outside of their photo: 1 .*500, 1, 9, 9.* of 60x40': first(bbox=[500, 1, 9, 9]),
    "boxes that look like shares of the photo's size": scale_boxes,
    'boxes that look like corners .x1, y1, x2, y2.': to_corners,
    "iscrowd that are neither 0 nor 1: 1 .*'maybe'": first(iscrowd='maybe'),
    r"images without a file name: 3 .images\[0\] .id 1. has no file_name, but 'path'": lambda c: [
        row.update(path=row.pop('file_name')) for row in c['images']],
    "listed under several ids: 1 .'0.png' with the ids 1, 2": lambda c: c['images'][1].update(
        file_name='0.png'),
    'categories without a name: 1 .category 1: None': without('categories', 'name', slice(1)),
    'with different supercategories: 1': lambda c: [
        c['categories'][0].update(name='bat', supercategory='animal'),
        c['categories'][1].update(name='bat', supercategory='sports')],
    r'without a mask .segmentation., which this detector needs: 1 .annotations\[0\] .id 1': first(
        segmentation=[]),
    'objects, of 6, without a mask .*: 6 .*own_photos/faster-rcnn_effnetlite0_fpn.py': without(
        'annotations', 'segmentation'),
    'objects, of 6, without a mask .*: 1': first(segmentation=[[1, 2, 3, 4]]),
    'masks that cannot be read: 1 .*7 numbers': first(segmentation=[[1, 2, 3, 4, 5, 6, 7]]),
    'masks that cannot be read: 1 .*not finite': first(segmentation=[[1, 2, 3, float('nan'), 5, 6]]),
    r'masks that cannot be read: 1 .*of \[60, 40\]': first(
        segmentation=dict(size=[60, 40], counts='a')),
}


@pytest.mark.parametrize('message', REFUSALS)
def test_what_has_no_meaning_is_refused_with_its_entry(message: str) -> None:
    judged = judge_coco(edited(REFUSALS[message]), 'some/a.json', masks=True)
    with pytest.raises(ValueError, match=f'(?i)some/a.json cannot be used. .*{message}') as error:
        judged.accept()
    assert str(error.value).endswith('python tools/check_annotations.py some/a.json')


@pytest.mark.parametrize('message, edit', [
    ('photos without an object: 1', lambda c: c['annotations'].__delitem__(slice(4, 6))),
    ("classes without an object: 1 .'cup'", lambda c: c['categories'].append(dict(id=3, name='cup'))),
    ('boxes of less than a pixel.*: 1 ', lambda c: c['annotations'][0].update(
        bbox=[5, 6, 0, 10], area=0, segmentation=[[5, 6, 5, 10, 5, 16]])),
    (r'objects that are listed twice.*: 1 .annotations\[4\] .id 5.', lambda c: c['annotations'].insert(
        4, {**c['annotations'][2], 'id': 5}) or c['annotations'][5].update(id=9)),
    ('annotations with "ignore".*: 1 ', first(ignore=1)),
    ('objects, of 6, without a mask .boxes need none.: 1', first(segmentation=[])),
    ('masks that cannot be read, and are not used: 1', first(segmentation=[[1, 2, 3, 4, 5, 6, 7]]))])
def test_what_is_only_noted(message: str, edit: Callable) -> None:
    content = edited(edit)
    before = copy.deepcopy(content)
    judged = judge_coco(content, 'a.json').accept()
    assert [f.level for f in judged.findings] == [NOTE] and content == before
    assert re.match(message, judged.findings[0].line()), judged.lines()


ODD = (None, '', 'x', -1, 0, 1.5, float('nan'), float('inf'), True, 10**400, [], {}, [[]], [None] * 4,
       [[1, 2], 3, 4, 5], ['1', '2', '3', 'x'], dict(counts=[], size=None), '\ud800', '9' * 5000)


def places(node: object, place: tuple = ()) -> Iterator[tuple]:
    if place:
        yield place
    if isinstance(node, (dict, list)):
        for key, value in node.items() if isinstance(node, dict) else enumerate(node):
            yield from places(value, (*place, key))


@pytest.mark.parametrize('masks', [False, True])
def test_no_value_anywhere_is_more_than_refused(masks: bool, tmp_path: Path) -> None:
    """Whatever stands in one place: it is judged, and what is accepted serves pycocotools and mmdet."""
    for place in places(marks(photos=1)):
        for value in ODD:
            content = marks(photos=1)
            node = content
            for key in place[:-1]:
                node = node[key]
            node[place[-1]] = copy.deepcopy(value)
            judged = judge_coco(content, 'a.json', masks)
            if judged.of(REFUSED):
                with pytest.raises(ValueError, match='a.json cannot be used'):
                    judged.accept()
                continue
            match_classes(judged, ['car', 'bird'])
            count_classes(content)
            for row in content['annotations']:
                assert set(map(type, row['bbox'])) <= {int, float} and len(row['bbox']) == 4
                assert all(map(math.isfinite, row['bbox'])) and math.isfinite(row['area'])
                assert row['iscrowd'] in (0, 1) and row['id'] > 0
                assert row['image_id'] in [image['id'] for image in content['images']]
            again = judge_coco(json.loads(json.dumps(content)), 'a.json', masks)
            assert not again.mended and not again.of(REFUSED), (place, value)


def test_boxes_only_need_no_masks() -> None:
    assert judge_coco(edited(without('annotations', 'segmentation')), 'a.json').findings == []


def test_all_kinds_are_found_in_one_go() -> None:
    content = edited(first(bbox=[1, 2, 3], iscrowd=5))
    content['annotations'][1]['bbox'] = [1, 2, float('nan'), 4]
    judged = judge_coco(content, 'a.json')
    assert len(judged.of(REFUSED)) == 3


@pytest.mark.parametrize('encoding, mark', [
    ('utf-8', codecs.BOM_UTF8), ('utf-16-le', codecs.BOM_UTF16_LE), ('utf-16-be', codecs.BOM_UTF16_BE)])
def test_byte_order_marks(encoding: str, mark: bytes, tmp_path: Path) -> None:
    path = tmp_path / 'a.json'
    path.write_bytes(mark + json.dumps(marks(), ensure_ascii=False).encode(encoding))
    assert read_coco(path).accept().content == marks()
    assert read_categories(path) == ['car', 'bird']


def test_files_that_are_no_coco_json_are_named(tmp_path: Path) -> None:
    path = tmp_path / 'a.json'
    for data, message in (
            (b'', 'not a json file'), (b'{"images": [', 'truncated'), (b'\xe9', 'not in UTF-8.*byte 0'),
            (b'[' * 100_000, 'nested too deeply|not a json')):
        path.write_bytes(data)
        with pytest.raises(ValueError, match=f'a.json is .*{message}'):
            read_json(path)
    with pytest.raises(FileNotFoundError, match='there is no file .*b.json'):
        read_json(tmp_path / 'b.json')
    for content, hint in ((dict(shapes=[], imagePath='x'), 'labelme'), (dict(_via_settings={}), 'VIA'),
                          ([dict(image_id=1, score=.5)], 'predictions'),
                          ([dict(data={}, annotations=[])], 'Label Studio')):
        with pytest.raises(ValueError, match=f'a.json cannot be used.*{hint}'):
            judge_coco(content, 'a.json').accept()
        path.write_text(json.dumps(content))
        with pytest.raises(ValueError, match=f'a.json has no list "categories".*{hint}'):
            read_categories(path)


def test_a_list_loses_no_line_to_a_byte_order_mark(tmp_path: Path) -> None:
    path = tmp_path / 'list.txt'
    path.write_bytes(codecs.BOM_UTF8 + 'ä.jpg\r\n\r\n b.jpg \n'.encode())
    assert read_lines(path) == ['ä.jpg', 'b.jpg']
    path.write_bytes('ä.jpg'.encode('latin-1'))
    with pytest.raises(ValueError, match='list.txt is not a text file in UTF-8.*byte 0'):
        read_lines(path)


def test_objects_are_counted_by_class_and_size() -> None:
    content = marks()
    content['annotations'][0].update(area=32**2)
    content['annotations'][2].update(area=96**2, iscrowd=0)
    content['annotations'][1].update(iscrowd=1)
    car, bird = count_classes(content)
    assert car == ('car', 1, 3, 3, dict(small=1, medium=1, large=1), 0)
    assert (bird.objects, bird.photos, bird.crowds) == (2, 2, 1)
