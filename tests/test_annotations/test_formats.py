"""VOC XML and YOLO text files as COCO jsons."""
import json
from pathlib import Path

import pytest
from PIL import Image

from projects.soco.annotations.formats import as_coco, is_coco, read_as_coco
from projects.soco.annotations.judge import judge_coco
from projects.soco.annotations.photos import PhotoTree

SIZE = (80, 60)


def photo(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new('RGB', SIZE).save(path)
    return path


def text(path: Path, content: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    return path


def xml(path: Path, *objects: tuple, difficult: int = 0) -> Path:
    parts = ''.join(
        f'<object><name>{name}</name><difficult>{difficult}</difficult><bndbox><xmin>{x}</xmin>'
        f'<ymin>{y}</ymin><xmax>{u}</xmax><ymax>{v}</ymax></bndbox></object>'
        for name, x, y, u, v in objects)
    return text(path, '<annotation><size><width>80</width><height>60</height></size>'
                      f'{parts}</annotation>')


@pytest.fixture
def yolo(tmp_path: Path) -> Path:
    """A data set as YOLO has it: two splits with photos of the same names."""
    for split in ('train', 'val'):
        for name in ('a', 'b'):
            photo(tmp_path / f'images/{split}/{name}.jpg')
        text(tmp_path / f'labels/{split}/a.txt', '1 0.5 0.5 0.25 0.5\n\n0 0.25 0.25 0.5 0.5\n')
    text(tmp_path / 'data.yaml', 'train: images/train\nnames: {0: cat, 1: dog}\n')
    return tmp_path


def test_yolo_boxes_are_in_pixels_and_photos_without_a_file_are_empty(yolo: Path):
    told: list[str] = []
    path = as_coco(yolo / 'labels/train', yolo / 'images', yolo / 'work', told.append)
    content = json.loads(path.read_text())
    assert path.parent == yolo / 'work/annotations'
    assert [row['file_name'] for row in content['images']] == ['train/a.jpg', 'train/b.jpg']
    assert content['images'][0]['width'] == 80
    assert [row['name'] for row in content['categories']] == ['cat', 'dog']
    assert [(row['image_id'], row['category_id'], row['bbox']) for row in content['annotations']] == [
        (1, 2, [30, 15, 20, 30]), (1, 1, [0, 0, 40, 30])]
    assert f'YOLO text, 2 photos with 2 objects, written as a COCO json to {path}' in told[0]
    assert "without objects: 1 ('train/b.jpg')" in told[1]
    before = path.stat().st_mtime_ns
    assert as_coco(yolo / 'labels/train', yolo / 'images', yolo / 'work', told.append) == path
    assert path.stat().st_mtime_ns == before
    judged = judge_coco(content, path, photos=PhotoTree(yolo / 'images'), sizes=True)
    assert not judged.of('refused') and not judged.mended


def test_photos_that_cannot_be_read_are_named(yolo: Path):
    (yolo / 'images/train/b.jpg').write_bytes(b'no photo')
    with pytest.raises(ValueError, match="Photos that cannot be read: 1 .'train/b.jpg': not an image"):
        as_coco(yolo / 'labels/train', yolo / 'images', yolo / 'work')


def test_yolo_polygons_are_masks(yolo: Path):
    text(yolo / 'labels/val/a.txt', '0 0.25 0.5 0.75 0.5 0.75 1\n')
    content = read_as_coco(yolo / 'labels/val', yolo / 'images').accept().content
    assert content['annotations'][0]['segmentation'] == [[20, 30, 60, 30, 60, 60]]
    assert content['annotations'][0]['bbox'] == [20, 30, 40, 30]


@pytest.mark.parametrize('line, message', [
    ('2 .5 .5 .1 .1', r'a.txt, line 1: class 2 is not one of the 2, 0 to 1'),
    ('0.5 .5 .5 .1 .1', 'line 1: class 0.5 is not one'),
    ('-1 .5 .5 .1 .1', 'line 1: class -1 is not one'),
    ('0 .5 1.5 .1 .1', 'line 1: 1.5 is not within 0 and 1'),
    ('0 30 20 10 10', 'line 1: 30 is not within 0 and 1'),
    ('0 .5 .5 nan .1', 'something that is not a number'),
    ('cat .5 .5 .1 .1', 'something that is not a number'),
    ('0 .5 .5 .1', 'it has 4 numbers'), ('0 .5 .5 .1 .1 .9', 'it has 6 numbers'),
    ('0 .5 .5 0 .1', 'no width'),
])
def test_wrong_lines_of_yolo_are_refused(yolo: Path, line: str, message: str):
    text(yolo / 'labels/train/a.txt', line)
    with pytest.raises(ValueError, match=f'labels/train cannot be used.*{message}'):
        as_coco(yolo / 'labels/train', yolo / 'images', yolo / 'work')
    assert not (yolo / 'work').exists()


@pytest.mark.parametrize('content, message', [
    ('train: x', 'data.yaml has no names'), ('names: {1: cat, 2: dog}', 'must be 0 to 1'),
    ('names: [', 'is not a file in YAML'), (None, 'names of their classes are not known')])
def test_yolo_without_names_is_refused(yolo: Path, content: str | None, message: str):
    (yolo / 'data.yaml').unlink()
    if content:
        text(yolo / 'data.yaml', content)
    with pytest.raises(ValueError, match=message):
        read_as_coco(yolo / 'labels/train', yolo / 'images')
    text(yolo / 'labels/train/classes.txt', 'cat\ndog\n')  # beside the files: found first
    assert read_as_coco(yolo / 'labels/train', yolo / 'images').accept().content['categories'] == [
        dict(id=1, name='cat'), dict(id=2, name='dog')]


def test_voc_corners_count_from_one_and_difficult_objects_do_not_count(tmp_path: Path):
    photo(tmp_path / 'JPEGImages/a.jpg')
    photo(tmp_path / 'JPEGImages/b.png')
    xml(tmp_path / 'Annotations/a.xml', ('dog', 1, 11, 21, 31), ('cat', 5, 5, 9, 9))
    xml(tmp_path / 'Annotations/b.xml', ('dog', 5, 5, 9, 9), difficult=1)
    judged = read_as_coco(tmp_path / 'Annotations', tmp_path / 'JPEGImages').accept()
    rows = judged.content['annotations']
    assert [row['name'] for row in judged.content['categories']] == ['cat', 'dog']
    assert [(row['category_id'], row['bbox'], row['iscrowd']) for row in rows] == [
        (2, [0, 10, 20, 20], 0), (1, [4, 4, 4, 4], 0), (2, [4, 4, 4, 4], 1)]
    # A split is a list of names; a class of train without an object in val keeps its place.
    split = text(tmp_path / 'ImageSets/Main/val.txt', 'b\n')
    judged = read_as_coco(split, tmp_path, ['bird', 'cat', 'dog']).accept()
    assert [row['file_name'] for row in judged.content['images']] == ['JPEGImages/b.png']
    assert [row['name'] for row in judged.content['categories']] == ['bird', 'cat', 'dog']
    assert judged.content['annotations'][0]['category_id'] == 3


@pytest.mark.parametrize('box, message', [
    (('dog', 9, 5, 5, 9), 'a.xml, object 1'), (('dog', 1, 'x', 5, 9), 'ymin x'),
    (('', 1, 1, 5, 9), 'Objects without a name')])
def test_wrong_objects_of_voc_are_refused(tmp_path: Path, box: tuple, message: str):
    photo(tmp_path / 'a.jpg')
    xml(tmp_path / 'a.xml', box)
    with pytest.raises(ValueError, match=message):
        read_as_coco(tmp_path, tmp_path).accept()
    text(tmp_path / 'a.xml', '<annotation>')
    with pytest.raises(ValueError, match='XML files that cannot be read'):
        read_as_coco(tmp_path, tmp_path).accept()


def test_what_is_missing_is_named(yolo: Path):
    (yolo / 'images/train/a.jpg').unlink()
    (yolo / 'images/val/a.jpg').unlink()
    with pytest.raises(ValueError, match='without exactly one photo of their name.*train/a.txt'):
        as_coco(yolo / 'labels/train', yolo / 'images', yolo / 'work')
    (yolo / 'none').mkdir()
    for path, images, message in (
            ('none', 'images', 'contains no annotation file'), ('labels/train', 'nowhere', 'no folder'),
            ('labels/no.txt', 'images', 'no annotations at'),
            ('data.yaml', 'images', 'no file of annotations'),
            ('labels/train/a.txt', 'images', 'no folder Annotations/')):
        with pytest.raises((ValueError, FileNotFoundError), match=message):
            as_coco(yolo / path, yolo / images, yolo / 'work')
    assert is_coco(yolo / 'train.json') and as_coco('x.json', 'nowhere', 'work') == Path('x.json')


def test_the_same_name_in_two_folders_is_the_one_of_the_split(yolo: Path):
    both = read_as_coco(yolo / 'labels', yolo).accept().content
    assert [row['file_name'] for row in both['images'][:2]] == [
        'images/train/a.jpg', 'images/val/a.jpg']
    text(yolo / 'elsewhere/a.txt', '0 .5 .5 .1 .1')
    text(yolo / 'elsewhere/classes.txt', 'cat')
    assert read_as_coco(yolo / 'elsewhere', yolo).of('refused')[0].examples == (
        str(yolo / 'elsewhere/a.txt'), )
