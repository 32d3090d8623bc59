import copy
from types import MappingProxyType

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmselfsup.registry import MODELS
from small import ROOT
from syncs import HostSyncs

import reference
from projects.soco.compat.cpu import cpu_config
from projects.soco.engine import SoCoLARS
from projects.soco.evaluation.step import made_up_data
from projects.soco.models import feature_spread
from projects.soco.weights.convert import from_official

WIDTHS = dict(fpn_channels=16, head_channels=12, fc_channels=24, hidden=20, projection=8)


def build_config(**backbone) -> dict:
    """Return the R50-FPN model with ResNet-18, the narrow widths above and the given settings."""
    init_default_scope('mmselfsup')
    cfg = cpu_config(Config.fromfile(ROOT / 'configs/soco_r50_fpn_400e.py')).model
    cfg.backbone.update(depth=18, **backbone)
    cfg.neck.update(in_channels=[64, 128, 256, 512], out_channels=16)
    cfg.roi_head.bbox_roi_extractor.out_channels = 16
    cfg.roi_head.bbox_head.update(in_channels=16, conv_out_channels=12, fc_out_channels=24)
    cfg.projector.update(in_channels=24, hid_channels=20, out_channels=8)
    cfg.head.predictor.update(in_channels=8, hid_channels=20, out_channels=8)
    return cfg


def build(model: dict = MappingProxyType({}), **backbone) -> torch.nn.Module:
    """Build and initialise the model of `build_config` with the given settings."""
    built = MODELS.build({**build_config(**backbone), **model})
    built.init_weights()
    return built


def boxes_on_all_levels(n: int, sizes: list[int], k: int = 4) -> torch.Tensor:
    """Return boxes (N, P, 2, K, 4) with sides from a tenth of the view to all of it."""
    side = torch.linspace(0.1, 1, n * (len(sizes) - 1) * 2 * k).view(n, len(sizes) - 1, 2, k)
    boxes = torch.stack([torch.zeros_like(side), torch.zeros_like(side), side, side], dim=-1)
    boxes[..., :2] += (1 - side[..., None]) / 2
    boxes[..., 2:] += (1 - side[..., None]) / 2
    scale = torch.tensor([[sizes[0], size] for size in sizes[1:]]).view(1, -1, 2, 1, 1)
    return boxes * scale


@pytest.mark.parametrize('kind, sizes', [('SoCo_FPN', [224, 224, 112]),
                                         ('SoCo_FPN_Star', [224, 224, 192, 112])])
def test_training_is_the_references(kind, sizes):
    """Compares losses and the gradient of every online tensor, with BN on batch statistics."""
    slow = reference.fill(reference.build(kind, 'resnet18', **WIDTHS), seed=3).train()
    model = build(dict(channels_last=False))  # in it, convolutions round otherwise
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


def test_a_regulariser_adds_its_terms_for_each_view_and_changes_nothing_else(inputs):
    torch.manual_seed(0)
    plain = build()
    regularised = build(dict(regulariser=dict(type='VarianceCovariance')))
    regularised.load_state_dict(plain.state_dict())
    losses, others = plain.loss(*inputs), regularised.loss(*inputs)
    added = others.pop('loss_regulariser')
    assert losses.keys() == others.keys()
    for key, value in losses.items():
        assert torch.equal(value, others[key]), key
    _, projections = plain.extract_feat(*inputs)
    assert torch.equal(added, sum(regularised.regulariser(z.flatten(0, 2)) for z in projections))
    assert added > 0


def test_loss_is_lowest_where_predictions_agree(inputs):
    model = build()
    losses = model.loss(*inputs)
    assert set(losses) == {'loss_12', 'loss_13', 'obj_std', 'obj_std_target'}
    assert all(-4 <= float(losses[k]) <= 4 for k in ('loss_12', 'loss_13'))
    torch.nn.init.zeros_(model.head.predictor.fc1.weight)
    model.head.predictor.fc1.bias.data = torch.ones(8)
    for net in (model, model.target):
        torch.nn.init.zeros_(net.projector.fc1.weight)
        net.projector.fc1.bias.data = torch.ones(8)
    for param in model.target.roi_head.parameters():
        torch.nn.init.zeros_(param)
    losses = model.loss(*inputs)  # collapsed by hand: all vectors have the same direction
    assert float(losses['loss_12']) == pytest.approx(-4, abs=1e-5)
    assert float(losses['obj_std_target']) == 0 < float(losses['obj_std'])


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
    """As in AmpOptimWrapper, with bfloat16 on the CPU: every online tensor gets a gradient."""
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


def test_levels_left_out_of_the_large_views():
    """Boxes of P2 move to P3 there, all others are unchanged, and every weight gets a gradient."""
    model, finest_levels = build().eval(), (1, 1, 0)
    sizes = [224, 224, 112]
    views = reference.fill_views(sizes, 2, seed=5)
    share = torch.tensor([0.15, 0.3, 0.6, 0.95]).view(4, 1)
    boxes = torch.cat([(1 - share) / 2] * 2 + [(1 + share) / 2] * 2, dim=1).expand(2, 2, 2, 4, 4)
    boxes = boxes * torch.tensor([[224, 224], [224, 112]]).view(2, 2, 1, 1)
    extractor = model.roi_head.bbox_roi_extractor
    with torch.no_grad():
        before, after = model(views, boxes), model(views, boxes, finest_levels)
    for v in range(3):
        of_view = (boxes[:, :, 0] if v == 0 else boxes[:, v - 1:v, 1]).transpose(0, 1)  # (B, N, K, 4)
        rois = torch.nn.functional.pad(of_view.reshape(-1, 4), (1, 0))
        levels = extractor.map_roi_levels(rois, 4).view(of_view.shape[:3])
        assert (levels == 0).any() and (levels > 0).any()
        same = torch.isclose(before[v], after[v], atol=1e-5).all(dim=-1)
        assert torch.equal(same, (levels > 0) | (v == 2))
    losses = model.train().loss(views, boxes, finest_levels)
    sum(v for k, v in losses.items() if k.startswith('loss')).backward()
    assert all(p.grad is not None and p.grad.any() for name, p in model.neck.named_parameters()
               if 'convs.0' in name)


@pytest.mark.parametrize('finest_levels', [None, (1, 2, 0)])
def test_box_levels_are_those_that_boxes_are_pooled_from(finest_levels, inputs, monkeypatch):
    model = build()
    views, boxes = inputs
    boxes = boxes.clone()
    boxes[..., 2:] = boxes[..., :2] + (boxes[..., 2:] - boxes[..., :2]) * 2.5  # up to P5
    extractor, pooled = model.roi_head.bbox_roi_extractor, []
    choose = extractor.map_roi_levels
    monkeypatch.setattr(extractor, 'map_roi_levels', lambda rois, num_levels: (
        pooled.append(choose(rois, num_levels) + 4 - num_levels), choose(rois, num_levels))[1])
    model.extract_feat(views, boxes, finest_levels)
    first, second, third = (levels.clone() for levels in pooled)
    levels = model.box_levels(boxes, finest_levels)
    assert torch.equal(levels[:, :, 0].flatten(), first)
    assert torch.equal(levels[:, 0, 1].flatten(), second)
    assert torch.equal(levels[:, 1, 1].flatten(), third)
    assert len(levels.unique()) >= 3


def test_levels_left_out_are_checked(inputs):
    for wrong in ((1, 0), (1, 1, 1), (4, 0, 0)):
        with pytest.raises(ValueError, match='finest_level'):
            build().loss(*inputs, wrong)


def test_a_step_makes_the_host_wait_for_nothing():
    """Runs forward, backward, optimiser and target update with boxes on the CPU, as in training."""
    model = build().train()
    data = made_up_data(Config.fromfile(ROOT / 'configs/soco_r50_fpn_400e.py'), 2)
    data['inputs'] = [view[..., ::2, ::2].contiguous() for view in data['inputs']]
    prepared = model.data_preprocessor(data, True)
    assert prepared['bboxes'] is data['bboxes']
    optimizer = SoCoLARS(model.parameters(), lr=0.1)
    with HostSyncs([prepared['bboxes']]) as syncs:
        loss, _ = model.parse_losses(model(**prepared, mode='loss'))
        loss.backward()
        optimizer.step()
        model.momentum_update(0.99)
    assert syncs.found == []
    assert len(optimizer.state) > 100


def test_waiting_is_found():
    host, device = torch.rand(8), torch.rand(8)
    with HostSyncs([host]) as syncs:
        (host * 2).tolist(), host.nonzero(), float(host.max()), device[(host > 0.5).nonzero()[:, 0]]
        assert syncs.found == []
        for wait in (lambda: (device + host).tolist(), lambda: device.sum().item(),
                     lambda: device[device > 2], lambda: bool(device.sum() > 0), device.nonzero):
            before = len(syncs.found)
            wait()
            assert len(syncs.found) == before + 1


def test_recomputed_stages_give_the_same_gradients(inputs):
    """`with_cp` saves less for the backward and changes only the running statistics of BN."""
    kept, recomputed = build().train(), build(with_cp=True).train()
    recomputed.load_state_dict(kept.state_dict())
    saved = {}
    for model in (kept, recomputed):
        sizes = []
        with torch.autograd.graph.saved_tensors_hooks(
                lambda t, sizes=sizes: sizes.append(t.numel()) or t, lambda t: t):
            losses = model.loss(*inputs)
        saved[model] = sum(sizes)
        sum(v for k, v in losses.items() if k.startswith('loss')).backward()
    assert saved[recomputed] < 0.8 * saved[kept]
    for (name, a), b in zip(recomputed.named_parameters(), kept.parameters(), strict=True):
        if a.requires_grad:
            torch.testing.assert_close(a.grad, b.grad, atol=1e-6, rtol=1e-4, msg=name)


def test_channels_last_is_the_same_step(inputs):
    plain, last = (build(model=dict(channels_last=on)).train() for on in (False, True))
    last.load_state_dict(plain.state_dict())
    weight = last.target.backbone.layer1[0].conv1.weight
    assert weight.is_contiguous(memory_format=torch.channels_last) and not weight.is_contiguous()
    losses = {}
    for model in (plain, last):
        losses[model] = sum(v for k, v in model.loss(*inputs).items() if k.startswith('loss'))
        losses[model].backward()
    torch.testing.assert_close(losses[last], losses[plain], atol=1e-3, rtol=0)
    for (name, a), b in zip(last.named_parameters(), plain.parameters(), strict=True):
        if a.requires_grad:
            assert (a.grad - b.grad).norm() <= 2e-2 * b.grad.norm() + 1e-5, name


def test_a_network_that_would_crash_in_channels_last_stays_as_it_is():
    """A strided 1 x 1 convolution of fewer than 16 channels is in ResNet-18 with a width of 8."""
    config = build_config(base_channels=8)
    config.neck.update(in_channels=[8, 16, 32, 64])
    model = MODELS.build(dict(config, channels_last=True))
    assert model.memory_format == torch.contiguous_format
    assert model.target.backbone.layer1[0].conv1.weight.is_contiguous()


def test_backbone_and_neck_of_both_networks_are_compiled(monkeypatch):
    """A compiler takes too long here; `tools/gpu_check.sh` has one."""
    compiled = []
    monkeypatch.setattr(torch.nn.Module, 'compile', lambda self, **settings: compiled.append(
        (self, settings)))
    with torch.device('meta'):
        plain = MODELS.build(build_config())
        assert compiled == []
        model = MODELS.build(dict(build_config(), compile_features=True))
    parts = [getattr(model, name) for name in ('backbone', 'neck')]
    parts += [model.target[name] for name in ('backbone', 'neck')]
    assert [module for module, _ in compiled] == parts
    assert all(settings == dict(dynamic=False) for _, settings in compiled)  # once for each size
    assert list(model.state_dict()) == list(plain.state_dict())


def test_a_level_without_boxes_keeps_its_gradients():
    model = build().train()
    views = reference.fill_views([64, 64, 48], 2, seed=5)
    boxes = torch.tensor([0., 0., 40, 40]).expand(2, 2, 2, 4, 4).contiguous()  # P2 only
    sum(v for k, v in model.loss(views, boxes).items() if k.startswith('loss')).backward()
    for name, param in model.neck.named_parameters():
        assert param.grad is not None and torch.isfinite(param.grad).all(), name


def test_frozen_modules_are_not_trained():
    model = build(dict(frozen=['neck.fpn_convs.3', 'backbone.conv1.weight']))
    frozen = {name for name, p in model.named_parameters()
              if not p.requires_grad and not name.startswith('target.')}
    assert frozen == {'backbone.conv1.weight', 'neck.fpn_convs.3.conv.weight',
                      'neck.fpn_convs.3.bn.weight', 'neck.fpn_convs.3.bn.bias'}
    with pytest.raises(ValueError, match="frozen names 'neck.fpn_convs.33'"):
        build(dict(frozen=['neck.fpn_convs.33']))


def test_only_a_neck_that_can_leave_levels_out_is_asked_to():
    model = build(dict(neck=dict(type='mmdet.FPN', in_channels=[64, 128, 256, 512], out_channels=16,
                                 num_outs=4)))
    views, boxes = reference.fill_views([64, 64], 2, seed=3), boxes_on_all_levels(2, [64, 64])
    with pytest.raises(ValueError, match='FPN always computes all of its levels'):
        model.loss(views, boxes, [1, 0])
    assert 'loss_12' in model.loss(views, boxes, [0, 0])
