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


@pytest.mark.parametrize('path', sorted(FOLDER.glob('*.json')), ids=lambda path: path.stem)
def test_nothing_of_one_machine_is_in_a_json(path: Path):
    assert not re.search(r'"[^"]*(?<!\w)/(?:work|root|home|tmp)/', path.read_text())


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


def test_the_page_on_own_photos_is_made_from_its_json():
    page = (FOLDER / 'own_photos.md').read_text()
    content = read_records(FOLDER / 'own_photos.json')
    made = tables(content)
    assert len(made) == 4
    for table in made:
        assert table in page, f'the page lacks:\n{table}'
    assert content['machine']['cpu'] in page
    for name in ('own_photos.png', 'own_photos_differences.png'):
        assert name in page and (FOLDER / name).is_file()
