"""The data of a study: classes, and photos for pretraining."""
import json
from pathlib import Path

import pytest
from small import make_photos, write_set

from projects.soco.proposals.sources import open_source
from projects.soco.study import data as data_module
from projects.soco.study.data import annotations_of, generate_store, photos_of, with_supercategories
from projects.soco.study.plan import DataSet

SET = DataSet(images='photos', train='train.json', val='val.json')
CATEGORIES = [dict(id=3, name='cat', supercategory='animal'),
              dict(id=5, name='car', supercategory='vehicle'),
              dict(id=9, name='dog', supercategory='animal')]


def test_supercategories_are_numbered_as_they_appear():
    content = dict(images=[], categories=CATEGORIES,
                   annotations=[dict(id=i, category_id=c) for i, c in enumerate((9, 5, 3))])
    made = with_supercategories(content, Path('train.json'))
    assert made['categories'] == [dict(id=1, name='animal'), dict(id=2, name='vehicle')]
    assert [row['category_id'] for row in made['annotations']] == [1, 2, 1]
    assert content['annotations'][0]['category_id'] == 9
    with pytest.raises(ValueError, match='A category of train.json has no supercategory'):
        with_supercategories({**content, 'categories': [dict(id=3, name='cat')]}, Path('train.json'))


def test_annotations_are_those_of_the_files_or_copies_with_other_classes(tmp_path: Path):
    write_set(tmp_path)
    assert annotations_of(SET, tmp_path, tmp_path / 'work') == (tmp_path / 'train.json',
                                                                tmp_path / 'val.json')
    for split in ('train', 'val'):
        content = json.loads((tmp_path / f'{split}.json').read_text())
        content['categories'] = [dict(row, supercategory='animal') for row in content['categories']]
        (tmp_path / f'{split}.json').write_text(json.dumps(content))
    by_group = DataSet('photos', 'train.json', 'val.json', classes='supercategory')
    train, val = annotations_of(by_group, tmp_path, tmp_path / 'work')
    assert train == tmp_path / 'work/train_supercategory.json' and val.is_file()
    assert json.loads(train.read_text())['categories'] == [dict(id=1, name='animal')]
    with pytest.raises(FileNotFoundError, match='There is no .*nowhere/train.json. --data must be'):
        annotations_of(SET, tmp_path / 'nowhere', tmp_path / 'work')


def test_pretraining_sees_the_photos_of_train_and_of_folders_without_labels(tmp_path: Path):
    photos, train, val = write_set(tmp_path)
    assert photos_of(SET, train, val, tmp_path, tmp_path / 'work') == (train, photos)
    make_photos(tmp_path / 'more', 3, seed=5)

    def seen(*folders: str, train: Path = train) -> list[str]:
        listed, root = photos_of(DataSet('photos', 'train.json', 'val.json', unlabelled=folders), train,
                                 val, tmp_path, tmp_path / 'work')
        return open_source(listed, root).names()

    names = seen('more')
    assert len(names) == 4 + 3 and 'photos/photo_000.png' in names and 'more/photo_002.png' in names
    assert 'photos/photo_005.png' not in names  # of val
    assert 'photos/photo_005.png' not in seen('photos/')  # although its folder is given
    content = json.loads(train.read_text())
    shared = dict(content['images'][0], file_name='photo_005.png')
    train.write_text(json.dumps({**content, 'images': [*content['images'][1:], shared]}))
    assert len(seen()) == 3 and 'photos/photo_005.png' not in seen()


def test_a_search_that_fails_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    calls: list[list[str]] = []
    monkeypatch.setattr(data_module, 'run_command', lambda command, stop: calls.append(command) or 2)
    with pytest.raises(ValueError, match='generate_proposals.py list.txt .* --source random failed'):
        generate_store(Path('list.txt'), tmp_path / 'out.arrow', tmp_path, 'random')
    assert len(calls) == 1
