"""Files without trained heads are refused where mmdet loads a detector for inference."""
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from mmdet.apis import DetInferencer, init_detector
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope
from small import ROOT

from projects.soco.compat.cpu import cpu_config
from projects.soco.weights.convert import convert

DETECTOR = str(ROOT / 'configs/benchmarks/mmdetection/coco/mask-rcnn_r18_fpn_quickstart.py')
WAYS = [lambda path: init_detector(DETECTOR, path, device='cpu'),
        lambda path: DetInferencer(DETECTOR, path, device='cpu', show_progress=False).model]


@pytest.fixture(scope='module')
def pretrained() -> dict[str, torch.Tensor]:
    cfg = cpu_config(Config.fromfile(ROOT / 'configs/soco_r18_fpn_quickstart.py'))
    with DefaultScope.overwrite_default_scope('mmselfsup'):
        return MODELS.build(cfg.model).state_dict()


@pytest.mark.filterwarnings('ignore')
@pytest.mark.parametrize('load', WAYS, ids=['init_detector', 'DetInferencer'])
def test_pretrained_weights_are_refused_and_the_detector_s_own_are_loaded(
        load: Callable, pretrained: dict, tmp_path: Path) -> None:
    for name, state in (('epoch_10.pth', pretrained),
                        ('published.pth', convert(pretrained, 'mmdet').state_dict)):
        torch.save(dict(state_dict=state), tmp_path / name)
        with pytest.raises(ValueError, match='not a checkpoint of this detector: 34 of its tensors.*'
                           'looks like a SoCo-FPN checkpoint.*fine-tuning'):
            load(str(tmp_path / name))
    cfg = Config.fromfile(DETECTOR)
    with DefaultScope.overwrite_default_scope('mmdet'):
        state = MODELS.build(cfg.model).state_dict()
    torch.save(dict(state_dict=state, meta=dict(dataset_meta=dict(classes=('cat', )))),
               tmp_path / 'iter_50.pth')
    assert torch.equal(load(str(tmp_path / 'iter_50.pth')).state_dict()['backbone.conv1.weight'],
                       state['backbone.conv1.weight'])
