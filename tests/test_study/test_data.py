"""Splits, classes and lists of a study."""
import json
from pathlib import Path

import pytest
from small import ROOT, make_photos

from projects.soco.datasets.coco_subset import with_images
from projects.soco.study.data import StudyData, with_classes
from projects.soco.study.plan import Study, read_study

CATEGORIES = [dict(id=3, name='cat', supercategory='animal'),
              dict(id=5, name='car', supercategory='car'),
              dict(id=9, name='dog', supercategory='animal')]


def content(photos: int) -> dict:
    names = [f'photo_{i:03}.png' for i in range(photos)]
    return dict(
        images=[dict(id=i, file_name=name, width=96, height=72) for i, name in enumerate(names)],
        annotations=[dict(id=2 * i + j, image_id=i, category_id=category, bbox=[10, 10, 40, 30],
                          area=1200, iscrowd=0)
                     for i in range(photos) for j, category in enumerate((3, 5))],
        categories=CATEGORIES)


@pytest.fixture
def study(monkeypatch: pytest.MonkeyPatch) -> Study:
    monkeypatch.chdir(ROOT)
    return read_study('configs/benchmarks/transfer_study/study_cpu.py')


@pytest.fixture
def root(tmp_path: Path) -> Path:
    make_photos(tmp_path / 'photos', 4)
    make_photos(tmp_path / 'coco_mini/images', 12)
    (tmp_path / 'coco_mini/annotations').mkdir()
    (tmp_path / 'coco_mini/annotations/train.json').write_text(json.dumps(content(12)))
    (tmp_path / 'coco_mini/annotations/val.json').write_text(json.dumps(content(3)))
    return tmp_path


def read(path: Path) -> dict:
    return json.loads(path.read_text())


def ids(path: Path) -> set[int]:
    return {row['id'] for row in read(path)['images']}


def test_supercategories_are_numbered_as_they_appear():
    changed = with_classes(content(1), 'folder', 'supercategory')
    assert changed['categories'] == [dict(id=1, name='animal'), dict(id=2, name='car')]
    assert [row['category_id'] for row in changed['annotations']] == [1, 2]
    assert changed['images'][0]['file_name'] == 'folder/photo_000.png'
    with pytest.raises(ValueError, match='supercategory'):
        with_classes({**content(1), 'categories': [dict(id=3, name='cat')]}, 'folder', 'supercategory')


def test_some_images_take_their_annotations_along():
    part = with_images(content(4), {1, 3})
    assert [row['id'] for row in part['images']] == [1, 3]
    assert {row['image_id'] for row in part['annotations']} == {1, 3}


def test_options_are_chosen_on_a_part_of_train_and_never_on_val(study: Study, root: Path):
    data = StudyData(study, root, root / 'made')
    data.prepare()
    tune, fit = ids(data.labels('tune')), ids(data.labels('fit'))
    assert tune | fit == ids(data.labels('train')) and not tune & fit and len(tune) == 4
    assert len(ids(data.labels('25', 0))) == 3
    assert ids(data.labels('25', 0)) != ids(data.labels('25', 1))
    assert ids(data.labels('100', 2)) == ids(data.labels('train'))


def test_unlabelled_photos_are_those_of_the_folder_and_of_train(study: Study, root: Path):
    data = StudyData(study, root, root / 'made')
    data.prepare()
    names = data.list_of('unlabelled').read_text().split()
    assert names == [f'photos/photo_{i:03}.png' for i in range(4)] + [
        f'coco_mini/images/photo_{i:03}.png' for i in range(12)]
    assert len(data.list_of('val').read_text().split()) == 3
    before = data.fingerprint()
    data.prepare()
    assert data.fingerprint() == before
    data.list_of('val').write_text('another.png')
    assert data.fingerprint() != before


def test_each_list_gets_its_stores(study: Study, root: Path, monkeypatch: pytest.MonkeyPatch):
    data, commands, code = StudyData(study, root, root / 'made'), [], 0

    def run(command: list[str], stop: object) -> int:
        commands.append(command)
        return code

    monkeypatch.setattr('projects.soco.study.data.run_command', run)
    data.generate_stores()
    assert [(command[1], command[2], command[-1]) for command in commands] == [
        (str(data.list_of(what)), str(data.store(boxes, what)), boxes) for what, boxes in (
            ('unlabelled', 'selective_search'), ('unlabelled', 'random'), ('val', 'selective_search'))]
    code = 2
    with pytest.raises(ValueError, match='generate_proposals.py .*unlabelled.txt .* failed'):
        data.generate_stores()


def test_what_is_not_there_is_named(study: Study, root: Path):
    with pytest.raises(FileNotFoundError, match='coco_mini/annotations/train.json'):
        StudyData(study, root / 'elsewhere', root / 'made').prepare()
    (root / 'coco_mini/images/photo_000.png').unlink()
    with pytest.raises(ValueError, match='Photos, of 12, that are not in .*photo_000.png'):
        StudyData(study, root, root / 'made').prepare()
