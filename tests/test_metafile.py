"""The OpenMMLab metafile agrees with the configs and states the source of its results."""
import re
from collections.abc import Iterator

import pytest
import yaml
from mmengine.config import Config
from small import ROOT

INDEX = yaml.safe_load((ROOT / 'model-index.yml').read_text())
META = yaml.safe_load((ROOT / 'configs/metafile.yml').read_text())
MODELS = {model['Name']: model for model in META['Models']}


def header(config: str) -> str:
    """Return the comments of a config on one line."""
    lines = (ROOT / config).read_text().splitlines()
    return ' '.join(line.lstrip('# ') for line in lines if line.startswith('#'))


def figures(downstream: dict) -> tuple[float, float]:
    """Return box AP and mask AP of an entry."""
    box, mask = downstream['Results']
    assert (box['Task'], mask['Task']) == ('Object Detection', 'Instance Segmentation')
    assert box['Dataset'] == mask['Dataset']
    return box['Metrics']['box AP'], mask['Metrics']['mask AP']


def downstream(dataset: str) -> Iterator[tuple[str, dict]]:
    for name, model in MODELS.items():
        for entry in model.get('Downstream', []):
            if entry['Results'][0]['Dataset'] == dataset:
                yield name, entry


def test_the_index_leads_to_every_recipe():
    assert INDEX == {'Import': ['configs/metafile.yml']}
    recipes = {path.stem for path in (ROOT / 'configs').glob('soco_*.py')}
    assert set(MODELS) == recipes - {'soco_r18_fpn_quickstart', 'soco_effnetlite0_fpn_own_photos'}
    assert len(META['Models']) == len(MODELS)


def test_the_collection():
    (collection, ) = META['Collections']
    assert collection['Paper']['URL'] == 'https://arxiv.org/abs/2106.02637'
    assert (ROOT / collection['README']).is_file() and (ROOT / collection['Code']['URL']).is_file()
    assert {model['In Collection'] for model in MODELS.values()} == {collection['Name']}


@pytest.mark.parametrize('name', sorted(MODELS))
def test_epochs_batch_and_depth_are_the_config_s(name):
    model = MODELS[name]
    assert model['Config'] == f'configs/{name}.py'
    cfg = Config.fromfile(ROOT / model['Config'], import_custom_modules=False)
    assert model['Metadata']['Epochs'] == cfg.train_cfg.max_epochs
    assert model['Metadata']['Batch Size'] == cfg.auto_scale_lr.base_batch_size
    assert model['Metadata']['Backbone'] == f'ResNet-{cfg.model.backbone.depth}'
    for entry in model.get('Downstream', []):
        detector = Config.fromfile(ROOT / entry['Config'], import_custom_modules=False)
        assert entry['Metadata']['Iterations'] == detector.train_cfg.max_iters
        assert entry['Metadata']['Batch Size'] == detector.auto_scale_lr.base_batch_size
        assert (detector.model.get('neck') is None) == (cfg.model.get('neck') is None)


@pytest.mark.parametrize('name', sorted(MODELS))
def test_coco_figures_are_those_of_the_config_s_comment(name):
    found = re.search(r'Official result \(.*?\): box AP ([\d.]+), mask AP ([\d.]+)\.',
                      header(MODELS[name]['Config']))
    listed = [figures(entry) for model, entry in downstream('COCO') if model == name]
    assert listed == ([tuple(map(float, found.groups()))] if found else [])
    assert found or 'No official result' in header(MODELS[name]['Config'])


@pytest.mark.parametrize('dataset, count', [('COCO', 5), ('LVIS v1', 1)])
def test_figures_are_those_of_the_detector_s_comment(dataset, count):
    entries = list(downstream(dataset))
    assert len(entries) == count
    for name, entry in entries:
        kind = 'SoCo*' if 'star' in name else 'SoCo-C4' if 'c4' in name else 'SoCo'
        box, mask = figures(entry)
        label = f'{kind}-{MODELS[name]["Metadata"]["Epochs"]}'
        assert f'{label} {box} / {mask}' in header(entry['Config'])


def test_every_result_says_whose_it_is_and_no_weights_are_claimed():
    for model in MODELS.values():
        entries = model.get('Downstream', [])
        official = 'official code (detectron2), not this project'
        assert all(entry['Metadata']['Results source'] == official for entry in entries)
        assert model['Results'] is None
        assert model['Metadata']['Results source'].startswith(official if entries else 'none')
    assert 'Weights' not in (ROOT / 'configs/metafile.yml').read_text()
