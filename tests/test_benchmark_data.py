"""The data benchmark runs, and its official-style baseline implements the same recipe."""
import json
import random
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from official_data import OfficialData, official_data
from scripts import PYTHON
from small import ROOT, make_photos, make_store, tiny_config

from projects.soco.datasets import SoCoDataset

CONFIG = 'configs/soco_r50_fpn_100e.py'
STILL = dict(jitter_prob=0.0, grey_prob=0.0, blur_prob=0.0)
VIEWS = [dict(size=48), dict(size=48, area=(0.5, 1.0)), dict(size=32, area=(0.5, 1.0))]


@pytest.fixture(scope='module')
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp('data')
    make_photos(folder / 'photos', 6)
    make_store(folder / 'p.arrow', folder / 'photos')
    return folder


def still(folder: Path, views=VIEWS, **kwargs) -> tuple[OfficialData, SoCoDataset]:
    """Return both data pipelines without colours, jitter and flips."""
    where = (str(folder / 'photos'), str(folder / 'p.arrow'))
    quiet = dict(jitter_prob=0.0, flip_prob=0.0, num_proposals=8)
    official = OfficialData(*where, views, [STILL] * len(views), [0] * 3, [255] * 3, **quiet, **kwargs)
    pipeline = [dict(type='LoadProposals'), dict(type='ProposalViews', views=views, **quiet),
                dict(type='ProposalCutout', prob=0.0), dict(type='PackSoCoInputs')]
    return official, SoCoDataset(*where, pipeline)


def test_the_official_style_shows_the_same(folder):
    """Whole photos and their boxes, since the two pipelines draw crops with different generators."""
    official, ours = still(folder, [dict(size=48), dict(size=32)])
    for index in range(len(ours)):
        views, boxes = official[index]
        sample = ours[index]
        for view, own in zip(views, sample['inputs']):
            assert (view * 255 - own.flip(0)).abs().max() <= 1.01
        pairs, own_pairs = ({tuple(np.round(row, 2)) for row in torch.cat([*pair], 1).tolist()}
                            for pair in (boxes[0], sample['bboxes'][0]))
        assert len(own_pairs) == 6 and pairs == own_pairs


def test_the_official_style_has_the_same_distribution(folder):
    """Crops, flips, jitter and cutout: means over many draws."""
    random.seed(0)
    torch.manual_seed(0)
    quiet = dict(jitter_prob=0.5, flip_prob=0.5)
    where = (str(folder / 'photos'), str(folder / 'p.arrow'))
    official = OfficialData(*where, VIEWS, [STILL] * 3, [127] * 3, [255] * 3, cutout_prob=0.5, **quiet)
    ours = SoCoDataset(*where, [
        dict(type='LoadProposals'), dict(type='ProposalViews', views=VIEWS, **quiet),
        dict(type='ProposalCutout', prob=0.5), dict(type='PackSoCoInputs')], repeat=60)
    theirs, own, erased, own_erased = [], [], [], []
    for index in range(len(ours)):
        views, boxes = official[index % 6]
        sample = ours[index]
        theirs.append(boxes)
        own.append(sample['bboxes'])
        erased.append((views[1] == 0).all(0).float().mean())
        corners = sample['cutouts'][1].float()
        own_erased.append((corners[:, 2:] - corners[:, :2]).prod(1).sum() / 48**2)
    theirs, own = torch.stack(theirs), torch.stack(own)
    assert (theirs.mean((0, 3)) - own.mean((0, 3))).abs().max() < 1.5  # pixels
    assert (theirs.std((0, 3)) - own.std((0, 3))).abs().max() < 1.5
    assert np.mean(erased) == pytest.approx(np.mean(own_erased), rel=0.25) and np.mean(erased) > 0.01


def test_the_recipe_is_read_from_the_config(tmp_path):
    cfg = tiny_config(tmp_path, train_dataloader__dataset__pipeline__2__prob=0.5)
    official = official_data(cfg)
    assert official.cutout_prob == 0.5 and official.num_proposals == 4
    views, boxes = official[0]
    assert [tuple(view.shape) for view in views] == [(3, 48, 48), (3, 48, 48), (3, 32, 32)]
    assert boxes.shape == (2, 2, 4, 4)


def run(*arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run([PYTHON, 'tools/benchmark_data.py', *arguments], cwd=ROOT,
                          capture_output=True, text=True, timeout=300)


@pytest.mark.slow
def test_the_tool(folder, tmp_path):
    out = tmp_path / 'out.json'
    done = run(CONFIG, '--images', str(folder / 'photos'), '--photos', '8', '--rounds', '2', '--batch',
               '4', '--workers', '0', '1', '--json', str(out))
    assert done.returncode == 0, done.stderr[-2000:]
    figures = json.loads(out.read_text())
    rows = figures['contenders']
    assert rows['official style']['ratio'] == 1
    assert all(row['rate'] > 0 and len(row['rates']) == 2 for row in rows.values())
    assert set(figures['workers']) == {'0', '1'} and min(figures['workers'].values()) > 0
    assert {'read', 'LoadProposals', 'windows and boxes', 'cut and resize view 3', 'PackSoCoInputs',
            'colours on the CPU'} < set(figures['stages'])
    assert min(figures['stages'].values()) > 0 and 'times the official style' in done.stdout


@pytest.mark.slow
@pytest.mark.parametrize('arguments, message', [
    (('--photos', '0'), 'at least 1'), (('--images', 'nowhere'), 'nowhere')])
def test_the_tool_refuses(arguments, message):
    done = run(CONFIG, *arguments)
    assert done.returncode == 2 and message in done.stderr
