"""Tests of the inspection tool, from the command line."""
import json
import subprocess

import numpy as np
import pytest
from PIL import Image
from scripts import PYTHON
from small import ROOT, make_photos, make_store

from projects.soco.proposals.store import StoreWriter


def inspect(*arguments: object) -> subprocess.CompletedProcess:
    return subprocess.run([PYTHON, 'tools/inspect_proposals.py', *map(str, arguments)],
                          cwd=ROOT, capture_output=True, text=True, timeout=120)


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp('inspect')
    make_photos(folder / 'photos', 3)
    make_store(folder / 'p.arrow', folder / 'photos', boxes_per_photo=4)
    return folder


def test_statistics_and_pictures(folder):
    done = inspect(folder / 'p.arrow', '--images', folder / 'photos', '--out', folder / 'out')
    assert done.returncode == 0, done.stderr
    assert '3 images, 12 boxes' in done.stdout
    pictures = sorted(path.name for path in (folder / 'out').iterdir())
    assert pictures == ['photo_0.png', 'photo_1.png', 'photo_2.png', 'statistics.png']
    with Image.open(folder / 'out/photo_0.png') as picture:
        # the lines have the colours of the scale, from cyan to magenta
        pixels = np.asarray(picture.convert('RGB')).reshape(-1, 3).astype(int)
        assert (np.abs(pixels - [0, 255, 255]).sum(axis=1) < 40).sum() > 50


def test_export_of_what_it_shows(folder):
    done = inspect(folder / 'p.arrow', '--to-official', folder / 'official.json')
    assert done.returncode == 0, done.stderr
    boxes = json.loads((folder / 'official.json').read_text())
    assert sorted(boxes) == ['photo_000', 'photo_001', 'photo_002']
    assert all(len(rows) == 4 for rows in boxes.values())


def test_bad_input_is_explained(folder, tmp_path):
    done = inspect(tmp_path / 'nowhere.arrow')
    assert done.returncode == 2 and 'nowhere.arrow' in done.stderr
    with StoreWriter(tmp_path / 'p.arrow', dict(rules=['a'])) as writer:
        writer.add('gone.png', 10, 10, np.zeros((1, 4)), 'a')
    done = inspect(tmp_path / 'p.arrow', '--images', folder / 'photos', '--out', tmp_path / 'out')
    assert done.returncode == 2 and 'gone.png' in done.stderr and 'Traceback' not in done.stderr
