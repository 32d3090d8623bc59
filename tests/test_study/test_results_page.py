"""The page of results contains the tables of the JSON beside it."""
import json
import re
from pathlib import Path

import pytest
from small import ROOT

from projects.soco.study.collapse import collapse_tables, detector_tables
from projects.soco.study.records import read_records
from projects.soco.study.summary import tables

FOLDER = ROOT / 'docs/results'
RESULTS = sorted(FOLDER.glob('transfer_study_*.json'))


@pytest.mark.parametrize('path', RESULTS, ids=lambda path: path.stem)
def test_tables_are_made_from_the_json(path: Path):
    page = (FOLDER / 'transfer_study.md').read_text()
    content = read_records(path)
    made = tables(content)
    assert len(made) >= 4
    for table in made:
        assert table in page, f'the page lacks:\n{table}'
    dates = {record['date'] for record in content['records'].values()}
    assert all(date in page for date in dates) and content['machine']['cpu'] in page
    picture = path.with_suffix('.png')
    assert picture.is_file() and picture.name in page


@pytest.mark.parametrize('path', RESULTS, ids=lambda path: path.stem)
def test_nothing_of_one_machine_is_in_the_json(path: Path):
    text = path.read_text()
    assert not re.search(r'"[^"]*(?<!\w)/(?:work|root|home|tmp)/', text)
    assert all(0 <= value <= 1 for record in json.loads(text)['records'].values()
               for value in record.get('values', {}).values())


def test_the_page_on_collapse_is_made_from_its_json():
    page = (FOLDER / 'collapse.md').read_text()
    runs = json.loads((FOLDER / 'collapse_study_cpu.json').read_text())
    detectors = [read_records(path) for path in sorted(FOLDER.glob('collapse_[bc]*[sd].json'))]
    assert [content['study'] for content in detectors][-1:] == ['collapse_cards']
    assert collapse_tables(runs).strip() in page
    assert detector_tables(detectors, (150, 300)).strip() in page
    assert runs['machine']['cpu'] in page
    assert all(record['date'] in page for content in (runs, *detectors)
               for record in content['records'].values())
    for name in ('collapse_study_cpu.png', 'collapse_detectors.png'):
        assert name in page and (FOLDER / name).is_file()
    for path in FOLDER.glob('collapse_*.json'):
        assert not re.search(r'"[^"]*(?<!\w)/(?:work|root|home|tmp)/', path.read_text()), path
