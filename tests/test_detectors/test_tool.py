"""tools/pretrain_detector.py: from a detector and photos to what the detector starts from."""
import json
import os
import re
import subprocess
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from scripts import PYTHON
from small import ROOT, make_photos, make_store

from projects.soco.detectors.build import build_detector
from projects.soco.detectors.read import read_detector

DETECTOR = """
_base_ = 'mmdet::retinanet/retinanet_r18_fpn_1x_coco.py'
model = dict(
    backbone=dict(base_channels=8, stem_channels=8),
    neck=dict(in_channels=[8, 16, 32, 64], out_channels=16),
    bbox_head=dict(in_channels=16, feat_channels=16))
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / 'tiny.py').write_text(DETECTOR)
    make_photos(tmp_path / 'photos', 6)
    return tmp_path


def run(folder: Path, *arguments: str) -> tuple[int, str]:
    done = subprocess.run(
        [PYTHON, str(ROOT / 'tools/pretrain_detector.py'), *arguments], cwd=folder, text=True,
        capture_output=True, timeout=600, env={**os.environ, 'COLUMNS': '200', 'OMP_NUM_THREADS': '1'})
    return done.returncode, done.stdout + done.stderr


@pytest.mark.slow(30)
@pytest.mark.parametrize('gpus', ['1', '2'])
def test_the_whole_way(folder, gpus):
    """One and two processes, in which every parameter must get a gradient; then what is finished.

    The photos of one process are those of YOLO's text files, one of them a link; the two processes
    start from weights, of which two stages stay as they are.
    """
    (folder / 'labels').mkdir()
    (folder / 'labels/classes.txt').write_text('thing')
    for path in (folder / 'photos').iterdir():
        (folder / f'labels/{path.stem}.txt').write_text('0 .5 .5 .5 .5')
    photos = ['photos'] if gpus == '2' else ['labels', '--root', 'photos']
    arguments = ['tiny.py', *photos, '--epochs', '1', '--batch-size', '2', '--gpus', gpus,
                 '--work-dir', 'work']
    frozen: dict = {}
    plain = folder / 'tiny.py'  # what MMDetection alone trains
    if gpus == '1':
        (folder / 'elsewhere').mkdir()  # a photo is a link out of the folder
        photo = min((folder / 'photos').iterdir())
        photo.symlink_to(photo.rename(folder / 'elsewhere' / photo.name))
        arguments += ['--follow-links', '--cfg-options', 'model.bbox_head.stacked_convs=2']
        plain = folder / 'work/detector.py'
    else:
        model = build_detector(read_detector(str(folder / 'tiny.py'))[0])[0]
        torch.save(dict(state_dict=model.backbone.state_dict()), folder / 'start.pth')
        frozen = {f'backbone.{key}': value for key, value in model.backbone.state_dict().items()
                  if not key.startswith(('layer3', 'layer4'))}
        arguments += ['--weights', 'start.pth', '--freeze', '2', '--backbone-rate', '0.5']
    make_store(folder / 'proposals.arrow', folder / 'photos')
    if gpus == '1':
        assert run(folder, *arguments, '--dry-run')[0] == 0
        (folder / 'proposals.arrow').rename(folder / 'work/proposals.arrow')  # those of an earlier call
    else:
        arguments += ['--proposals', 'proposals.arrow']
    code, output = run(folder, *arguments)
    assert code == 0, output[-3000:]
    assert len(list((folder / 'work').glob('annotations/labels.*.json'))) == (gpus == '1')
    found = re.search(r'(\d+) of \1 tensors of work/detector_start.pth are in the detector', output)
    start = torch.load(folder / 'work/detector_start.pth', weights_only=True)['state_dict']
    detector, _ = read_detector(str(folder / 'work/detector.py'))
    state = build_detector(detector)[0].state_dict()
    assert int(found[1]) == len(start) == 136 and start.keys() <= state.keys()
    assert all(torch.equal(start[key], value) for key, value in frozen.items())
    assert all(value.is_contiguous() for value in start.values())
    assert bool(frozen) == (' no: it stays as it is loaded (--freeze)' in output)
    assert re.search(r'neck +FPN +4  no: no box of a view reaches it', output)
    assert 'backbone: ResNet has frozen_stages=1 in the detector' in output
    assert (f'{plain} --cfg-options load_from={folder}/work/detector_start.pth '
            'model.backbone.init_cfg=None') in output
    code, output = run(folder, *arguments)
    assert code == 2 and 'contains a run that has trained already' in output
    (folder / 'work/detector_start.pth').unlink()
    more = ['--localise', '1'] if gpus == '1' else []
    code, output = run(folder, *arguments, '--resume', *more)
    assert code == 0 and 'The run is finished' in output, output[-3000:]
    assert (folder / 'work/detector_start.pth').exists()
    if more:
        before = torch.load(folder / 'work/contrastive_start.pth', weights_only=True)['state_dict']
        after = torch.load(folder / 'work/detector_start.pth', weights_only=True)['state_dict']
        assert before.keys() == start.keys() and after.keys() == state.keys() - {
            'bbox_head.retina_cls.weight', 'bbox_head.retina_cls.bias'}
        assert not torch.equal(after['bbox_head.retina_reg.bias'], state['bbox_head.retina_reg.bias'])
        assert re.search('of work/detector_start.pth are in the detector, .*; 2 others', output)


def test_a_dry_run_writes_configs_only(folder):
    code, output = run(folder, 'tiny.py', 'photos', '--dry-run', '--batch-size', '2')
    assert code == 0, output
    work = folder / 'work_dirs/tiny_photos'
    assert sorted(path.name for path in work.iterdir()) == ['detector.py', 'pretraining.py']
    cfg = Config.fromfile(work / 'pretraining.py', import_custom_modules=False)
    assert cfg.train_dataloader.batch_size == 2 and cfg.model.frozen == [
        'neck.fpn_convs.3', 'neck.fpn_convs.4']
    assert cfg.train_dataloader.dataset.data_root == str(folder / 'photos')


def test_small_objects_are_suggested_and_then_cut_from_tiles(folder):
    make_store(folder / 'proposals.arrow', folder / 'photos')
    coco = dict(images=[dict(id=1, file_name='photo_000.png', width=96, height=72),
                        dict(id=2, file_name='photo_001.png', width=96, height=72)],
                annotations=[dict(id=i, image_id=1 + i % 2, category_id=1, bbox=[i, i, 7, 6])
                             for i in range(4)], categories=[dict(id=1, name='blob')])
    (folder / 'train.json').write_text(json.dumps(coco))
    arguments = ['tiny.py', 'train.json', '--root', 'photos', '--batch-size', '2', '--work-dir', 'work',
                 '--dry-run']
    code, output = run(folder, *arguments)
    assert code == 0, output
    advice = 'train.json annotates 4 objects, with a median size of 8% of the photo, 72 pixels'
    assert advice in output and 'Try --objects small.' in output
    (folder / 'proposals.arrow').rename(folder / 'work/proposals.arrow')
    (folder / 'work/pretraining.py').unlink()
    code, output = run(folder, *arguments, '--objects', 'small')
    assert code == 0, output
    assert 'Views are tiles of 256 pixels' in output and 'Try --objects' not in output
    assert re.search(r'meets .*% of the 4 annotated objects', output)
    text = (folder / 'work/pretraining.py').read_text()
    assert text.startswith('# Pretraining of tiny.py') and '# Views are tiles of 256 pixels' in text
    load, views = Config.fromfile(folder / 'work/pretraining.py', import_custom_modules=False
                                  ).train_dataloader.dataset.pipeline[:2]
    assert load.seen_at == dict(scale=(1333, 800), keep_ratio=True) and load.scaled_side == 800
    assert load['keep'] == dict(min_side=16, max_side=205, max_ratio=3) and views.tile == 256


@pytest.mark.parametrize('arguments, message', [
    (['tiny.py', 'nothing'], 'there are no images at nothing'),
    (['tiny.py', 'photos'], 'contains 6 photos .* one step takes 16'),
    (['tiny.py', 'photos', '--root', 'photos'], 'photos contains no annotation file'),
    (['tiny.py', 'photos', '--batch-size', '1'], '--batch-size must be at least 2'),
    (['tiny.py', 'photos', '--epochs', '0'], '--epochs must be at least 1'),
    (['tiny.py', 'photos', '--weights', 'no.pth'], 'no weights at no.pth'),
    (['tiny.py', 'photos', '--proposals', 'no.arrow'], 'no proposals at no.arrow'),
    (['tiny.py', 'photos', '--freeze', '1'], '--freeze 1: without --weights'),
    (['tiny.py', 'photos', '--localise', '-1'], '--localise must be at least 0'),
    (['tiny.py', 'photos.zip', '--localise', '1'], 'needs photos in a folder, and photos.zip is'),
    (['tiny.py', 'photos', '--work-dir', 'photos'], 'the folder of something else'),
    (['photos/photo_000.png', 'photos'], 'cannot be read as a config'),
    (['mmdet::retinanet/nothing', 'photos'], 'There is no config at'),
])
def test_bad_input_is_one_paragraph_and_nothing_is_written(folder, arguments, message):
    before = sorted(folder.rglob('*'))
    code, output = run(folder, *arguments)
    text = ' '.join(output.split())
    assert code == 2 and re.search(message, text) and 'Traceback' not in text, output
    assert sorted(folder.rglob('*')) == before


def test_photos_without_objects_are_refused_before_the_training(folder):
    work = folder / 'work'
    make_store(folder / 'proposals.arrow', folder / 'photos', boxes_per_photo=0)
    arguments = ['tiny.py', 'photos', '--batch-size', '2', '--work-dir', 'work']
    code, output = run(folder, *arguments, '--proposals', 'proposals.arrow')
    assert code == 2 and 'contains no box for any of the 6 photos' in ' '.join(output.split())
    assert not (work / 'run').exists() and 'Traceback' not in output
