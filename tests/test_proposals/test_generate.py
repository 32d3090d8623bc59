"""Tests of the generator: reproducible files, unusable images, no partial output."""
import csv
import io
import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from scripts import PYTHON
from test_proposals.worker_functions import die, die_once

from projects.soco.proposals import ProposalStore
from projects.soco.proposals.executors import ProcessExecutor, SerialExecutor, WorkerDiedError
from projects.soco.proposals.filters import get_filter
from projects.soco.proposals.generate import GenerateOptions, generate
from projects.soco.proposals.images import ImageError, decode_image
from projects.soco.proposals.journal import skipped_path
from projects.soco.proposals.selective_search import selective_search
from projects.soco.proposals.sources import open_source

TOOL = Path(__file__).parents[2] / 'tools' / 'generate_proposals.py'
NAMES = ['a.png', 'b/1.png', 'b/2.PNG', 'b/deep/x.png', 'c.png', 'z.png']
ALL = GenerateOptions(box_filter=get_filter('all'))


def run_tool(*args):
    environment = dict(os.environ, PYTHONPATH=str(TOOL.parents[1]))
    return subprocess.run([PYTHON, str(TOOL), *map(str, args)], capture_output=True,
                          text=True, env=environment)


def encode(image, form='PNG', **kwargs):
    buffer = io.BytesIO()
    image.save(buffer, form, **kwargs)
    return buffer.getvalue()


def test_folder_is_listed_recursively_in_order(small_photos):
    source = open_source(small_photos)
    assert source.names() == NAMES
    assert source.read_bytes('b/1.png') == (small_photos / 'b' / '1.png').read_bytes()


def test_linked_folders_are_listed_once(tmp_path, small_photos):
    (tmp_path / 'link').symlink_to(small_photos)
    (tmp_path / 'round').symlink_to(tmp_path)
    assert open_source(tmp_path, follow_links=True).names() == [f'link/{name}' for name in NAMES]
    (tmp_path / 'link').unlink()
    (tmp_path / 'within').mkdir()
    (tmp_path / 'link').symlink_to('within')
    (tmp_path / 'within' / 'a.png').symlink_to(small_photos / 'a.png')
    assert open_source(tmp_path).names() == ['link/a.png']


def test_store_holds_what_the_search_finds(tmp_path, small_photos):
    summary = generate(open_source(small_photos), tmp_path / 's.arrow', ALL, SerialExecutor())
    store = ProposalStore.open(tmp_path / 's.arrow')
    assert [row.image for row in store] == NAMES
    for index, name in enumerate(NAMES):
        with Image.open(small_photos / name) as image:
            regions = selective_search(np.array(image.convert('RGB')))
        assert store.regions(index).tolist() == regions.tolist()
        assert store.size(index) == (160, 120)
    assert summary.statistics.counts.tolist() == store.box_counts().tolist()
    assert store.metadata['generator']['parameters'] == dict(
        name='soco', scales=[300.], sigma=0.9, min_size=100, colour_spaces=['rgb'], official=True)
    assert store.metadata['filter']['name'] == 'all'
    assert [path.name for path in tmp_path.iterdir()] == ['s.arrow']


def test_same_bytes_with_any_number_of_workers(tmp_path, small_photos):
    source = open_source(small_photos)
    generate(source, tmp_path / '1.arrow', ALL, SerialExecutor())
    generate(source, tmp_path / '2.arrow', ALL, ProcessExecutor(2))
    assert (tmp_path / '1.arrow').read_bytes() == (tmp_path / '2.arrow').read_bytes()


class _StopsAfter(SerialExecutor):
    def __init__(self, tasks):
        self.tasks = tasks

    def run(self, function, tasks):
        for done in super().run(function, tasks):
            if self.tasks == 0:
                raise KeyboardInterrupt
            self.tasks -= 1
            yield done


def test_a_stopped_run_goes_on(tmp_path, small_photos):
    source, out = open_source(small_photos), tmp_path / 's.arrow'
    generate(source, tmp_path / 'whole.arrow', ALL, SerialExecutor())
    with pytest.raises(KeyboardInterrupt):
        generate(source, out, ALL, _StopsAfter(4))
    assert not out.exists()
    parts = sorted((tmp_path / 's.arrow.parts').glob('*.arrow'))
    assert len(parts) == 4
    parts[1].write_bytes(parts[1].read_bytes()[:100])
    calls = []
    summary = generate(source, out, ALL, SerialExecutor(),
                       report=lambda images, bad, before: calls.append((images, before)))
    assert calls == [(1, True)] * 3 + [(1, False)] * 3
    assert summary.reused == 3
    assert out.read_bytes() == (tmp_path / 'whole.arrow').read_bytes()
    assert not (tmp_path / 's.arrow.parts').exists()


def test_a_finished_store_is_not_made_again(tmp_path, small_photos):
    source, out = open_source(small_photos), tmp_path / 's.arrow'
    generate(source, out, ALL, SerialExecutor())
    before = out.stat().st_mtime_ns
    assert generate(source, out, ALL, SerialExecutor()).reused == 6
    assert out.stat().st_mtime_ns == before


def test_other_parameters_are_named(tmp_path, small_photos):
    source, out = open_source(small_photos), tmp_path / 's.arrow'
    generate(source, out, ALL, SerialExecutor())
    other = GenerateOptions(box_filter=get_filter('side32'))
    with pytest.raises(ValueError, match='filter.name: all, now side32.*--overwrite'):
        generate(source, out, other, SerialExecutor())
    generate(source, out, other, SerialExecutor(), overwrite=True)
    assert ProposalStore.open(out).metadata['filter']['name'] == 'side32'


def test_other_parameters_than_those_of_a_stopped_run_are_named(tmp_path, small_photos):
    source, out = open_source(small_photos), tmp_path / 's.arrow'
    with pytest.raises(KeyboardInterrupt):
        generate(source, out, ALL, _StopsAfter(1))
    with pytest.raises(ValueError, match='unfinished run with other parameters.*filter.name'):
        generate(source, out, GenerateOptions(), SerialExecutor())


def test_bad_images_are_listed_and_skipped(tmp_path, small_photos):
    good = (small_photos / 'a.png').read_bytes()
    (tmp_path / 'in').mkdir()
    for name, content in dict(a=good, b=b'', c=b'text', d=good[:len(good) // 2]).items():
        (tmp_path / 'in' / f'{name}.png').write_bytes(content)
    os.symlink('nowhere', tmp_path / 'in' / 'e.png')
    out = tmp_path / 's.arrow'
    summary = generate(open_source(tmp_path / 'in'), out, ALL, SerialExecutor())
    assert [row.image for row in ProposalStore.open(out)] == ['a.png']
    with open(skipped_path(out), newline='') as file:
        rows = list(csv.reader(file))
    assert rows[0] == ['image', 'reason']
    assert [row[0] for row in rows[1:]] == ['b.png', 'c.png', 'd.png', 'e.png']
    assert rows[1][1] == 'empty file' and rows[2][1] == 'not an image'
    assert 'truncated' in rows[3][1] and 'No such file' in rows[4][1]
    assert [tuple(s) for s in summary.skipped] == [tuple(row) for row in rows[1:]]
    with pytest.raises(ValueError, match='b.png: empty file.*without --strict'):
        generate(open_source(tmp_path / 'in'), tmp_path / 't.arrow', ALL, SerialExecutor(),
                 strict=True)


def test_only_bad_images_is_an_error(tmp_path):
    (tmp_path / 'in').mkdir()
    (tmp_path / 'in' / 'a.jpg').write_bytes(b'x')
    with pytest.raises(ValueError, match='none of the 1 images can be used.*a.jpg: not an image'):
        generate(open_source(tmp_path / 'in'), tmp_path / 's.arrow', ALL, SerialExecutor())
    assert [path.name for path in tmp_path.iterdir()] == ['in']


def test_no_images_and_no_folder(tmp_path):
    with pytest.raises(ValueError, match='no images in'):
        generate(open_source(tmp_path), tmp_path / 's.arrow', ALL, SerialExecutor())
    with pytest.raises(FileNotFoundError, match='no images at .*nowhere'):
        open_source(tmp_path / 'nowhere')


def test_too_little_disk(tmp_path, small_photos, monkeypatch):
    monkeypatch.setattr('shutil.disk_usage', lambda _: SimpleNamespace(free=1000))
    with pytest.raises(OSError, match='too little disk space .*6 images'):
        generate(open_source(small_photos), tmp_path / 's.arrow', ALL, SerialExecutor())
    assert not list(tmp_path.iterdir())


def test_images_of_all_kinds_become_upright_rgb():
    base = Image.fromarray(np.arange(60, dtype=np.uint8).reshape(6, 10) * 4)
    rgb = np.array(base.convert('RGB'))
    assert np.array_equal(decode_image(encode(base)), rgb)
    assert np.array_equal(decode_image(encode(base.convert('P'), 'GIF')), rgb)
    assert np.array_equal(decode_image(encode(base.convert('RGBA'))), rgb)
    assert decode_image(encode(base.convert('CMYK'), 'JPEG')).shape == (6, 10, 3)
    sixteen = Image.fromarray(np.arange(60, dtype=np.uint16).reshape(6, 10) * 4 * 257)
    assert np.array_equal(decode_image(encode(sixteen)), rgb)
    exif = Image.Exif()
    exif[0x0112] = 6
    assert np.array_equal(decode_image(encode(base, exif=exif)), np.rot90(rgb, -1))
    assert decode_image(encode(base.crop((0, 0, 1, 1)))).shape == (1, 1, 3)


@pytest.mark.parametrize('data, reason', [
    (b'', 'empty file'),
    (b'GIF89a', 'not an image|unreadable'),
    (encode(Image.new('RGB', (200, 200))), 'too large: 200x200 pixels, more than 10000'),
    (encode(Image.new('F', (5, 5), float('nan')), 'TIFF'), 'floating-point values that are not finite'),
    (encode(Image.new('F', (5, 5), -9), 'TIFF'), 'floating-point values from -9 to -9: negative'),
    (encode(Image.new('I', (5, 5), 70000), 'TIFF'), 'values from 70000 to 70000, outside 16 bits'),
    (encode(Image.effect_noise((90, 90), 50), 'JPEG')[:1000], 'truncated'),
])
def test_unusable_images_have_a_reason(data, reason):
    with pytest.raises(ImageError, match=reason):
        decode_image(data, 10000)


def test_decompression_bomb(monkeypatch):
    monkeypatch.setattr(Image, 'MAX_IMAGE_PIXELS', 100)
    with pytest.raises(ImageError, match='too large'):
        decode_image(encode(Image.new('1', (30, 30))))


def test_tasks_of_a_dead_worker_are_done_again(tmp_path):
    tasks = [(str(tmp_path / 'flag'), value) for value in range(8)]
    results = dict(ProcessExecutor(2).run(die_once, tasks))
    assert results == {i: 10 * i for i in range(8)}


def test_workers_that_always_die_are_an_error():
    with pytest.raises(WorkerDiedError, match='died 3 times'):
        list(ProcessExecutor(1).run(die, [1]))


def test_tool_makes_a_store(tmp_path, small_photos):
    done = run_tool(small_photos, tmp_path / 's.arrow', '--workers', 2, '--filter', 'all')
    assert done.returncode == 0, done.stderr
    assert '6 images' in done.stdout and 's.arrow' in done.stdout
    assert len(ProposalStore.open(tmp_path / 's.arrow')) == 6


@pytest.mark.parametrize('args, message', [
    (['{empty}', '{out}'], 'there are no images in'),
    (['{empty}/none', '{out}'], 'there are no images at'),
    (['{photos}', '{out}', '--filter', 'nms'], 'unknown filter'),
    (['{photos}', '{empty}'], '^error: the output .*/empty is a folder: give the name'),
    (['{photos}', '{photos}/a.png/s.arrow'], '^error: .*s.arrow could not be written .File exists'),
    (['{photos}', '{out}', '--workers', '0'], 'at least 1'),
])
def test_tool_explains_bad_input(tmp_path, small_photos, args, message):
    (tmp_path / 'empty').mkdir()
    places = dict(empty=tmp_path / 'empty', photos=small_photos, out=tmp_path / 's.arrow')
    done = run_tool(*(arg.format(**places) for arg in args))
    assert done.returncode == 2
    assert 'Traceback' not in done.stderr
    assert re.search(message, ' '.join(done.stderr.split()))
    assert [path.name for path in tmp_path.iterdir()] == ['empty']
    assert not ('error: ' in message and 'kernels' in done.stdout)  # an output is checked before


def test_photos_without_boxes_are_told(tmp_path):
    rng = np.random.default_rng(0)
    (tmp_path / 'photos').mkdir()
    for i, side in enumerate((18, 18, 180)):  # the official filter keeps sides of 32 pixels and more
        coarse = Image.fromarray(rng.integers(0, 255, (4, 5, 3), dtype=np.uint8))
        coarse.resize((side, side)).save(tmp_path / f'photos/{i}.png')
    out = tmp_path / 'new/folder/s.arrow'
    done = run_tool(tmp_path / 'photos', out, '--workers', 1)
    assert done.returncode == 0, done.stderr
    assert ('2 of 3 photos have no boxes. --setting fine finds smaller objects, --keep all or a '
            'smaller --min-side') in done.stdout
    done = run_tool(tmp_path / 'photos', out, '--workers', 1, '--overwrite', '--keep', 'all',
                    '--setting', 'fine')
    assert done.returncode == 0 and 'no boxes' not in done.stdout


def test_help_needs_neither_numba_nor_torch():
    code = ('import sys, runpy; sys.argv = ["x", "--help"]\n'
            f'try: runpy.run_path({str(TOOL)!r}, run_name="__main__")\n'
            'except SystemExit: pass\n'
            'assert not {"numba", "torch", "pyarrow", "rich"} & set(sys.modules)')
    assert subprocess.run([sys.executable, '-c', code], capture_output=True).returncode == 0
