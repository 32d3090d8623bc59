"""The hand-made annotation matches the photos that ship with the installed packages."""
import contextlib
import importlib.util
import io
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

ANNOTATIONS = Path(__file__).parents[1] / 'configs/_base_/datasets/quickstart_coco.json'
PHOTOS = {
    'skimage/data': ('astronaut.png', 'chelsea.png', 'coffee.png', 'motorcycle_left.png',
                     'motorcycle_right.png', 'rocket.jpg'),
    'sklearn/datasets/images': ('china.jpg', 'flower.jpg'),
}
CURVED = {'face', 'cat', 'cup', 'spoon', 'motorcycle', 'motorcycle wheel', 'rocket', 'flower'}


def photo_paths() -> dict[str, Path]:
    """Return file name -> path of the packaged photos, without importing the packages."""
    paths = {}
    for folder, names in PHOTOS.items():
        package, _, rest = folder.partition('/')
        root = Path(importlib.util.find_spec(package).origin).parent
        paths.update({name: root / rest / name for name in names})
    return paths


@pytest.fixture(scope='module')
def content() -> dict:
    return json.loads(ANNOTATIONS.read_text(encoding='utf-8'))


@pytest.fixture(scope='module')
def objects(content) -> list[tuple[dict, dict, np.ndarray]]:
    """Return each annotation with its image record and its polygon (n, 2)."""
    images = {image['id']: image for image in content['images']}
    found = []
    for annotation in content['annotations']:
        assert len(annotation['segmentation']) == 1
        polygon = np.array(annotation['segmentation'][0], dtype=np.float64).reshape(-1, 2)
        found.append((annotation, images[annotation['image_id']], polygon))
    return found


def test_images_are_the_packaged_photos_in_their_sizes(content):
    paths = photo_paths()
    assert {image['file_name'] for image in content['images']} == set(paths)
    for image in content['images']:
        with Image.open(paths[image['file_name']]) as photo:
            assert photo.size == (image['width'], image['height']), image['file_name']


def test_records_are_complete(content):
    for group, fields in (
            ('images', ('id', 'file_name', 'width', 'height')),
            ('annotations',
             ('id', 'image_id', 'category_id', 'bbox', 'area', 'segmentation', 'iscrowd')),
            ('categories', ('id', 'name', 'supercategory'))):
        ids = [record['id'] for record in content[group]]
        assert ids == list(range(1, len(ids) + 1)), group
        for record in content[group]:
            assert set(fields) <= set(record), (group, record['id'])
    assert all(annotation['iscrowd'] == 0 for annotation in content['annotations'])
    assert 'Apache-2.0' in content['info']['description']
    assert any('Apache' in licence['name'] for licence in content['licenses'])


def test_every_image_and_every_category_is_used(content):
    annotations = content['annotations']
    assert ({annotation['category_id'] for annotation in annotations}
            == {category['id'] for category in content['categories']})
    assert ({annotation['image_id'] for annotation in annotations}
            == {image['id'] for image in content['images']})


def test_polygons_are_inside_and_fine_enough(content, objects):
    names = {category['id']: category['name'] for category in content['categories']}
    for annotation, image, polygon in objects:
        assert (polygon >= 0).all(), annotation['id']
        assert (polygon <= [image['width'], image['height']]).all(), annotation['id']
        if names[annotation['category_id']] in CURVED:
            assert len(polygon) >= 10, annotation['id']


def test_bbox_and_area_come_from_the_polygon(objects):
    for annotation, _, polygon in objects:
        low, high = polygon.min(0), polygon.max(0)
        assert annotation['bbox'] == [*low, *(high - low)], annotation['id']
        x, y = polygon.T
        shoelace = abs(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))) / 2
        assert annotation['area'] == shoelace, annotation['id']


def test_area_agrees_with_the_mask(objects):
    """The shoelace area of a self-intersecting polygon differs from the area of its mask."""
    for annotation, image, _ in objects:
        encoded = coco_mask.merge(
            coco_mask.frPyObjects(annotation['segmentation'], image['height'], image['width']))
        assert annotation['area'] == pytest.approx(int(coco_mask.area(encoded)), rel=.02)


def test_pycocotools_loads_it(content):
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO(str(ANNOTATIONS))
    assert len(coco.getImgIds()) == 8
    assert len(coco.getAnnIds()) == len(content['annotations'])
    for annotation in coco.loadAnns(coco.getAnnIds()):
        x, y, w, h = (int(value) for value in annotation['bbox'])
        mask = coco.annToMask(annotation)
        assert mask.sum() == mask[y:y + h, x:x + w].sum() > 0


@pytest.mark.parametrize('name, category, channel', [
    ('china.jpg', 'building', 2),
    ('coffee.png', 'spoon', 2),
    ('flower.jpg', 'flower', 0),
    ('rocket.jpg', 'rocket', 0),
])
def test_masks_lie_on_the_photographed_things(content, objects, name, category, channel):
    """Moving a mask by 6 px in any direction reduces the contrast between object and surroundings.

    The contrast is measured against a ring around the mask, in the colour channel where the object
    stands out most.
    """
    names = {record['id']: record['name'] for record in content['categories']}
    annotation, image = next(
        (annotation, image) for annotation, image, _ in objects
        if (image['file_name'], names[annotation['category_id']]) == (name, category))
    values = cv2.imread(str(photo_paths()[name]))[..., 2 - channel].astype(np.float64)
    mask = coco_mask.decode(coco_mask.merge(coco_mask.frPyObjects(
        annotation['segmentation'], image['height'], image['width'])))

    def contrast(dx: int, dy: int) -> float:
        moved = cv2.warpAffine(mask, np.float64([[1, 0, dx], [0, 1, dy]]), mask.shape[::-1])
        ring = cv2.dilate(moved, np.ones((15, 15), np.uint8)) - moved
        return abs(values[moved > 0].mean() - values[ring > 0].mean())

    assert all(contrast(0, 0) > contrast(*step) for step in ((6, 0), (-6, 0), (0, 6), (0, -6)))
