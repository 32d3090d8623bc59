"""Parameters, operations and matched keys of recipes."""
import pytest
import torch
from mmengine.config import Config
from small import ROOT

from projects.soco.evaluation.cost import made_up_batch, match_detector, measure_cost

QUICKSTART = ROOT / 'configs/soco_r18_fpn_quickstart.py'


def test_made_up_boxes_lie_in_their_views():
    views, boxes = made_up_batch(Config.fromfile(ROOT / 'configs/soco_r50_fpn_star_400e.py'), 2)
    assert [v.shape[-1] for v in views] == [224, 224, 192, 112] and boxes.shape == (2, 3, 2, 4, 4)
    for p, size in enumerate((224, 192, 112)):
        for side, limit in ((0, 224), (1, size)):
            share = (boxes[:, p, side, :, 2:] - boxes[:, p, side, :, :2]) / limit
            assert boxes[:, p, side].min() >= 0 and boxes[:, p, side].max() <= limit
            assert (share >= 0.3 - 1e-6).all() and (share <= 0.8 + 1e-6).all()


def test_a_cost_is_per_image_and_of_the_whole_step():
    cfg = Config.fromfile(QUICKSTART)
    two, three = measure_cost(cfg, 2), measure_cost(cfg, 3)
    assert two.gflop == pytest.approx(three.gflop, rel=1e-12)
    online = [k for k in two.state if not k.startswith('target.')]
    buffers = ('running_mean', 'running_var', 'num_batches_tracked')
    assert two.parameters == sum(two.state[k].numel() for k in online if not k.endswith(buffers))
    wide = Config.fromfile(QUICKSTART)
    wide.train_dataloader.dataset.pipeline[1].views = [dict(size=64), dict(size=64)]
    double = Config(wide._cfg_dict.to_dict())
    double.train_dataloader.dataset.pipeline[1].views = [dict(size=64), dict(size=128)]
    assert measure_cost(double).gflop > 1.5 * measure_cost(wide).gflop


@pytest.mark.slow
def test_without_p2_of_the_large_views_109_gflop_and_every_key():
    cost = measure_cost(Config.fromfile(ROOT / 'configs/soco_r50_fpn_without_p2_400e.py'))
    assert cost.gflop == pytest.approx(109, abs=1)
    detector = ROOT / 'configs/benchmarks/mmdetection/coco/mask-rcnn_r50_fpn_ms-1x_coco.py'
    assert match_detector(Config.fromfile(detector), cost.state).required == (392, 392)


@pytest.mark.slow
def test_r50_fpn_takes_142_gflop():
    cost = measure_cost(Config.fromfile(ROOT / 'configs/soco_r50_fpn_400e.py'))
    assert cost.gflop == pytest.approx(142, abs=1)
    detector = ROOT / 'configs/benchmarks/mmdetection/coco'
    report = match_detector(Config.fromfile(detector / 'mask-rcnn_r50_fpn_ms-1x_coco.py'), cost.state)
    assert report.complete and report.required == (392, 392)
    c4 = Config.fromfile(detector / 'mask-rcnn_r50_c4_ms-1x_coco.py')
    assert not match_detector(c4, cost.state).complete
    assert torch.is_tensor(cost.state['backbone.conv1.weight'])
