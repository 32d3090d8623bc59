"""Tests of which files are photos, and of the account of the files that are passed over."""
import io
import json
import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from projects.soco.datasets import SoCoDataset
from projects.soco.proposals import ProposalStore, StoreWriter
from projects.soco.proposals.executors import SerialExecutor
from projects.soco.proposals.filters import get_filter
from projects.soco.proposals.generate import GenerateOptions, describe_run, generate
from projects.soco.proposals.generators import RandomBoxes
from projects.soco.proposals.images import decode_image
from projects.soco.proposals.imports import read_coco
from projects.soco.proposals.journal import ChunkFolder, read_table, remarks_path
from projects.soco.proposals.photo_files import PassedOver, Sorter, photo_formats, photo_suffixes
from projects.soco.proposals.sources import open_source
from projects.soco.proposals.store_operations import merge_stores

TOOL = Path(__file__).parents[2] / 'tools/generate_proposals.py'
FORMATS = dict(JPEG=('.jpg', '.JPG', '.jpeg', '.jfif', '.jpe'), AVIF=('.avif', ),
               JPEG2000=('.jp2', '.j2k'),
               PNG=('.png', '.apng'), TIFF=('.tif', '.TIFF'), WEBP=('.webp', ), BMP=('.bmp', '.dib'),
               GIF=('.gif', ), PPM=('.ppm', '.pnm'), TGA=('.tga', ), QOI=('.qoi', ), SGI=('.sgi', ),
               PCX=('.pcx', ), MPO=('.mpo', ))
OTHERS = {'a.heic': '.heic', 'b.HEIC': '.heic', 'c.heif': '.heif', 'd.cr2': '.cr2', 'e.NEF': '.nef',
          'f.jxl': '.jxl', 'g.exr': '.exr', 'h.psd': '.psd', 'i.svg': '.svg', 'j.pdf': '.pdf',
          'k.eps': '.eps', 'l.ico': '.ico', 'm.mp4': '.mp4', 'n.txt': '.txt', 'o.jpg.xmp': '.xmp',
          'IMG_0001': '', 'of 1. June 2019': '', 'q.jpg~': '', 'r.zip': '.zip', 's.pfm': '.pfm'}
SYSTEM = {'._1.jpg': '._*', '.DS_Store': '.DS_Store',
          'Thumbs.db': 'Thumbs.db', 'thumbs.DB': 'Thumbs.db',
          'desktop.ini': 'desktop.ini', 'Desktop.ini': 'desktop.ini', '.hidden.jpg': 'hidden files',
          'SYNOPHOTO_THUMB_XL.jpg': 'SYNO*', 'ehthumbs.db': 'ehthumbs.db',
          '@eaDir/1.jpg/SYNOPHOTO_THUMB_M.jpg': '@eaDir/', '.thumbnails/1.jpg': '.thumbnails/',
          '__MACOSX/._1.jpg': '__MACOSX/', '.@__thumb/s1.jpg': '.@__thumb/',
          '#recycle/x.jpg': '#recycle/',
          '.Trashes/501/x.jpg': '.Trashes/', '.Trash-1000/x.jpg': '.Trash-*/',
          '$RECYCLE.BIN/x.jpg': '$RECYCLE.BIN/', '.git/x.jpg': 'hidden folders'}


def encoded(form: str = 'JPEG') -> bytes:
    file = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(file, form)
    return file.getvalue()


@pytest.fixture(scope='module')
def mixed(tmp_path_factory) -> tuple[Path, list[str]]:
    """Make a folder of photos, other files and system files; return it and the names of the photos."""
    root = tmp_path_factory.mktemp('mixed')
    photos = [f'{i}{suffix}' for i, suffix in enumerate(s for group in FORMATS.values() for s in group)]
    forms = [form for form, suffixes in FORMATS.items() for _ in suffixes]
    for name, form in [*zip(photos, forms), ('deep/er/x.jpg', 'JPEG'), ('Synology.jpg', 'JPEG')]:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(encoded(form))
    for folder in (root, root / 'deep'):
        for name in SYSTEM:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(encoded())
    for name in OTHERS:
        (root / name).write_bytes(b'another file')
    return root, sorted([*photos, 'deep/er/x.jpg', 'Synology.jpg'])


def all_files(root: Path) -> list[str]:
    return sorted(path.relative_to(root).as_posix() for path in root.rglob('*') if path.is_file())


def source_of(kind: str, root: Path, folder: Path):
    path = folder / f'photos.{kind}'
    if kind == 'folder':
        return open_source(root)
    if kind == 'zip':
        with zipfile.ZipFile(path, 'w') as archive:
            for name in all_files(root):
                archive.write(root / name, name)
    if kind == 'tar':
        with tarfile.open(path, 'w') as archive:
            archive.add(root, '.')
    if kind == 'txt':
        path.write_text('\n'.join(all_files(root)))
    return open_source(path, root)


def counted(names: dict[str, str]) -> dict[str, int]:
    return {kind: list(names.values()).count(kind) for kind in set(names.values())}


@pytest.mark.parametrize('kind', ['folder', 'zip', 'tar'])
def test_photos_are_taken_and_all_else_is_counted(mixed, tmp_path, kind):
    root, photos = mixed
    source = source_of(kind, root, tmp_path)
    for _ in range(2):  # a second listing counts nothing twice
        assert source.names() == photos
        assert dict(source.passed_over.suffixes) == counted(OTHERS)
        assert dict(source.passed_over.system) == {k: 2 * n for k, n in counted(SYSTEM).items()}
    for name in photos:
        assert decode_image(source.read_bytes(name)).shape == (40, 60, 3), name


def test_a_list_takes_every_suffix_but_no_system_files(mixed, tmp_path):
    root, photos = mixed
    source = source_of('txt', root, tmp_path)
    hidden = ['.git/x.jpg', '.hidden.jpg', 'deep/.git/x.jpg', 'deep/.hidden.jpg']
    assert source.names() == sorted([*photos, *OTHERS, *hidden])
    assert not source.passed_over.suffixes
    wanted = {kind: 2 * n for kind, n in counted(SYSTEM).items() if not kind.startswith('hidden')}
    assert dict(source.passed_over.system) == wanted | {'#recycle/': 1}  # the other line is a comment


def test_the_line_names_counts_packages_and_system_files(mixed):
    source = open_source(mixed[0])
    source.names()
    line = source.passed_over.describe()
    assert '\n' not in line
    for words in (f'{len(OTHERS)} files of other kinds: 2 .heic, 1 .heif (read if the package',
                  '1 .jxl (read if the package pillow-jxl-plugin', '1 .cr2, 1 .nef (raw files', 'rawpy',
                  '1 .psd (layers: export', '1 .zip (an archive', '3 without suffix', '5 others',
                  'hidden, system or unreadable files and folders: ', '4 Thumbs.db', '4 desktop.ini'):
        assert words in line, (words, line)
    many = PassedOver()
    many.suffixes.update({f'.s{i}': 1 + (i < 3) for i in range(300)})
    assert 'others' in many.describe() and len(many.describe()) < 200
    assert len(many.metadata()['suffixes']) == 51 and sum(many.metadata()['suffixes'].values()) == 303
    assert PassedOver().describe() == '' and not PassedOver() and PassedOver().metadata() == {}


def test_formats_that_start_programs_or_are_no_photos_are_not_tried():
    assert not {'EPS', 'WMF', 'PDF', 'ICO', 'PSD', 'MPEG', 'HDF5'} & set(photo_formats())
    assert photo_formats()[:2] == ('JPEG', 'PNG') and photo_formats()[-1] == 'TGA'
    assert {'.jpg', '.jfif', '.jpe', '.avif', '.jp2', '.mpo', '.webp'} <= photo_suffixes().keys()


def test_a_codec_that_pillow_lacks_is_not_promised(monkeypatch):
    photo_suffixes.cache_clear()
    monkeypatch.setattr('PIL.features.check', lambda name: name != 'avif')
    try:
        assert '.avif' not in photo_suffixes() and '.jp2' in photo_suffixes()
        sorter = Sorter()
        assert not sorter.is_photo('a.avif')
        assert 'pillow-avif-plugin' in sorter.passed_over.describe()
    finally:
        photo_suffixes.cache_clear()


def test_an_installed_package_is_registered_and_its_photos_are_read(tmp_path, monkeypatch):
    """The module stands for pillow-heif: it registers a format when its function is called."""
    (tmp_path / 'pillow_heif.py').write_text(
        'from PIL import Image\n'
        'from PIL import ImageFile\n'
        'class Heif(ImageFile.ImageFile):\n'
        '    format, format_description = "HEIF", "HEIF"\n'
        '    def _open(self):\n'
        '        self._size, self._mode = (4, 3), "L"\n'
        '        self.tile = [ImageFile._Tile("raw", (0, 0, 4, 3), 24, ("L", 0, 1))]\n'
        'def register_heif_opener():\n'
        '    Image.register_open("HEIF", Heif, lambda prefix: prefix[4:12] == b"ftypheic")\n'
        '    Image.register_extensions("HEIF", [".heic", ".heif"])\n')
    photos = tmp_path / 'photos'
    photos.mkdir()
    for name in ('a.heic', 'b.jpg'):
        (photos / name).write_bytes(b'\0\0\0\x18ftypheic' + bytes(12) + bytes(range(12)))
    code = ('import sys, numpy as np\n'
            'from projects.soco.proposals.sources import open_source\n'
            'from projects.soco.proposals.images import decode_image\n'
            'source = open_source(sys.argv[1])\n'
            'print(source.names(), source.passed_over.describe(),\n'
            '      [decode_image(source.read_bytes(n))[..., 0].max() == 11 for n in source.names()])')
    done = subprocess.run([sys.executable, '-c', code, str(photos)], capture_output=True, text=True,
                          env=dict(os.environ, PYTHONPATH=f'{tmp_path}:{TOOL.parents[1]}'))
    assert done.returncode == 0, done.stderr
    assert "['a.heic', 'b.jpg']" in done.stdout and done.stdout.count('True') == 2


def test_a_package_that_fails_is_named_and_stops_nothing(tmp_path):
    (tmp_path / 'pillow_heif.py').write_text('raise RuntimeError("no library")')
    photos = tmp_path / 'photos'
    photos.mkdir()
    (photos / 'a.heic').write_bytes(b'x')
    code = ('import sys\n'
            'from projects.soco.proposals.sources import open_source\n'
            'source = open_source(sys.argv[1])\n'
            'print(source.names(), source.passed_over.describe())')
    done = subprocess.run([sys.executable, '-c', code, str(photos)], capture_output=True, text=True,
                          env=dict(os.environ, PYTHONPATH=f'{tmp_path}:{TOOL.parents[1]}'))
    assert '[] 1 file of other kinds: 1 .heic (the package pillow-heif is installed but fails: ' \
           'no library)' in done.stdout, done.stderr


def options() -> GenerateOptions:
    return GenerateOptions(RandomBoxes(num_boxes=3), get_filter('all'))


def test_the_metadata_say_what_was_passed_over_and_how_values_are_scaled(mixed, tmp_path):
    root, photos = mixed
    summary = generate(open_source(root), tmp_path / 's.arrow', options(), SerialExecutor())
    metadata = ProposalStore.open(tmp_path / 's.arrow').metadata
    assert metadata['source']['images'] == len(photos)
    assert metadata['source']['passed_over']['suffixes']['.heic'] == 2
    assert metadata['source']['passed_over']['system']['@eaDir/'] == 2
    assert 'largest value' in metadata['decoding']['integers']
    assert summary.passed_over.suffixes['.heic'] == 2 and not summary.skipped and not summary.earlier


def test_another_file_beside_the_photos_makes_no_other_store(tmp_path):
    photos, out = tmp_path / 'photos', tmp_path / 's.arrow'
    photos.mkdir()
    (photos / 'a.jpg').write_bytes(encoded())
    generate(open_source(photos), out, options(), SerialExecutor())
    before = out.read_bytes()
    (photos / 'b.heic').write_bytes(b'x')
    again = generate(open_source(photos), out, options(), SerialExecutor())
    assert again.reused == 1 and out.read_bytes() == before
    assert again.passed_over.suffixes == {'.heic': 1}


def test_a_store_of_an_earlier_version_is_complete_and_said_to_be_one(tmp_path):
    photos, out = tmp_path / 'photos', tmp_path / 's.arrow'
    photos.mkdir()
    (photos / 'a.jpg').write_bytes(encoded())
    generate(open_source(photos), out, options(), SerialExecutor())
    store = ProposalStore.open(out)
    metadata = {key: value for key, value in store.metadata.items() if key != 'decoding'}
    rows = [(store.name(0), *store.size(0), store.regions(0).copy(), store.rule(0))]
    with StoreWriter(out, metadata) as writer:
        writer.add(*rows[0])
    again = generate(open_source(photos), out, options(), SerialExecutor())
    assert again.earlier and again.reused == 1
    pipeline = [dict(type='LoadProposals'), dict(type='ProposalViews', views=[dict(size=32)] * 2),
                dict(type='PackSoCoInputs')]
    assert SoCoDataset(str(photos), str(out), pipeline)[0]['bad'] == ''


def test_an_unfinished_run_of_an_earlier_version_is_not_mixed_with_the_new_rule(tmp_path):
    (tmp_path / 'photos').mkdir()
    (tmp_path / 'photos/a.jpg').write_bytes(encoded())
    source, out = open_source(tmp_path / 'photos'), tmp_path / 's.arrow'
    metadata = describe_run(source.names(), source, options())
    del metadata['decoding']
    with ChunkFolder(out) as folder:
        folder.begin(metadata)
    with pytest.raises(ValueError, match='decoding.name: 16-bit grey divided by 257, now depth of the '
                                         'largest value.: use the old parameters.*--overwrite'):
        generate(source, out, options(), SerialExecutor())


def test_stores_of_folders_with_other_files_can_be_merged(tmp_path):
    for name in 'ab':
        (tmp_path / name).mkdir()
        (tmp_path / name / f'{name}.jpg').write_bytes(encoded())
        (tmp_path / name / f'{name}.{name}').write_bytes(b'x')
        generate(open_source(tmp_path / name), tmp_path / f'{name}.arrow', options(), SerialExecutor())
    merge_stores([tmp_path / 'a.arrow', tmp_path / 'b.arrow'], tmp_path / 'c.arrow')
    metadata = ProposalStore.open(tmp_path / 'c.arrow').metadata
    assert [source['passed_over']['suffixes'] for source in metadata['source']['sources']] == [
        {'.a': 1}, {'.b': 1}]
    assert 'largest value' in metadata['decoding']['integers']


def test_a_json_that_names_an_unread_photo_hears_why(tmp_path):
    (tmp_path / 'a.heic').write_bytes(b'x')
    (tmp_path / 'b.jpg').write_bytes(encoded())
    (tmp_path / 'boxes.json').write_text(json.dumps(dict(
        images=[dict(id=1, file_name='a.heic', width=9, height=9)], categories=[],
        annotations=[dict(id=1, image_id=1, bbox=[0, 0, 5, 5])])))
    generator = read_coco(tmp_path / 'boxes.json')
    with pytest.raises(ValueError, match='a.heic is there, but .*read if the package pillow-heif'):
        generator.images(open_source(tmp_path))


def test_an_archive_gives_out_what_an_earlier_store_listed(tmp_path):
    with zipfile.ZipFile(tmp_path / 'a.zip', 'w') as archive:
        archive.writestr('@eaDir/a.jpg', b'old')
    source = open_source(tmp_path / 'a.zip')
    assert source.names() == [] and '@eaDir/a.jpg' in source
    assert source.read_bytes('@eaDir/a.jpg') == b'old'


def test_folders_that_cannot_be_listed_are_counted(tmp_path, monkeypatch):
    (tmp_path / 'closed').mkdir()
    scandir = os.scandir

    def refuse(path):
        if str(path).endswith('closed'):
            raise PermissionError(13, 'Permission denied')
        return scandir(path)

    monkeypatch.setattr(os, 'scandir', refuse)
    source = open_source(tmp_path)
    assert source.names() == [] and source.passed_over.system == {'unreadable folders': 1}


def run_tool(*args: object) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, str(TOOL), *map(str, args)], capture_output=True, text=True,
                          env=dict(os.environ, COLUMNS='200'))


def test_the_summary_says_it_in_one_line(tmp_path):
    photos = tmp_path / 'photos'
    photos.mkdir()
    for name in ('a.jpg', 'b.JPG', 'c.jfif', 'd.jpe'):
        (photos / name).write_bytes(encoded())
    (photos / 'e.heic').write_bytes(b'x')
    (photos / '._a.jpg').write_bytes(b'x')
    done = run_tool(photos, tmp_path / 's.arrow', '--source', 'random', '--workers', 1)
    assert done.returncode == 0, done.stderr
    assert '4 images' in done.stdout
    line, = (line for line in done.stdout.splitlines() if line.startswith('not taken: '))
    assert '1 .heic (read if the package pillow-heif is installed)' in line and '1 ._*' in line


def test_a_folder_of_unread_photos_is_told_in_one_paragraph(tmp_path):
    photos = tmp_path / 'photos'
    photos.mkdir()
    for i in range(3):
        (photos / f'{i}.HEIC').write_bytes(b'x')
        (photos / f'{i}.dng').write_bytes(b'x')
    done = run_tool(photos, tmp_path / 's.arrow', '--source', 'random', '--workers', 1)
    told, = (line for line in done.stderr.splitlines() if line.startswith('error: '))
    assert done.returncode == 2
    assert 'there are no images in' in told and '3 .heic (read if the package pillow-heif' in told
    assert '3 .dng (raw files of a camera' in told and '.jpg' in told and not list(tmp_path.glob('s.*'))


def test_photos_that_look_wrong_are_listed(tmp_path):
    photos, out = tmp_path / 'photos', tmp_path / 's.arrow'
    photos.mkdir()
    (photos / 'good.png').write_bytes(encoded('PNG'))
    Image.new('RGB', (60, 40), (3, 3, 3)).save(photos / 'black.png')
    Image.new('RGB', (60, 40), (99, 120, 99)).save(photos / 'flat.png')
    Image.new('RGB', (60, 40), (99, 99, 99)).save(photos / 'grey.png')
    hot = np.random.default_rng(0).integers(0, 4096, (40, 60), dtype=np.uint16)
    hot[5, 5] = 65535  # a defective pixel, so that the depth is not seen
    Image.fromarray(hot).save(photos / 'hot.png')
    summary = generate(open_source(photos), out, GenerateOptions(), SerialExecutor())
    found = {image: reason.partition(':')[0] for image, reason in read_table(remarks_path(out))}
    assert found == {'black.png': 'nearly black', 'grey.png': 'nearly uniform',
                     'hot.png': 'nearly black'}
    assert summary.remarks == read_table(remarks_path(out))
    wrong = ProposalStore.open(out).metadata['source']['looks_wrong']
    assert sorted(wrong.values()) == [1, 2] and len(ProposalStore.open(out)) == 5
    json.dumps(wrong)
    again = generate(open_source(photos), out, GenerateOptions(), SerialExecutor())
    assert again.remarks == summary.remarks and again.reused == 5
    (photos / 'black.png').write_bytes(encoded('PNG'))
    (photos / 'grey.png').write_bytes(encoded('PNG'))
    (photos / 'hot.png').write_bytes(encoded('PNG'))
    generate(open_source(photos), out, GenerateOptions(), SerialExecutor(), overwrite=True)
    assert not remarks_path(out).exists()


def test_the_first_page_of_a_photo_with_many_is_read():
    first = Image.new('RGB', (8, 6), (200, 10, 10))
    for form in ('TIFF', 'MPO', 'AVIF', 'PNG', 'GIF', 'WEBP'):
        file = io.BytesIO()
        first.save(file, form, save_all=True, append_images=[Image.new('RGB', (8, 6), (0, 0, 250))])
        assert np.abs(decode_image(file.getvalue()).astype(int) - (200, 10, 10)).max() < 12, form
