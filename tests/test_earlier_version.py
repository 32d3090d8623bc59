"""A work directory that an earlier version wrote: its run goes on, is evaluated, and is published.

`data/earlier_version.txt` is the config that the version of 2026-11-27 dumped for the quickstart, with
fewer channels, photos and epochs. The checkpoint is made here, as none may be committed.
"""
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from small import ROOT, make_photos, make_store

from projects.soco.compat.cpu import cpu_config
from projects.soco.engine.runner import SummaryRunner
from projects.soco.evaluation.loading import build_model
from projects.soco.evaluation.objects import held_out_dataset, score_objects
from projects.soco.launch.configs import load_config
from projects.soco.runs.publish import publish
from projects.soco.runs.read import read_work_dir
from projects.soco.runs.resume import check_resume
from projects.soco.weights.read import read_checkpoint

TEXT = (ROOT / 'tests/data/earlier_version.txt').read_text(encoding='utf-8')


def train(config: Path, work: Path, epochs: int, start: Path | None = None) -> Config:
    cfg = cpu_config(load_config(str(config), {}))
    cfg.work_dir, cfg.log_level = str(work), 'WARNING'
    cfg.train_cfg.max_epochs = epochs
    if start:
        cfg.resume, cfg.load_from = True, str(start)
    SummaryRunner.from_cfg(cfg).train()
    return cfg


@pytest.fixture(scope='module')
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, str]:
    """The config of an earlier version, its checkpoint after one of two epochs, and its text."""
    folder = tmp_path_factory.mktemp('earlier')
    make_photos(folder / 'photos', 6)
    store = make_store(folder / 'proposals.arrow', folder / 'photos')
    text = TEXT.replace('PHOTOS', str(folder / 'photos')).replace('PROPOSALS', str(store))
    config = folder / 'work/config.py'
    config.parent.mkdir()
    config.write_text(text, encoding='utf-8')
    train(config, folder / 'work', 1)
    path = folder / 'work/epoch_1.pth'
    content = read_checkpoint(path)
    content['meta']['cfg'] = text  # as that version wrote it
    torch.save(content, path)
    return config, path, text


def test_the_text_is_of_an_earlier_version():
    assert "type='SoCoBBoxHead'" in TEXT and 'ResumeHook' not in TEXT
    assert 'hand_over' not in TEXT and 'convert_to_iter_based' in TEXT


def test_its_run_is_resumed(run, tmp_path):
    config, path, _ = run
    before = read_checkpoint(path)
    cfg = load_config(str(config), {})
    changes = check_resume(path, before, cfg)
    assert 'model.' not in changes
    train(config, tmp_path, 2, path)
    after = read_checkpoint(tmp_path / 'epoch_2.pth')
    assert after['meta']['iter'] == 2 * before['meta']['iter'] == 6
    assert after['state_dict'].keys() == before['state_dict'].keys()


def test_its_checkpoint_is_evaluated(run):
    config, path, _ = run
    cfg = load_config(str(config), {})
    model = build_model(cfg, path)
    assert all(torch.equal(value, read_checkpoint(path)['state_dict'][key])
               for key, value in model.state_dict().items())
    data = cfg.train_dataloader.dataset
    score = score_objects(model, held_out_dataset(cfg, data.data_root, data.proposals), 6, 1)
    assert 0 <= score.top1 <= 1 and score.chance < 0.5


def test_its_checkpoint_is_published_and_its_detector_known(run, tmp_path):
    _, path, _ = run
    published = publish(path, tmp_path, name='earlier')
    weights = read_checkpoint(published.weights[0])['state_dict']
    assert {'.'.join(key.split('.')[:3]) for key in weights if key.startswith('roi_head.')} == {
        'roi_head.bbox_head.shared_convs', 'roi_head.bbox_head.shared_fcs'}
    assert 'dist_train_fpn.sh configs/benchmarks/mmdetection/own_photos/faster-rcnn_r18_fpn.py' in (
        published.card.read_text())
    assert all('run.json' in trouble for trouble in read_work_dir(path.parent).troubles)
