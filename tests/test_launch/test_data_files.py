"""Tests of the expected files of data sets, and of the messages when they are missing."""
from pathlib import Path

import pytest
from miniatures import ROOTS, WRITERS, point_to
from mmengine.config import Config

from projects.soco.launch import data_files

ROOT = Path(__file__).parents[2]
CONFIGS = ROOT / 'configs/benchmarks/mmdetection'
EXAMPLES = dict(coco='mask-rcnn_r50_fpn_ms-1x_coco-5percent.py',
                lvis='mask-rcnn_r50_fpn_ms-1x_lvis-v1.py',
                voc0712='faster-rcnn_r50_c4_ms-24k_voc0712.py',
                cityscapes='mask-rcnn_r50_fpn_ms-24k_cityscapes.py')


def config(name: str, folder: Path) -> Config:
    cfg = Config.fromfile(CONFIGS / name / EXAMPLES[name], import_custom_modules=False)
    point_to(cfg, ROOTS[name], folder)
    return cfg


@pytest.mark.parametrize('name', EXAMPLES)
def test_a_whole_data_set_is_accepted_and_each_missing_part_is_told(name: str, tmp_path: Path) -> None:
    cfg = config(name, WRITERS[name](tmp_path / name))
    data_files.check_layout(cfg)
    for path in data_files.expected_files(cfg):
        hidden = tmp_path / 'hidden'
        Path(path).rename(hidden)
        with pytest.raises(FileNotFoundError) as error:
            data_files.check_layout(cfg)
        hidden.rename(path)
        lines = str(error.value).splitlines()
        row = next(line for line in lines if f'── {Path(path).name}' in line and 'missing' in line)
        assert path.rstrip('/') in lines[0] and row
    data_files.check_layout(cfg)


def test_the_tree() -> None:
    paths = ['data/a/annotations/x.json', 'data/a/annotations/y.json', 'data/a/train/']
    assert data_files.draw_tree(paths, {paths[1]}) == (
        'data/a/\n'
        '├── annotations/\n'
        '│   ├── x.json    found\n'
        '│   └── y.json    missing\n'
        '└── train/        found')


def test_ways_out(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match='coco_subset.py .*--percent 5'):
        data_files.check_layout(config('coco', tmp_path))
    with pytest.raises(FileNotFoundError, match='cityscapes.py of MMDetection'):
        data_files.check_layout(config('cityscapes', tmp_path))


def test_a_metric_that_is_not_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data_files.importlib.util, 'find_spec', lambda name: None)
    with pytest.raises(ValueError, match='package lvis: pip install -r requirements/datasets.txt'):
        data_files.check_layout(config('lvis', WRITERS['lvis'](tmp_path / 'lvis')))
    assert (ROOT / 'requirements/datasets.txt').is_file()


def test_imagenet_in_one_flat_folder(tmp_path: Path) -> None:
    name = 'configs/benchmarks/classification/resnet50_linear-8xb32-steplr-100e_in1k.py'
    cfg = Config.fromfile(ROOT / name, import_custom_modules=False)
    for loader in data_files.LOADERS:
        cfg[loader].dataset.data_root = str(tmp_path)
    (tmp_path / 'train/n01440764').mkdir(parents=True)
    (tmp_path / 'val').mkdir()
    (tmp_path / 'val/photo.JPEG').touch()
    with pytest.raises(ValueError, match='val.* has no folder for each class'):
        data_files.check_layout(cfg)
    (tmp_path / 'val/n01440764').mkdir()
    data_files.check_layout(cfg)
