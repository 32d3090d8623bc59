"""The work directory: files that are written, kept, or refused."""
import pytest
from mmengine.config import Config

from projects.soco.detectors.work_dir import WorkDir, check_own, write_config, write_detector


def detector(depth: int = 18) -> Config:
    return Config(dict(model=dict(type='RetinaNet', backbone=dict(
        type='ResNet', depth=depth, out_indices=(1, 2, 3)))))


def derived(epochs: int = 20) -> Config:
    return Config(dict(train_cfg=dict(max_epochs=epochs)))


def write(work: WorkDir, epochs: int = 20, resume: bool = False) -> bool:
    check_own(work, detector())
    write_detector(work, detector())
    return write_config(work, derived(epochs), 'Made by a test:\n\n  command', resume)


def test_both_configs_are_written_and_written_again(tmp_path):
    work = WorkDir.at(tmp_path / 'new')
    assert not write(work) and not write(work)
    assert work.config.read_text().startswith('# Made by a test:\n#\n#   command\n')
    assert Config.fromfile(work.config).train_cfg.max_epochs == 20
    assert Config.fromfile(work.detector).model == detector().model


@pytest.mark.parametrize('change', ['options', 'edited', 'trained'])
def test_what_is_there_counts_only_with_resume(tmp_path, change):
    work = WorkDir.at(tmp_path)
    write(work)
    if change == 'edited':
        work.config.write_text(work.config.read_text().replace('20', '30'))
    if change == 'trained':
        work.run.mkdir()
        (work.run / 'epoch_1.pth').touch()
    epochs = 40 if change == 'options' else 20
    before = work.config.read_text()
    with pytest.raises(ValueError, match='Add --resume'):
        write(work, epochs)
    assert write(work, epochs, resume=True) == (change != 'trained')
    assert work.config.read_text() == before


def test_a_folder_of_something_else_is_refused(tmp_path):
    work = WorkDir.at(tmp_path)
    write(work)
    with pytest.raises(ValueError, match='work directory of another detector'):
        check_own(work, detector(34))
    work.detector.unlink()
    with pytest.raises(ValueError, match='the folder of something else .it contains pretraining.py'):
        check_own(work, detector())
    (tmp_path / 'file').touch()
    with pytest.raises(ValueError, match='is a file'):
        check_own(WorkDir.at(tmp_path / 'file'), detector())
