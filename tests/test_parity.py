"""The project's model against numbers from the official code; see `parity.py`."""
import parity
import pytest
from small import ROOT

FILES = ROOT / 'tests/data/parity'


@pytest.mark.parametrize('name, channels_last', [
    ('fpn_r18', False), ('fpn_r18', True), ('fpn_star_r18', False),
    pytest.param('c4_r50', False, marks=pytest.mark.slow)])
def test_parity(name, channels_last):
    rows = parity.compare(FILES / f'{name}.json', channels_last)
    assert len(rows) >= 10
    assert [row for row in rows if not row.difference <= row.tolerance] == []


def test_a_wrong_model_is_noticed(monkeypatch):
    monkeypatch.setattr('projects.soco.models.roi_heads.SoCoRoIExtractor.map_roi_levels',
                        lambda self, rois, num_levels: rois.new_zeros(len(rois)).long())
    rows = parity.compare(FILES / 'fpn_r18.json')
    assert any(row.difference > row.tolerance for row in rows)
