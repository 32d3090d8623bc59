"""The JSON of a study, its tables and its picture."""
import json
from pathlib import Path

import numpy as np
import pytest
from small import ROOT

from projects.soco.study.plan import Job, read_study
from projects.soco.study.records import Records, read_records
from projects.soco.study.summary import OBJECTS, compare, draw, points_of, tables

ARMS = dict(random=dict(title='random', method=None), byol=dict(title='BYOL', method='byol'),
            soco=dict(title='SoCo', method='soco'), soco_fpn=dict(title='SoCo, FPN', method='soco'))
ABOUT = dict(study='made_up', seeds=[0, 1])


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(ROOT)
    path = tmp_path / 'study.py'
    path.write_text(f"_base_ = '{ROOT}/configs/benchmarks/transfer_study/study_cpu.py'\n"
                    'study = dict(seeds=[0, 1], resamples=40)\n')
    return read_study(path)


def object_values(level: float) -> dict[str, float]:
    return {name: level + 0.01 * i for names in OBJECTS.values() for i, name in enumerate(names)}


def fill(records: Records) -> None:
    """Add results: random at 20 %, BYOL at 25 %, SoCo at 30 %, with one fine-tuning seed for SoCo."""
    noise = np.random.default_rng(0).normal(0, 0.01, 40)
    for arm, level in (('random', 0.2), ('byol', 0.25), ('soco', 0.3)):
        for seed in (0, 1):
            values = object_values(level + 0.02 * seed)
            records.add(Job('objects', arm, seed).key, dict(values=values, seconds=1.),
                        {name: value + noise for name, value in values.items()})
            ap = {f'{name}@{point}': level / 10 * point / 250 for point in (100, 200)
                  for name in ('box_AP', 'box_AP50', 'mask_AP', 'mask_AP50')}
            if arm != 'soco' or seed == 0:
                records.add(Job('finetune', arm, seed).key, dict(values=ap, seconds=60.),
                            {name: value + noise for name, value in ap.items()})
    records.add('trial/soco/options0',
                dict(options={'lr': 0.1}, seconds=30., values=object_values(0.2)))
    records.add('pretrain/soco/seed0', dict(
        options={'lr': 0.1}, seconds=90., gflop_per_image=4.5, ms_per_image=30.))
    records.set('arms', ARMS)


def test_records_stay_and_other_studies_are_refused(tmp_path: Path):
    fill(Records(tmp_path / 'results.json', ABOUT))
    again = Records(tmp_path / 'results.json', ABOUT)
    assert 'objects/soco/seed1' in again and 'objects/soco/seed2' not in again
    assert again['objects/soco/seed0']['values']['knn_object'] == 0.3
    assert again.samples('objects/soco/seed0')['knn_object'].shape == (40, )
    with pytest.raises(ValueError, match='Another study writes into .*, or a training'):
        Records(tmp_path / 'results.json', ABOUT)
    del again
    with pytest.raises(ValueError, match='another seeds; records of the two would mix'):
        Records(tmp_path / 'results.json', {**ABOUT, 'seeds': [3]})


@pytest.mark.parametrize('text', ['', '[]', '{"version": 9, "records": {}}', '{"version": 1}'])
def test_a_file_that_is_none_is_told(tmp_path: Path, text: str):
    (tmp_path / 'results.json').write_text(text)
    with pytest.raises(ValueError, match='does not contain the results of a study'):
        read_records(tmp_path / 'results.json')
    with pytest.raises(FileNotFoundError, match='run tools/benchmarks/transfer_study.py'):
        read_records(tmp_path / 'gone.json')


def test_arms_are_compared_where_all_seeds_are_there(tmp_path: Path, study):
    records = Records(tmp_path / 'results.json', ABOUT)
    fill(records)
    found = compare(study, records)
    assert set(found['objects']) == {'byol - random', 'soco - random', 'soco - byol'}
    value, low, high = found['objects']['soco - byol']['knn_object']
    # the noise is shared, so it cancels out
    assert (value, low, high) == pytest.approx((0.05, 0.05, 0.05))
    assert set(found['finetune/100']) == {'byol - random'}  # soco lacks a seed


def test_tables_hold_the_figures(tmp_path: Path, study):
    records = Records(tmp_path / 'results.json', ABOUT)
    fill(records)
    records.set('comparisons', compare(study, records))
    content = json.loads((tmp_path / 'results.json').read_text())
    text = '\n\n'.join(tables(content))
    assert text.count('| SoCo | 2 | 31.0 ± 1.4 | 32.0 ± 1.4 |') == 2
    assert '| SoCo − BYOL | +5.0 (5.0 to 5.0) |' in text
    assert '| SoCo | 1 | 100 | 1.2 | 1.2 | 1.2 | 1.2 |' in text  # one seed has no spread
    assert '| BYOL − random | +0.2 (0.2 to 0.2) | +0.4 (0.4 to 0.4) |' in text
    assert '| soco | 1 | 4.50 | 30.0 | `lr=0.1` |' in text
    assert 'SoCo, FPN' not in text and points_of(content, 100) == [100, 200]


def test_arms_that_share_their_backbone_stand_once(tmp_path: Path, study):
    records = Records(tmp_path / 'results.json', ABOUT)
    fill(records)
    for seed in (0, 1):  # the features of the head differ, those of the backbone do not
        values = dict(records[f'objects/soco/seed{seed}']['values'], knn_object=0.5)
        records.add(f'objects/soco_fpn/seed{seed}', dict(values=values),
                    records.samples(f'objects/soco/seed{seed}'))
    records.set('comparisons', compare(study, records))
    head, head_differences, backbone, backbone_differences, *_ = tables(records.content)
    for table, times in ((head, 1), (head_differences, 2), (backbone, 0), (backbone_differences, 0)):
        assert table.count('| SoCo, FPN ') == times, table
    assert backbone.count('| SoCo |') == 1 and backbone.index('BYOL') < backbone.index('SoCo')


def test_the_picture_has_a_panel_for_each_kind(tmp_path: Path):
    from PIL import Image
    records = Records(tmp_path / 'results.json', ABOUT)
    records.set('arms', ARMS)
    assert draw(records.content, tmp_path / 'none.png') is None
    fill(records)
    path = draw(records.content, tmp_path / 'study.png')
    with Image.open(path) as picture:
        assert picture.size == (1400, 720) and np.asarray(picture).std() > 10
