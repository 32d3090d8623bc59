"""Counts of the boxes of a data set by pyramid level."""
import subprocess

import pytest
import torch
from mmengine.config import Config
from scripts import PYTHON
from small import ROOT, make_photos

from projects.soco.evaluation.levels import count_levels
from projects.soco.proposals.store import StoreWriter


def recipe(folder, side: float) -> Config:
    """Return the recipe without jitter and crops; each photo has one box of `side` of its size."""
    make_photos(folder / 'photos', 2, size=(100, 100))
    with StoreWriter(folder / 'boxes.arrow', dict(rules=['made up'])) as writer:
        for photo in sorted((folder / 'photos').glob('*.png')):
            writer.add(photo.name, 100, 100, [[5, 5, int(100 * side), int(100 * side)]], 'made up')
    cfg = Config.fromfile(ROOT / 'configs/soco_r50_fpn_without_p2_400e.py')
    cfg.train_dataloader.dataset.update(data_root=str(folder / 'photos'),
                                        proposals=str(folder / 'boxes.arrow'))
    cfg.train_dataloader.dataset.pipeline[1].update(
        views=[dict(size=224), dict(size=224), dict(size=112)], jitter_prob=0.0)
    return cfg


@pytest.mark.parametrize('side, levels', [(0.2, (0, 0, 0)), (0.4, (1, 1, 0)), (0.8, (2, 2, 1))])
def test_levels_of_boxes_whose_size_is_known(tmp_path, side, levels):
    counts = count_levels(recipe(tmp_path, side), samples=3)
    wanted = torch.zeros(3, 4, dtype=torch.long)
    wanted[0, levels[0]], wanted[1, levels[1]], wanted[2, levels[2]] = 24, 12, 12
    assert torch.equal(counts, wanted)  # the first view has the boxes of both view pairs


def test_no_pyramid_no_levels():
    with pytest.raises(ValueError, match='no pyramid'):
        count_levels(Config.fromfile(ROOT / 'configs/soco_r50_c4_400e.py'), samples=1)


@pytest.mark.slow
def test_the_tool_says_what_moves(tmp_path):
    recipe(tmp_path, 0.2)
    run = subprocess.run(
        [PYTHON, ROOT / 'tools/count_levels.py',
         ROOT / 'configs/soco_r50_fpn_without_p2_400e.py', '--samples', '4', '--cfg-options',
         f'train_dataloader.dataset.data_root={tmp_path}/photos',
         f'train_dataloader.dataset.proposals={tmp_path}/boxes.arrow'],
        capture_output=True, text=True, cwd=ROOT, check=True)
    assert '% of the boxes' in run.stdout and '100.00 to P3' in run.stdout
