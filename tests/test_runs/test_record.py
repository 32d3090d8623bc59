"""The record of a run, and the comparison of its config with the project's."""
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from mmengine.config import Config
from small import ROOT

from projects.soco.launch.errors import Stopped
from projects.soco.runs.config_changes import (
    changes_against,
    config_values,
    known_config,
    nearest_known,
    read_dumped,
)
from projects.soco.runs.record import RECORD, read_record, recorded

QUICKSTART = ROOT / 'configs/soco_r18_fpn_quickstart.py'


def runner_in(folder: Path, resume: bool = False) -> SimpleNamespace:
    return SimpleNamespace(work_dir=str(folder), _resume=resume)


def test_a_session_is_written_at_its_start_and_ended(tmp_path):
    with recorded(runner_in(tmp_path), str(QUICKSTART)):
        session, = read_record(tmp_path / RECORD)
        assert 'ended' not in session and 'how' not in session
    session, = read_record(tmp_path / RECORD)
    assert session['how'] == 'finished' and session['started'] <= session['ended']
    assert session['known_configs'] == ['soco_r18_fpn_quickstart.py'] and session['processes'] == 1
    assert session['versions']['torch'] == torch.__version__.split('+')[0]
    assert session['cores'] >= 1 and session['memory_gib'] >= 1 and session['cpu']


@pytest.mark.parametrize('error, how', [
    (ValueError('no photos'), 'failed: no photos'), (Stopped(75), 'stopped by a signal'),
    (KeyboardInterrupt(), 'interrupted from the keyboard')])
def test_how_a_session_ended(tmp_path, error, how):
    with pytest.raises(type(error)), recorded(runner_in(tmp_path), 'c.py'):
        raise error
    assert read_record(tmp_path / RECORD)[0]['how'] == how


def test_resuming_adds_a_session_and_starting_anew_does_not(tmp_path):
    for resume, count in ((False, 1), (True, 2), (True, 3), (False, 1)):
        with recorded(runner_in(tmp_path, resume), 'c.py'):
            assert len(read_record(tmp_path / RECORD)) == count
    (tmp_path / RECORD).write_text('{"sessions": [{"config"')
    with recorded(runner_in(tmp_path, True), 'c.py'):
        pass  # an incomplete record does not stop the training
    assert len(read_record(tmp_path / RECORD)) == 1


@pytest.mark.parametrize('content', ['', '[]', '{"sessions": []}', '{"sessions": [{"config": 3}]}'])
def test_a_record_that_is_none(tmp_path, content):
    (tmp_path / RECORD).write_text(content)
    with pytest.raises(ValueError, match=f'{RECORD} is not the record of a run.*removed'):
        read_record(tmp_path / RECORD)


def test_a_dumped_config_is_read_as_it_was():
    cfg = Config.fromfile(QUICKSTART)
    cfg.merge_from_dict({'train_dataloader.dataset.data_root': 'my "photos"',
                         'train_dataloader.batch_size': 4, 'work_dir': 'elsewhere'})
    found = read_dumped(cfg.pretty_text)
    assert found == cfg._cfg_dict.to_dict()
    assert changes_against(found, [QUICKSTART]) == [
        ('train_dataloader.batch_size', '8', '4'),
        ('train_dataloader.dataset.data_root', "'work_dirs/quickstart/photos'", "'my \"photos\"'")]


def test_reading_a_config_runs_nothing(tmp_path):
    mark = tmp_path / 'mark'
    call = f"open({str(mark)!r}, 'w')"
    found = read_dumped(f'import os\n{call}\na = {call}\nb = dict(c=[{call}, 1], d=-2.5)')
    assert found == {'a': call, 'b': {'c': [call, 1], 'd': -2.5}} and not mark.exists()
    with pytest.raises(ValueError, match='cannot be read as a config'):
        read_dumped('a = dict(')


def test_an_ablation_against_its_parent():
    ablation = known_config('batch_1024.py')
    assert ablation == ROOT / 'configs/ablations/batch_1024.py'
    changes = changes_against(config_values(ablation), [ROOT / 'configs/soco_r50_fpn_100e.py'])
    assert changes == [('optim_wrapper.optimizer.lr', '8.0', '4.0'),
                       ('train_dataloader.batch_size', '256', '128')]


def test_the_nearest_config_of_the_project(tmp_path):
    (tmp_path / 'mine.py').write_text(f"_base_ = ['{QUICKSTART}']\n")
    (tmp_path / 'more.py').write_text("_base_ = 'mine.py'\n")
    assert nearest_known(tmp_path / 'more.py') == ['soco_r18_fpn_quickstart.py']
    assert nearest_known(tmp_path / 'none.py') == []
    assert known_config('../setup.py') is None and known_config('/etc/passwd') is None
