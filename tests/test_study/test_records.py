"""The JSON of a study."""
from pathlib import Path

import numpy as np
import pytest

from projects.soco.study.records import Records, read_records

ABOUT = dict(study='made_up', seeds=[0, 1])


def test_records_stay_and_other_studies_are_refused(tmp_path: Path):
    first = Records(tmp_path / 'results.json', ABOUT)
    first.add('finetune/soco/seed1', dict(values={'box_AP50@8': .3}), {'box_AP50@8': np.zeros(40)})
    del first
    again = Records(tmp_path / 'results.json', ABOUT)
    assert 'finetune/soco/seed1' in again and 'finetune/soco/seed2' not in again
    assert again['finetune/soco/seed1']['values'] == {'box_AP50@8': .3}
    assert again.samples('finetune/soco/seed1')['box_AP50@8'].shape == (40, )
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
    with pytest.raises(FileNotFoundError, match='There are no results at .*gone.json'):
        read_records(tmp_path / 'gone.json')
