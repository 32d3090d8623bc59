import copy

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmselfsup.registry import MODELS
from small import ROOT

import reference
from projects.soco.compat import cpu_config
from projects.soco.converters import from_official
from projects.soco.models import feature_spread

WIDTHS = dict(fpn_channels=16, head_channels=12, fc_channels=24, hidden=20, projection=8)


def build(kind: str = 'SoCo_FPN') -> torch.nn.Module:
    """The R50-FPN config with ResNet-18 and the narrow widths above."""
    init_default_scope('mmselfsup')
    cfg = cpu_config(Config.fromfile(ROOT / 'configs/soco_r50_fpn_400e.py')).model
    cfg.backbone.depth = 18
    cfg.neck.update(in_channels=[64, 128, 256, 512], out_channels=16)
    cfg.roi_head.bbox_roi_extractor.out_channels = 16
    cfg.roi_head.bbox_head.update(in_channels=16, conv_out_channels=12, fc_out_channels=24)
    cfg.projector.update(in_channels=24, hid_channels=20, out_channels=8)
    cfg.head.predictor.update(in_channels=8, hid_channels=20, out_channels=8)
    model = MODELS.build(cfg)
    model.init_weights()
    return model


def boxes_on_all_levels(n: int, sizes: list[int], k: int = 4) -> torch.Tensor:
    """(N, P, 2, K, 4): sides from a tenth of the view to all of it."""
    side = torch.linspace(0.1, 1, n * (len(sizes) - 1) * 2 * k).view(n, len(sizes) - 1, 2, k)
    boxes = torch.stack([torch.zeros_like(side), torch.zeros_like(side), side, side], dim=-1)
    boxes[..., :2] += (1 - side[..., None]) / 2
    boxes[..., 2:] += (1 - side[..., None]) / 2
    scale = torch.tensor([[sizes[0], size] for size in sizes[1:]]).view(1, -1, 2, 1, 1)
    return boxes * scale


@pytest.mark.parametrize('kind, sizes', [('SoCo_FPN', [224, 224, 112]),
                                         ('SoCo_FPN_Star', [224, 224, 192, 112])])
def test_training_is_the_references(kind, sizes):
    """Every BN on its batch statistics: losses, and the gradient of every online tensor."""
    slow = reference.fill(reference.build(kind, 'resnet18', **WIDTHS), seed=3).train()
    model = build()
    pyramid = {'neck.lateral_convs.0.conv.weight': 0}
    names = {key: next(iter(from_official({key: torch.empty(0), **pyramid})))
             for key, _ in slow.named_parameters() if not key.split('.')[0].endswith('_k')}
    model.load_state_dict(from_official(slow.state_dict()))
    model.train()
    views, boxes = reference.fill_views(sizes, 2, seed=3), boxes_on_all_levels(2, sizes)

    expected = slow(views, boxes, mode='assigned')
    expected['loss'].backward()
    losses = model.loss(views, boxes)
    sum(v for k, v in losses.items() if k.startswith('loss')).backward()
    for p in range(len(sizes) - 1):
        torch.testing.assert_close(losses[f'loss_1{p + 2}'], expected[f'loss_1{p + 2}'],
                                   atol=1e-5, rtol=1e-5)
    params = dict(model.named_parameters())
    assert len(names) == sum(p.requires_grad for p in params.values())
    for key, value in slow.named_parameters():
        if key in names:
            ours = params[names[key]].grad
            assert (ours - value.grad).norm() <= 2e-3 * value.grad.norm() + 1e-6, key


@pytest.fixture(scope='module')
def inputs() -> tuple[list, torch.Tensor]:
    return reference.fill_views([96, 96, 64], 2, seed=5), boxes_on_all_levels(2, [96, 96, 64])


def test_the_target_starts_as_a_copy_and_gets_no_gradient(inputs):
    model = build()
    for part in ('backbone', 'neck', 'roi_head', 'projector'):
        online, target = getattr(model, part).state_dict(), model.target[part].state_dict()
        assert online.keys() == target.keys()
        assert all(torch.equal(online[key], target[key]) for key in online)
    sum(v for k, v in model.loss(*inputs).items() if k.startswith('loss')).backward()
    assert all(p.grad is None for p in model.target.parameters())
    online = [n for n, p in model.named_parameters() if not n.startswith('target.')
              and p.grad is None]
    assert online == []


def test_momentum_update_by_hand():
    model = build()
    online = copy.deepcopy(model.backbone.conv1.weight.data)
    model.backbone.conv1.weight.data += 1.0
    model.backbone.bn1.running_mean += 5.0
    before = model.target.backbone.bn1.running_mean.clone()
    model.momentum_update(0.9)
    torch.testing.assert_close(model.target.backbone.conv1.weight, online + 0.1)
    assert torch.equal(model.target.backbone.bn1.running_mean, before)
    model.momentum_update(1.0)
    torch.testing.assert_close(model.target.backbone.conv1.weight, online + 0.1)
    model.momentum_update(0.0)
    assert torch.equal(model.target.backbone.conv1.weight, model.backbone.conv1.weight)


def test_weights_without_a_target_start_it_and_weights_with_one_keep_it():
    source = build()
    source.target.backbone.conv1.weight.data += 2.0
    whole = source.state_dict()
    online_only = {k: v for k, v in whole.items() if not k.startswith('target.')}

    model = build()
    model.load_state_dict(online_only)
    assert torch.equal(model.target.backbone.conv1.weight, source.backbone.conv1.weight)
    model.load_state_dict(whole)
    assert torch.equal(model.target.backbone.conv1.weight, source.target.backbone.conv1.weight)


def test_loss_is_lowest_where_predictions_agree(inputs):
    model = build()
    losses = model.loss(*inputs)
    assert set(losses) == {'loss_12', 'loss_13', 'obj_std'}
    assert all(-4 <= float(losses[k]) <= 4 for k in ('loss_12', 'loss_13'))
    torch.nn.init.zeros_(model.head.predictor.fc1.weight)
    model.head.predictor.fc1.bias.data = torch.ones(8)
    for net in (model, model.target):
        torch.nn.init.zeros_(net.projector.fc1.weight)
        net.projector.fc1.bias.data = torch.ones(8)
    losses = model.loss(*inputs)  # collapsed by hand: every vector points the same way
    assert float(losses['loss_12']) == pytest.approx(-4, abs=1e-5)


def test_spread_of_features():
    assert float(feature_spread(torch.ones(10, 4))) == pytest.approx(0, abs=1e-3)
    assert float(feature_spread(torch.tensor([[1., 0], [-3, 0]]))) == pytest.approx(1)
    # two orthogonal directions: the mean has length sqrt(1/2)
    assert float(feature_spread(torch.tensor([[2., 0], [0, 5]]))) == pytest.approx(0.5**0.5)
    assert float(feature_spread(torch.zeros(10, 4))) == 0  # dead features are collapsed, not spread


def test_modes(inputs):
    model = build()
    features = model(*inputs, mode='tensor')
    assert [tuple(f.shape) for f in features] == [(2, 2, 4, 24), (1, 2, 4, 24), (1, 2, 4, 24)]
    with pytest.raises(ValueError, match="'predict'"):
        model(*inputs, mode='predict')


def test_the_target_keeps_its_own_batch_statistics(inputs):
    model = build().train()
    with torch.no_grad():
        model.target.backbone.conv1.weight.mul_(3.0)
    model.loss(*inputs)
    online, target = model.backbone.bn1, model.target.backbone.bn1
    assert not torch.allclose(online.running_var, target.running_var)
    assert int(target.num_batches_tracked) == 3


def test_a_step_in_mixed_precision(inputs):
    """As AmpOptimWrapper runs it, with bfloat16 on the CPU: every online tensor gets a gradient."""
    model = build().train()
    exact = model.loss(*inputs)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        losses = model.loss(*inputs)
    loss = losses['loss_12'] + losses['loss_13']
    loss.backward()
    assert float(loss.detach()) == pytest.approx(
        float((exact['loss_12'] + exact['loss_13']).detach()), abs=0.2)
    for name, param in model.named_parameters():
        if param.requires_grad:
            assert param.grad.dtype == torch.float32 and torch.isfinite(param.grad).all(), name
