"""The page of results contains the tables of the JSON beside it."""
import json
import re
from pathlib import Path

import pytest
from small import ROOT

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
