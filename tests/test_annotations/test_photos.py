"""Names and sizes of annotations against the photos."""
import unicodedata
from pathlib import Path

import pytest
from test_annotations.marks import HEIGHT, WIDTH, marks, write_photo

from projects.soco.annotations.findings import MENDED, NOTE, REFUSED
from projects.soco.annotations.judge import judge_coco
from projects.soco.annotations.photos import PhotoTree
from projects.soco.proposals.sources import open_source

NFC, NFD = (unicodedata.normalize(form, 'Bär/Möwe.png') for form in ('NFC', 'NFD'))


@pytest.mark.parametrize('file, name, way', [
    ('a/0.png', 'a\\0.png', 'separators'),
    ('a/0.png', './a//0.png', 'separators'),
    ('a/0.png', 'b/../a/0.png', 'separators'),
    (NFD, NFC, 'Unicode normal form'),
    (NFC, NFD, 'Unicode normal form'),
    (NFD, NFC.replace('/', '\\'), 'separators and Unicode normal form'),
    ('a/0.PNG', 'a/0.png', 'letter case'),
    ('0.png', 'photos/0.png', 'folders before it left out'),
    ('0.png', '/data/upload/7/0.png', 'folders before it left out'),
    ('0.png', 'C:\\Users\\me\\0.png', 'folders before it left out'),
    ('a b.png', 'https://host/data/a%20b.png?x=1', 'folders before it left out'),
    ('a/0.png', '/data/local-files/?d=a/0.png', 'address'),
    ('0.png', 's3://bucket/0.png', 'folders before it left out'),
    ('0.png', 'images\\7\\1a2b3c4d-0.png', 'prefix of an upload left out')])
def test_names_that_mean_one_file(file: str, name: str, way: str, tmp_path: Path) -> None:
    write_photo(tmp_path / 'root' / file)
    content = marks(photos=1)
    content['images'][0]['file_name'] = name
    judged = judge_coco(content, 'a.json', photos=PhotoTree(tmp_path / 'root')).accept()
    assert content['images'][0]['file_name'] == file
    found, = judged.of(MENDED)
    assert found.kind == f'file names written as those of the files ({way})'
    assert found.examples == (f'{name!r} is {file!r}', )


def test_a_name_that_is_there_is_taken_as_it_is(tmp_path: Path) -> None:
    """On Linux, a backslash may be a part of a name."""
    for name in ('a\\0.png', 'a/0.png', 'A/0.png'):
        write_photo(tmp_path / name)
    tree = PhotoTree(tmp_path)
    assert tree.find('a\\0.png') == ('a\\0.png', '') and tree.find('A/0.png') == ('A/0.png', '')
    assert tree.find('a/0.PNG') == ('a/0.png', 'letter case')


@pytest.mark.parametrize('name, hint', [
    ('gone.png', 'Give the folder that the file_names are relative to'),
    ('../secret.png', 'may lead out of the folder'), ('..\\secret.png', 'may lead out'),
    ('a/../../secret.png', 'may lead out'), ('A/X.PNG', 'photos'),
    ('0.jpg', "There is '0.png', with another suffix"), ('x.png', "'x.png' is in .*/root/a")])
def test_names_without_a_file_are_refused(name: str, hint: str, tmp_path: Path) -> None:
    """`A/X.PNG` may be two files."""
    for file in ('root/0.png', 'secret.png', 'root/a/x.png', 'root/a/X.png'):
        write_photo(tmp_path / file)
    content = marks(photos=1)
    content['images'][0]['file_name'] = name
    judged = judge_coco(content, 'a.json', photos=PhotoTree(tmp_path / 'root'))
    with pytest.raises(ValueError, match=f'(?i)photos, of 1, that are not in .*root: 1 .*{hint}'):
        judged.accept()


def test_two_names_of_one_file_are_refused(tmp_path: Path) -> None:
    write_photo(tmp_path / '0.png')
    content = marks(photos=2)
    content['images'][1]['file_name'] = 'val/0.png'
    with pytest.raises(ValueError, match="already: 1 .'val/0.png' and another entry are '0.png'"):
        judge_coco(content, 'a.json', photos=PhotoTree(tmp_path)).accept()


def sized(tmp_path: Path, given: tuple, size: tuple, orientation: int = 1, bbox: tuple = (5, 6, 20, 10),
          **options: str):
    write_photo(tmp_path / '0.png', size, orientation)
    content = marks(photos=1, objects=1)
    content['images'][0].update(dict(zip(('width', 'height'), given)))
    content['annotations'][0].update(bbox=list(bbox), segmentation=[])
    judged = judge_coco(content, 'a.json', photos=PhotoTree(tmp_path), **options)
    row = content['images'][0]
    return judged, (row.get('width'), row.get('height'))


@pytest.mark.parametrize('given', [(None, None), (0, 0), (-1, 40), ('', 40)])
def test_missing_sizes_are_those_of_the_photos(given: tuple, tmp_path: Path) -> None:
    judged, size = sized(tmp_path, given, (WIDTH, HEIGHT))
    assert size == (WIDTH, HEIGHT)
    assert judged.accept().of(MENDED)[0].line().startswith('images without width and height')
    assert sized(tmp_path, given, (WIDTH, HEIGHT), 6)[1] == (HEIGHT, WIDTH)  # upright


def test_missing_sizes_are_refused_where_no_photo_tells_them() -> None:
    content = marks()
    del content['images'][1]['width']
    with pytest.raises(ValueError, match=r"without width and height: 1 .'1.png' .id 2.*--images"):
        judge_coco(content, 'a.json', sizes=True).accept()
    judge_coco(content, 'a.json').accept()  # a list of photos needs no sizes


def test_sizes_from_before_the_turn_by_exif(tmp_path: Path) -> None:
    low = (5, 45, 20, 10)  # below the lower edge of the photo before its turn
    judged, size = sized(tmp_path, (WIDTH, HEIGHT), (WIDTH, HEIGHT), 6, low)
    assert size == (HEIGHT, WIDTH)
    assert [f.kind for f in judged.accept().of(MENDED)] == [
        'sizes from before the turn by EXIF, taken from the upright photos']
    judged, size = sized(tmp_path, (HEIGHT, WIDTH), (WIDTH, HEIGHT), 6, low)
    assert not judged.accept().mended  # right as it was
    judged, _ = sized(tmp_path, (WIDTH, HEIGHT), (WIDTH, HEIGHT), 6, (35, 6, 20, 10))
    with pytest.raises(ValueError, match='do not fit the photo as its EXIF entry turns it: 1 .*40x60'):
        judged.accept()


def test_photos_of_another_size(tmp_path: Path) -> None:
    judged, size = sized(tmp_path, (WIDTH, HEIGHT), (WIDTH, HEIGHT + 1))
    assert size == (WIDTH, HEIGHT + 1) and 'a pixel off' in judged.accept().lines()[0]
    judged, _ = sized(tmp_path, (WIDTH, HEIGHT), (2 * WIDTH, 2 * HEIGHT))
    with pytest.raises(ValueError, match="another size .*'0.png' .id 1. is 120x80 pixels, not 60x40"):
        judged.accept()


def test_photos_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / '0.png').write_bytes(b'no photo')
    content = marks(photos=1)
    tree = PhotoTree(tmp_path)
    with pytest.raises(ValueError, match="cannot be read: 1 .'0.png' .id 1.: not an image"):
        judge_coco(content, 'a.json', photos=tree).accept()
    judged = judge_coco(content, 'a.json', photos=tree, broken_level=NOTE).accept()
    assert not judged.of(REFUSED)


def test_names_of_an_archive_or_of_an_absolute_path(tmp_path: Path) -> None:
    tree = PhotoTree('x.zip', ['a/0.png', 'b.png'])
    assert tree.find('a\\0.PNG') == ('a/0.png', 'separators and letter case')
    write_photo(tmp_path / '0.png')
    assert PhotoTree('.', absolute=True).find(f'{tmp_path}/0.png') == (f'{tmp_path}/0.png', '')
    assert PhotoTree(tmp_path / 'sub').find(f'{tmp_path}/0.png') == (None, '')
    assert PhotoTree(tmp_path).find(f'{tmp_path}/0.png') == ('0.png', 'folders before it left out')


def test_lists_of_photos_name_the_files_as_they_are(tmp_path: Path) -> None:
    write_photo(tmp_path / NFD)
    write_photo(tmp_path / 'a/0.png')
    (tmp_path / 'list.txt').write_bytes(f'\ufeff{NFC}\na\\0.png\nphotos/a/0.png\n'.encode())
    assert open_source(tmp_path / 'list.txt').names() == sorted([NFD, 'a/0.png', 'photos/a/0.png'])


def test_progress_is_told(tmp_path: Path) -> None:
    for i in range(3):
        write_photo(tmp_path / f'{i}.png')
    told = []
    judge_coco(marks(), 'a.json', photos=PhotoTree(tmp_path),
               report=lambda done, total: told.append((done, total)))
    assert told == [(1, 3), (2, 3), (3, 3)]
