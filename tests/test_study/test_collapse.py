"""The collapse study: its runs, records, table and picture, in miniature; and its CPU config."""
import json
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
from mmengine.config import Config
from PIL import Image
from scripts import PYTHON
from small import ROOT, make_photos

from projects.soco.study.collapse import (
    collapse_tables,
    detector_tables,
    detectors_of,
    draw_collapse,
    draw_ranks_and_ap,
    mean_difference,
)

STUDY = ROOT / 'configs/benchmarks/collapse_study/study_cpu.py'
TOOL = ROOT / 'tools/benchmarks/collapse_study.py'
BASE = f"""_base_ = '{ROOT}/configs/benchmarks/collapse_study/base.py'
model = dict(
    backbone=dict(base_channels=16), neck=dict(in_channels=[16, 32, 64, 128]),
    roi_head=dict(bbox_head=dict(conv_out_channels=16)))
for view in _base_.train_dataloader.dataset.pipeline[1].views:
    view.size = 32
train_dataloader = dict(batch_size=2)
train_cfg = dict(max_epochs=2)
default_hooks = dict(
    logger=dict(interval=1), checkpoint=dict(interval=2), rank=dict(interval=2, num_objects=16))
"""


def run_tool(*arguments: str | Path) -> tuple[int, str]:
    done = subprocess.run([PYTHON, str(TOOL), *map(str, arguments)], cwd=ROOT, text=True,
                          capture_output=True, env={**os.environ, 'PYTHONPATH': str(ROOT)})
    return done.returncode, done.stdout + done.stderr


@pytest.mark.slow(40)
def test_a_study_in_miniature(tmp_path: Path):
    make_photos(tmp_path / 'data/own/images', 6)
    (tmp_path / 'data/own/train.json').write_text(json.dumps(dict(images=[
        dict(id=i, file_name=f'photo_{i:03}.png') for i in range(5)])))  # the sixth is not of train
    (tmp_path / 'base.py').write_text(BASE)
    (tmp_path / 'study.py').write_text(f"""
study = dict(
    name='miniature', base='{tmp_path}/base.py', data='own/train.json', workers=2,
    runs=dict(
        base=dict(group='base'),
        terms=dict(group='terms', options={{
            'model.regulariser': dict(_delete_=True, type='VarianceCovariance')}}),
        four=dict(group='photos', photos=4, data='own/images'),
        lost=dict(group='rate', options={{'optim_wrapper.optimizer.lr': 1e30}})))
""")
    arguments = (tmp_path / 'study.py', '--data', tmp_path / 'data', '--work-dir', tmp_path / 'work')
    code, told = run_tool(*arguments, '--only', 'base', 'four')
    assert code == 0, told
    path = tmp_path / 'work/results.json'
    first = json.loads(path.read_text())['records']
    assert set(first) == {'base', 'four'}
    code, told = run_tool(*arguments)
    assert code == 0, told
    content = json.loads(path.read_text())
    assert {key: content['records'][key] for key in first} == first  # not repeated
    assert content['records']['lost']['lost'] == 'diverged'
    base, terms = (content['records'][name] for name in ('base', 'terms'))
    assert base['before'] == terms['before'] and base['after'] != terms['after']
    assert base['curves']['loss'] != terms['curves']['loss']
    assert [step for step, _ in base['curves']['loss']] == [1, 2, 3, 4]
    assert base['before']['online object']['dimensions'] == 256 and str(tmp_path) not in path.read_text(
        ).replace(f'{tmp_path}/base.py', '')
    for store, photos in (('own_train_all', 5), ('own_images_4', 4)):
        assert len((tmp_path / f'work/{store}.txt').read_text().split()) == photos
    for name in first:
        assert f'| {name} |' in told
    with Image.open(tmp_path / 'work/collapse.png') as picture:
        assert np.asarray(picture.convert('RGB')).std() > 10


def rank(value: float) -> dict:
    return dict(effective_rank=value, rankme=2 * value, leading_share=.5, silent=3, by_box=.1,
                dimensions=256, num_objects=1000)


def test_the_table_has_the_figures_of_each_run_with_its_group():
    def record(group: str, after: float) -> dict:
        return dict(group=group, before={'online object': rank(100)}, top1=[.1, .25],
                    after={'online object': rank(after), 'online projection': rank(after / 2)},
                    curves=dict(loss=[[1, 0.], [2, -3.]], obj_rank=[[1, 90.], [2, after]]))
    records = dict(base=record('base', 2.), far=record('other', 50.), seed=record('base', 4.),
                   gone=dict(group='other', lost='diverged'))
    rows = collapse_tables(dict(records=records)).splitlines()
    assert [row.split(' | ')[1] for row in rows[2:]] == ['base', 'seed', 'far', 'gone']
    assert rows[2] == ('| base | base | 100.0 | 2.0 | 0.02 | 0.50 | 0.10 | 3 | 1.0 | 10.0% → 25.0% | '
                       '-3.00 |')
    assert len({row.count('|') for row in rows}) == 1
    assert draw_collapse(dict(records=records)).std() > 10


def study_of(photos: str, gains: dict[tuple[int, int], float]) -> dict:
    """Records of a study in which the terms gain so much by share and seed over ImageNet's 0.4."""
    arms = dict(imagenet=dict(title='ImageNet', method=None), soco=dict(title='SoCo', method='soco'),
                soco_terms=dict(title='SoCo with terms', method='soco_terms'))
    records = {f'pretrain/{method}/seed{seed}': dict(
        ranks=dict(before={'online object': rank(100)}, after={'online object': rank(after)}))
        for method, after in (('soco', 5), ('soco_terms', 60)) for seed in (0, 1)}
    for (share, seed), gain in gains.items():
        for arm, ap in (('imagenet', .4), ('soco', .3), ('soco_terms', .4 + gain)):
            records[f'finetune/{arm}/{share}percent/seed{seed}'] = dict(values={
                f'box_{name}@{point}': ap for name in ('AP', 'AP50') for point in (150, 300)})
    return dict(study=f'collapse_{photos}', arms=arms, records=records)


def test_detectors_are_compared_in_pairs_over_all_studies():
    contents = [study_of('cards', {(100, 0): .1, (25, 0): .2}), study_of('bccd', {(100, 0): 0.})]
    detectors = [d for content in contents for d in detectors_of(content)]
    assert {d.arm: d.rank_share for d in detectors} == dict(imagenet=1., soco=.05, soco_terms=.6)
    mean, low, high, pairs = mean_difference(detectors, 'soco_terms', 'imagenet', 'box_AP@150')
    # three pairs: mean 0.1, deviation 0.1, t with 2 degrees of freedom
    half = 4.302653 * .1 / np.sqrt(3)
    assert (mean, low, high, pairs) == pytest.approx((.1, .1 - half, .1 + half, 3))
    one = [d for d in detectors if d.study == 'collapse_bccd']
    mean, low, _, pairs = mean_difference(one, 'soco_terms', 'soco', 'box_AP@150')
    assert mean == pytest.approx(.1) and np.isnan(low) and pairs == 1
    text = detector_tables(contents, (150, 300))
    assert '| cards | 25 % | SoCo with terms | 1 | 0.60 | 60.0 | 60.0 | 60.0 | 60.0 |' in text
    assert '| SoCo with terms − ImageNet | all | 3 | +10.0 (-14.8 to 34.8)' in text
    assert '| SoCo − ImageNet | bccd | 1 | -10.0 (nan to nan)' not in text
    assert '| SoCo − ImageNet | bccd | 1 | -10.0 |' in text
    assert draw_ranks_and_ap(contents, 150).std() > 10


def test_each_run_of_the_cpu_study_changes_what_it_names():
    """Every option names a key that the base has, except the terms and weight decay by parameter."""
    study = Config.fromfile(STUDY).study
    new = {'model.regulariser', 'optim_wrapper.paramwise_cfg', 'load_from'}
    for name, wanted in study.runs.items():
        assert set(wanted) <= {'group', 'options', 'config', 'weights', 'photos', 'data'}, name
        cfg = Config.fromfile(ROOT / wanted.get('config', study.base))
        for key in set(wanted.get('options', ())) - new:
            node, parts = cfg, key.split('.')
            # a view has defaults that the config does not list
            for part in parts[:-1] if '.views.' in key else parts:
                node = node[int(part)] if isinstance(node, list) else node[part]
    assert Config.fromfile(ROOT / study.base).model.regulariser is None
    assert sum(wanted['group'] != 'terms' for wanted in study.runs.values()) >= 35


@pytest.mark.parametrize(('arguments', 'message'), [
    (('nowhere.py', ), 'There is no study at nowhere.py'),
    ((STUDY, ), 'Set --data DIR'),
    ((STUDY, '--data', '.', '--only', 'nothing'), 'has no run nothing'),
    ((STUDY, '--data', 'nowhere', '--only', 'lite0_imagenet', '--work-dir', 'WORK'), '--weights FILE'),
    ((STUDY, '--data', 'nowhere', '--only', 'base', '--work-dir', 'WORK'), 'There is no nowhere/cards'),
    ((STUDY, '--tables', '--work-dir', 'WORK'), 'There are no results at'),
])
def test_what_users_get_wrong(tmp_path: Path, arguments: tuple, message: str):
    code, told = run_tool(*(tmp_path / 'work' if word == 'WORK' else word for word in arguments))
    assert code == 2 and message in ' '.join(told.split()), told
