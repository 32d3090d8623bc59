"""The judgement of a run: kept by the file's hash, its mended copy in the work directory."""
import json
import multiprocessing
import os
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest
from test_annotations.marks import marks, write_photo

from projects.soco.annotations import copies
from projects.soco.annotations.copies import Settled, Use, find_settled, settle
from projects.soco.files import NotWrittenError


@pytest.fixture
def photos(tmp_path: Path) -> str:
    for i in range(3):
        write_photo(tmp_path / f'photos/{i}.png')
    past = time.time() - 60
    os.utime(tmp_path / 'photos', (past, past))
    return str(tmp_path / 'photos')


def write(path: Path, content: dict) -> Path:
    path.write_text(json.dumps(content))
    return path


def broken() -> dict:
    content = marks()
    for row in content['annotations']:
        del row['iscrowd']
    return content


def judged_again(monkeypatch: pytest.MonkeyPatch) -> list:
    calls: list = []
    judge = copies.judge_coco
    monkeypatch.setattr(copies, 'judge_coco', lambda *args, **options: (
        calls.append(args), judge(*args, **options))[1])
    return calls


def test_a_clean_file_is_read_as_it_is(tmp_path: Path, photos: str) -> None:
    path = write(tmp_path / 'a.json', marks())
    settled = settle(path, Use(photos, ('car', 'bird')), tmp_path / 'work')
    assert settled == Settled(str(path), str(path), [])
    record, = (tmp_path / 'work/annotations').glob('a.*')  # no copy
    assert record.name.endswith('.record.json')


def test_a_mended_copy_is_written_once_and_named(tmp_path: Path, photos: str, monkeypatch) -> None:
    calls = judged_again(monkeypatch)
    path = write(tmp_path / 'a.json', broken())
    use = Use(photos, ('bird', 'car'))
    settled = settle(path, use, tmp_path / 'work')
    copy = Path(settled.path)
    assert copy.parent == tmp_path / 'work/annotations' and copy.name.startswith('a.')
    content = json.loads(copy.read_text())
    assert content['annotations'] == marks()['annotations']
    assert [row['name'] for row in content['categories']] == ['bird', 'car']
    assert 'without iscrowd, taken as 0: 6' in settled.lines[0] and 'Order' in settled.lines[0]
    assert settle(path, use, tmp_path / 'work') == settled and len(calls) == 1
    assert find_settled(tmp_path / 'work', copy) == settled
    assert find_settled(tmp_path / 'work', path) is None
    assert json.loads(path.read_text()) == broken()  # what was given is not touched


def test_what_changes_is_judged_again(tmp_path: Path, photos: str, monkeypatch) -> None:
    calls = judged_again(monkeypatch)
    path = write(tmp_path / 'a.json', broken())
    one = settle(path, Use(photos, None), tmp_path / 'work')
    others = (Use(photos, ('bird', 'car')), Use(None, None), Use(photos, None, masks=True),
              Use(photos, ('car', ), subset=True))
    for n, use in enumerate(others, 2):
        assert settle(path, use, tmp_path / 'work').lines and len(calls) == n
    Path(one.path).unlink()
    assert settle(path, Use(photos, None), tmp_path / 'work') == one and len(calls) == 6
    Path(photos, '2.png').unlink()
    with pytest.raises(ValueError, match="not in .*photos: 1 .'2.png'"):
        settle(path, Use(photos, None), tmp_path / 'work')
    write_photo(Path(photos, '2.png'))
    assert settle(path, Use(photos, None), tmp_path / 'work').lines == one.lines
    content = broken()
    content['annotations'][0]['bbox'] = [1, 2, 3]
    write(path, content)
    with pytest.raises(ValueError, match='boxes that are not four numbers|Boxes that are not four'):
        settle(path, Use(photos, None), tmp_path / 'work')


def test_a_torn_record_is_made_again(tmp_path: Path, photos: str) -> None:
    path = write(tmp_path / 'a.json', broken())
    one = settle(path, Use(photos, None), tmp_path / 'work')
    record, = (tmp_path / 'work/annotations').glob('*.record.json')
    for text in ('', '{}', '[]', '{"path": 1}'):
        record.write_text(text)
        assert find_settled(tmp_path / 'work', one.path) is None
        assert settle(path, Use(photos, None), tmp_path / 'work') == one


def test_a_work_directory_that_cannot_be_written_to_is_named(tmp_path: Path, photos: str) -> None:
    (tmp_path / 'work').write_text('a file')
    with pytest.raises(NotWrittenError, match='work/annotations/.lock could not be written'):
        settle(write(tmp_path / 'a.json', marks()), Use(photos, None), tmp_path / 'work')


def test_training_needs_objects(tmp_path: Path, photos: str) -> None:
    path = write(tmp_path / 'a.json', {**marks(), 'annotations': []})
    with pytest.raises(ValueError, match='annotations is empty.*nothing to train on'):
        settle(path, Use(photos, None), tmp_path / 'work')
    settle(path, Use(photos, None, training=False), tmp_path / 'work')
    with pytest.raises(FileNotFoundError, match='no file .*gone.json'):
        settle(tmp_path / 'gone.json', Use(photos, None), tmp_path / 'work')


def _settle_in_process(path: str, photos: str, work: str) -> str:
    return settle(path, Use(photos, None), work).path


def test_processes_at_once_agree(tmp_path: Path, photos: str) -> None:
    path = write(tmp_path / 'a.json', broken())
    with ProcessPoolExecutor(4, multiprocessing.get_context('fork')) as pool:
        found = set(pool.map(_settle_in_process, [str(path)] * 8, [photos] * 8,
                             [str(tmp_path / 'w')] * 8))
    assert len(found) == 1 and json.loads(Path(found.pop()).read_text())
    assert len(list((tmp_path / 'w/annotations').glob('*.json'))) == 2
