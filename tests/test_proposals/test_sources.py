"""Tests of image sources: the same images from a folder, a list, a COCO json, a zip and a tar."""
import io
import json
import os
import pickle
import tarfile
import zipfile
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import pytest

from projects.soco.proposals.executors import SerialExecutor
from projects.soco.proposals.generate import GenerateOptions, generate
from projects.soco.proposals.imports import read_coco
from projects.soco.proposals.source_base import NameRefused, name_problem
from projects.soco.proposals.sources import KINDS, open_source

NAMES = ['a.png', 'b/1.png', 'b/2.PNG', 'b/deep/x.png', 'c.png', 'z.png']


@pytest.fixture(scope='module')
def sources(tmp_path_factory, small_photos):
    """Make a folder with one source of each kind, each with the same six photos."""
    folder = tmp_path_factory.mktemp('sources')
    (folder / 'list.txt').write_text('# photos\n\n' + '\n'.join(reversed(NAMES)) + '\na.png\n')
    (folder / 'coco.json').write_text(json.dumps(dict(
        images=[dict(id=i, file_name=name) for i, name in enumerate(reversed(NAMES))],
        annotations=[], categories=[])))
    for kind, method in (('deflated', zipfile.ZIP_DEFLATED), ('stored', zipfile.ZIP_STORED)):
        with zipfile.ZipFile(folder / f'{kind}.zip', 'w', method) as archive:
            archive.mkdir('b')
            archive.writestr('notes.txt', 'no image')
            archive.writestr('__MACOSX/._a.png', 'no image')
            for name in NAMES:
                archive.write(small_photos / name, name)
    with tarfile.open(folder / 'photos.tar', 'w') as archive:
        archive.add(small_photos, '.')
    return folder


ALL = ['list.txt', 'coco.json', 'deflated.zip', 'stored.zip', 'photos.tar']


@pytest.mark.parametrize('name', ALL)
def test_every_kind_holds_the_same_images(sources, small_photos, name):
    source = open_source(sources / name, small_photos)
    assert source.names() == NAMES
    for image in NAMES:
        assert source.read_bytes(image) == (small_photos / image).read_bytes()
        with source.open(image) as file:
            assert file.read() == (small_photos / image).read_bytes()
        assert image in source
    assert 'b' not in source and 'b/9.png' not in source and '1.png' not in source


@pytest.mark.parametrize('name', ALL)
@pytest.mark.parametrize('start', ['fork', 'spawn'])
def test_sources_work_in_other_processes_and_threads(sources, small_photos, name, start):
    source = open_source(sources / name, small_photos)
    expected = [(small_photos / image).read_bytes() for image in NAMES]
    source.read_bytes('a.png')
    with ProcessPoolExecutor(2, get_context(start)) as pool:
        assert list(pool.map(source.read_bytes, NAMES)) == expected
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(source.read_bytes, NAMES * 20)) == expected * 20


def test_a_selection_of_an_archive_is_small(tmp_path):
    with zipfile.ZipFile(tmp_path / 'many.zip', 'w') as archive:
        for i in range(2000):
            archive.writestr(f'{i}.jpg', str(i))
    source = open_source(tmp_path / 'many.zip')
    part = source.select(['7.jpg', '8.jpg'])
    assert part.names() == ['7.jpg', '8.jpg'] and part.read_bytes('8.jpg') == b'8'
    assert len(pickle.dumps(part)) < 500 < len(pickle.dumps(source))


@pytest.mark.parametrize('name', ['b\\\\1.png', './b/1.png', 'B/1.PNG'])
def test_a_json_with_a_byte_order_mark_and_names_of_another_form(tmp_path, small_photos, name):
    content = '\ufeff{"images": [{"file_name": "NAME"}]}'.replace('NAME', name)
    (tmp_path / 'coco.json').write_text(content, encoding='utf-8')
    assert open_source(tmp_path / 'coco.json', small_photos).names() == ['b/1.png']


def test_the_last_of_two_members_of_one_name_counts(tmp_path):
    with tarfile.open(tmp_path / 'two.tar', 'w') as archive:
        for content in (b'old', b'newer'):
            info = tarfile.TarInfo('a.jpg')
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    assert open_source(tmp_path / 'two.tar').read_bytes('a.jpg') == b'newer'


def test_members_that_point_elsewhere_are_left_out(tmp_path):
    with tarfile.open(tmp_path / 'links.tar', 'w') as archive:
        for name, kind in (('a.jpg', tarfile.SYMTYPE), ('b.jpg', tarfile.LNKTYPE),
                           ('c.jpg', tarfile.CHRTYPE), ('d.jpg', tarfile.FIFOTYPE)):
            link = tarfile.TarInfo(name)
            link.type, link.linkname = kind, '/etc/passwd'
            archive.addfile(link)
    with zipfile.ZipFile(tmp_path / 'links.zip', 'w') as archive:
        link = zipfile.ZipInfo('a.jpg')
        link.external_attr = 0o120777 << 16  # a link: its content is its target
        archive.writestr(link, '/etc/passwd')
    assert open_source(tmp_path / 'links.tar').names() == []
    assert open_source(tmp_path / 'links.zip').read_bytes('a.jpg') == b'/etc/passwd'  # never followed


@pytest.mark.parametrize('name', ['deflated.zip', 'stored.zip'])
def test_damaged_member_is_an_error(sources, small_photos, tmp_path, name):
    content = bytearray((sources / name).read_bytes())
    with zipfile.ZipFile(sources / name) as archive:
        start = archive.getinfo('c.png').header_offset
    content[start + 200] ^= 255
    (tmp_path / name).write_bytes(content)
    source = open_source(tmp_path / name)
    with pytest.raises(OSError, match='c.png .*damaged'):
        source.read_bytes('c.png')
    assert source.read_bytes('a.png') == (small_photos / 'a.png').read_bytes()


def test_unknown_names_are_refused(sources, small_photos):
    for name in ALL:
        with pytest.raises(FileNotFoundError):
            open_source(sources / name, small_photos).read_bytes('none.png')


OUTSIDE = ['../z.png', '/etc/passwd', 'deep/../../a.png', '..', '.', '', 'a\0.png', 'folder/a.png',
           'file.png', 'chain.png', 'folder/../1.png']


@pytest.fixture
def linked(tmp_path, small_photos):
    """Make a folder with an image, `1.png`, and with links that lead out of it."""
    root = tmp_path / 'root'
    root.mkdir()
    (root / '1.png').write_bytes((small_photos / 'b/1.png').read_bytes())
    (root / 'folder').symlink_to(small_photos)
    (root / 'file.png').symlink_to(small_photos / 'a.png')
    (root / 'chain.png').symlink_to('file.png')
    (tmp_path / 'z.png').write_bytes(b'outside')
    return root


@pytest.mark.parametrize('name', OUTSIDE)
def test_no_name_leads_out_of_a_folder(linked, name):
    for root in (linked, linked.parent / 'link to root'):
        if not root.exists():
            root.symlink_to(linked)
        source = open_source(root)
        assert source.read_bytes('1.png') and '1.png' in source
        with pytest.raises(OSError, match='out of|a folder') as error:
            source.read_bytes(name)
        assert name == '.' or isinstance(error.value, NameRefused)
        assert name not in source


def test_links_out_of_a_folder_are_followed_where_that_is_asked_for(linked, small_photos):
    with pytest.raises(ValueError, match='folder is reached by a link out of .*root.*--follow-links'):
        open_source(linked).names()
    source = open_source(linked, follow_links=True)
    assert source.names() == sorted(
        ['1.png', 'chain.png', 'file.png'] + [f'folder/{name}' for name in NAMES])
    assert source.read_bytes('folder/a.png') == source.read_bytes('chain.png')
    for name in OUTSIDE[:4]:
        with pytest.raises(NameRefused):
            source.read_bytes(name)


@pytest.mark.parametrize('name', [name for name in OUTSIDE if name_problem(name)] + [7, None])
def test_names_of_a_coco_json_stay_within(tmp_path, small_photos, name):
    path = tmp_path / 'coco.json'
    path.write_text(json.dumps(dict(images=[dict(id=0, file_name='a.png'), dict(id=1, file_name=name)],
                                    annotations=[])))
    with pytest.raises(ValueError, match=r'images\[1\] of .*coco.json') as error:
        open_source(path, small_photos).names()
    assert repr(name) in str(error.value)
    with pytest.raises(ValueError, match=r'images\[1\] of .*coco.json'):
        read_coco(path)


def test_a_pipe_is_no_image_and_nobody_waits_for_it(tmp_path):
    os.mkfifo(tmp_path / 'a.jpg')
    with pytest.raises(OSError, match='not a regular file'):
        open_source(tmp_path).read_bytes('a.jpg')


@pytest.mark.parametrize('name', ['../evil.png', '/tmp/evil.png', 'b/../../evil.png', './../evil.png'])
@pytest.mark.parametrize('kind', ['zip', 'tar'])
def test_members_with_names_outside_are_refused_and_nothing_is_written(tmp_path, small_photos, kind,
                                                                       name):
    folder = tmp_path / 'in'
    folder.mkdir()
    content = (small_photos / 'a.png').read_bytes()
    path = folder / f'evil.{kind}'
    if kind == 'zip':
        with zipfile.ZipFile(path, 'w') as archive:
            archive.writestr('a.png', content)
            archive.writestr(name, content)
    else:
        with tarfile.open(path, 'w') as archive:
            for member in ('a.png', name):
                info = tarfile.TarInfo(member)
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
    for use in (lambda s: s.names(), lambda s: s.read_bytes(name), lambda s: s.read_bytes('a.png'),
                lambda s: name in s):
        with pytest.raises(ValueError, match='evil.*whose name .*create the archive again'):
            use(open_source(path))
    with pytest.raises(ValueError, match='whose name'):
        generate(open_source(path), folder / 's.arrow', GenerateOptions(), SerialExecutor())
    assert [p.name for p in tmp_path.rglob('*')] == ['in', f'evil.{kind}']
    assert not Path('/tmp/evil.png').exists()


def test_lists_may_hold_absolute_paths(tmp_path, small_photos):
    (tmp_path / 'list.txt').write_text(f'{small_photos}/b/1.png\n')
    assert open_source(tmp_path / 'list.txt', small_photos).names() == ['b/1.png']
    with pytest.raises(ValueError, match='outside of .*--root'):
        open_source(tmp_path / 'list.txt').names()


@pytest.mark.parametrize('name, content, message', [
    ('a.zip', b'PK no zip', 'not a zip archive'),
    ('a.tar', b'x' * 2000, 'not an uncompressed tar'),
    ('a.tar.gz', b'\x1f\x8b\x08' + bytes(50), 'gunzip'),
    ('a.json', b'{"licenses": []}', 'not a COCO json.*images'),
    ('a.json', b'[', 'not a COCO json'),
    ('a.txt', b'\xff\xfe', 'not a list'),
    ('a.txt', b'none.jpg', 'none of the 1 images .*--root'),
    ('a.xyz', b'what', 'not an image source: give a folder'),
])
def test_other_files_are_refused(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        open_source(tmp_path / name).names()


def test_nothing_there(tmp_path):
    with pytest.raises(FileNotFoundError, match='no images at') as error:
        open_source(tmp_path / 'none.zip')
    assert KINDS in str(error.value)
