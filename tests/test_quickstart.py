"""The whole quickstart: photos, proposals, pretraining, a detector, pictures."""
import os
import re
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scripts import PYTHON
from small import ROOT

from projects.soco.proposals.store import ProposalStore


def quickstart(folder: Path, *arguments: str) -> subprocess.CompletedProcess:
    """Run the quickstart in a folder with its own work_dirs."""
    for name in ('tools', 'configs'):
        (folder / name).symlink_to(ROOT / name)
    return subprocess.run([PYTHON, 'tools/quickstart.py', *arguments], cwd=folder, text=True,
                          capture_output=True, timeout=1200, env={
                              **os.environ, 'PYTHONPATH': str(ROOT), 'COLUMNS': '120'})


@pytest.mark.slow(150)
def test_the_whole_way(tmp_path):
    done = quickstart(tmp_path)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    out = tmp_path / 'work_dirs/quickstart'
    assert len(ProposalStore.open(out / 'proposals.arrow')) == 8
    assert done.stdout.count(' yes ') == 4 and ' NO ' not in done.stdout
    assert '194 of 194 keys matched' in done.stdout
    assert re.search(r'box AP 0\.\d+', done.stdout) and re.search(r'mask AP 0\.\d+', done.stdout)
    assert 'same eight photos' in done.stdout
    assert (out / 'pretrain/epoch_10.pth').is_file() and list((out / 'finetune').glob('iter_*.pth'))
    page = (out / 'pretrain/report.html').read_text()
    assert f'report               {out.relative_to(tmp_path)}/pretrain/report.html' in done.stdout
    assert 'Finished' in page and 'top1 same photo' in page and page.count('image/webp') == 4
    assert '>Warnings<' not in page
    for name in ('proposals', 'views', 'training'):
        with Image.open(out / f'pictures/{name}.png') as picture:
            pixels = np.asarray(picture.convert('RGB'))
        assert pixels.shape[0] > 300 and pixels.std() > 20, name


def test_a_folder_without_photos_loses_nothing(tmp_path):
    kept = tmp_path / 'work_dirs/quickstart/pretrain/epoch_10.pth'
    kept.parent.mkdir(parents=True)
    kept.write_text('weights of an earlier run')
    (tmp_path / 'empty').mkdir()
    done = quickstart(tmp_path, 'empty')
    assert done.returncode == 2 and 'empty contains no photo' in done.stderr
    assert kept.is_file()
