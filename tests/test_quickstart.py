"""The whole quickstart: photos, proposals, pretraining, a detector, pictures."""
import importlib.util
import json
import os
import re
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scripts import PYTHON
from small import ROOT, make_photos, make_store

from projects.soco.evaluation.loading import build_model
from projects.soco.launch.configs import load_config
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
    assert done.stdout.count(' yes ') == 5 and ' NO ' not in done.stdout
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


@pytest.mark.slow
def test_a_network_that_did_not_learn_is_said_to(tmp_path, monkeypatch, capsys):
    """The weights are those of the start, and the loss does not fall."""
    monkeypatch.chdir(tmp_path)
    spec = importlib.util.spec_from_file_location('quickstart', ROOT / 'tools/quickstart.py')
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    monkeypatch.setattr(tool, 'PRETRAINING', str(ROOT / tool.PRETRAINING))
    make_photos(tool.OUT / 'photos', 3)
    store = make_store(tool.OUT / 'proposals.arrow', tool.OUT / 'photos')
    options = {f'train_dataloader.dataset.{key}': str(value) for key, value in
               dict(data_root=tool.OUT / 'photos', proposals=store).items()}
    cfg = load_config(tool.PRETRAINING, options)
    log = tool.OUT / 'pretrain/20260102_030405/vis_data/scalars.json'
    log.parent.mkdir(parents=True)
    log.write_text('\n'.join(json.dumps(dict(loss=-1, step=step)) for step in (1, 2)) + '\n')
    weights = tool.OUT / 'start.pth'
    torch.save(dict(state_dict=build_model(cfg, seed=cfg.randomness.seed).state_dict()), weights)
    assert not tool.judge(weights, options)
    told = capsys.readouterr().out
    assert told.count(' NO ') == 3 and 'collapsed' not in told  # all but the spread and the rank

    # A head with one direction: half of its units get the same weights, the others none.
    state = torch.load(weights)['state_dict']
    for prefix in ('', 'target.'):
        fc = state[f'{prefix}roi_head.bbox_head.shared_fcs.0.weight']
        fc[:128], fc[128:] = fc[:1].clone(), 0
    torch.save(dict(state_dict=state), weights)
    log.write_text('\n'.join(json.dumps(dict(loss=-step, step=step)) for step in (1, 2)) + '\n')
    assert not tool.judge(weights, options)
    told = ' '.join(capsys.readouterr().out.split())
    assert 'The object features differ in about 1 directions, those of random' in told


def test_a_folder_without_photos_loses_nothing(tmp_path):
    kept = tmp_path / 'work_dirs/quickstart/pretrain/epoch_10.pth'
    kept.parent.mkdir(parents=True)
    kept.write_text('weights of an earlier run')
    (tmp_path / 'empty').mkdir()
    done = quickstart(tmp_path, 'empty')
    assert done.returncode == 2 and 'empty contains no photo' in done.stderr
    assert kept.is_file()
