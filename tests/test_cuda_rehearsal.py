"""The forward pass of every recipe as on a GPU: precision at the boundaries, host waits, memory."""
from collections.abc import Iterator

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope, init_default_scope
from mmselfsup.registry import MODELS
from small import ROOT
from torch._subclasses.fake_tensor import DataDependentOutputException, DynamicOutputShapeException
from torch.nn import functional as F
from torch.testing._internal.distributed.fake_pg import FakeStore

from projects.soco.compat.cpu import cpu_config
from projects.soco.evaluation import rehearsal
from projects.soco.evaluation.rehearsal import rehearse
from projects.soco.evaluation.step import AMP_TYPES, made_up_data
from projects.soco.models.data_preprocessor import SoCoDataPreprocessor
from projects.soco.models.necks import SoCoFPN

# Recipes that differ in their network or views; the others train the same network on the same views.
SAME = {'soco_r50_fpn_400e': ['soco_r50_fpn_100e', 'soco_r50_fpn_100e_coco', 'soco_r101_fpn_400e'],
        'soco_r50_fpn_star_400e': [], 'soco_r50_fpn_without_p2_400e': [],
        'soco_r50_c4_400e': ['soco_r50_c4_100e']}
# Layers that get full precision: the views, and what RoIAlign pools.
POOLED = {True: ['roi_head.bbox_head.shared_convs.0.conv'],
          False: ['roi_head.shared_head.layer4.0.conv1', 'roi_head.shared_head.layer4.0.downsample.0']}


def read(name: str) -> Config:
    return Config.fromfile(ROOT / f'configs/{name}.py', import_custom_modules=False)


def small(name: str) -> Config:
    """Return a recipe with two residual blocks per stage where the kind of block does not matter."""
    cfg = read(name)
    cfg.train_dataloader.batch_size = 4
    if cfg.model.neck:
        cfg.model.backbone.depth = 18
        cfg.model.neck.in_channels = [64, 128, 256, 512]
    return cfg


def in_full_precision(found: rehearsal.Rehearsal) -> set[str]:
    return {name for name, types in found.inputs.items() if torch.float32 in types}


@pytest.mark.parametrize('first', SAME)
def test_the_others_train_the_same_network_on_the_same_views(first: str):
    for name in SAME[first]:
        ours, theirs = read(first), read(name)
        theirs.model.backbone.depth = ours.model.backbone.depth
        assert ours.model == theirs.model
        assert (ours.train_dataloader.dataset.pipeline[1].views ==
                theirs.train_dataloader.dataset.pipeline[1].views)


def test_all_recipes_are_rehearsed():
    recipes = {path.stem: read(path.stem) for path in (ROOT / 'configs').glob('soco_*.py')}
    half = {name: cfg for name, cfg in recipes.items() if cfg.optim_wrapper.type == 'AmpOptimWrapper'}
    assert set(half) == {*SAME, *sum(SAME.values(), [])}
    assert all(cfg.model.channels_last for cfg in half.values())


@pytest.mark.parametrize('amp', ['fp16', 'bf16'])
@pytest.mark.parametrize('name', SAME)
def test_half_precision_everywhere_and_no_host_wait(name: str, amp: str):
    cfg = small(name)
    found = rehearse(cfg, amp)
    expected = {'backbone.conv1', *POOLED[bool(cfg.model.neck)]}
    assert in_full_precision(found) == expected | {f'target.{layer}' for layer in expected}
    half = {layer: types for layer, types in found.inputs.items()
            if layer.removeprefix('target.') not in expected}
    assert half and all(types == {AMP_TYPES[amp]} for types in half.values())
    assert set(found.losses.values()) == {torch.float32} and 'loss_12' in found.losses


@pytest.fixture
def eight_gpus(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A group of eight ranks, and the shapes of three operators that have none for fake tensors."""

    def two(x: torch.Tensor, *args: object) -> tuple[torch.Tensor, torch.Tensor]:
        return (x.new_empty(x.shape[1], dtype=torch.float32),
                x.new_empty(x.shape[1], dtype=torch.float32))

    monkeypatch.setattr(torch, 'batch_norm_stats', two)
    monkeypatch.setattr(torch, 'batch_norm_gather_stats_with_counts', two)
    monkeypatch.setattr(torch, 'batch_norm_elemt', lambda x, *args: torch.empty_like(x))
    torch.distributed.init_process_group('fake', rank=0, world_size=8, store=FakeStore())
    yield
    torch.distributed.destroy_process_group()


def test_eight_gpus_do_not_wait_either(eight_gpus, monkeypatch):
    cfg = small('soco_r50_fpn_400e')
    found = rehearse(cfg, 'fp16')
    assert 'backbone.conv1' in in_full_precision(found) and len(found.losses) == 4
    monkeypatch.setattr(rehearsal, 'drop_empty_check', lambda model: None)
    with pytest.raises((DataDependentOutputException, DynamicOutputShapeException)):
        rehearse(cfg, 'fp16')  # torch's SyncBN


def test_an_item_is_noticed(monkeypatch):
    merge = SoCoFPN.merge
    monkeypatch.setattr(SoCoFPN, 'merge', lambda self, coarse, lateral: merge(self, coarse, lateral) * (
        1 if coarse.mean().item() else 2))
    with pytest.raises(DataDependentOutputException):
        rehearse(small('soco_r50_fpn_400e'), 'fp16')


def test_a_boundary_in_full_precision_is_noticed(monkeypatch):
    monkeypatch.setattr(SoCoFPN, 'merge', lambda self, coarse, lateral: lateral + F.interpolate(
        coarse, size=lateral.shape[2:], mode='nearest'))  # as in mmdet, under autocast
    found = in_full_precision(rehearse(small('soco_r50_fpn_400e'), 'fp16'))
    assert {f'neck.fpn_convs.{i}.conv' for i in range(3)} <= found


def test_a_cpu_tensor_in_the_step_is_noticed(monkeypatch):
    prepare = SoCoDataPreprocessor.forward
    monkeypatch.setattr(SoCoDataPreprocessor, 'forward', lambda self, data, training: dict(
        prepare(self, data, training), inputs=[view.float() for view in data['inputs']]))
    with pytest.raises(Exception, match='cpu|Please convert all Tensors to FakeTensors'):
        rehearse(small('soco_r50_fpn_400e'), 'fp16')


def test_the_bytes_are_those_of_a_real_step():
    init_default_scope('mmselfsup')
    cfg = small('soco_r50_fpn_400e')
    cfg.model.backbone.base_channels = 8
    cfg.model.neck.in_channels = [8, 16, 32, 64]
    for view in cfg.train_dataloader.dataset.pipeline[1].views:
        view.size //= 2
    found = rehearse(cfg, 'no')
    with DefaultScope.overwrite_default_scope('mmselfsup'):
        model = MODELS.build(cpu_config(cfg).model).train()
    own = {t.untyped_storage().data_ptr() for t in (*model.parameters(), *model.buffers())}
    saved: dict[int, torch.UntypedStorage] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            saved[storage.data_ptr()] = storage
        return tensor

    prepared = model.data_preprocessor(made_up_data(cfg, 4), True)
    for view in prepared['inputs']:
        keep(view)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        model.loss(**prepared)
    real = sum(storage.nbytes() for storage in saved.values())
    assert found.saved == pytest.approx(real, rel=0.02)
    online = sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert found.buckets == 4 * online
    assert found.weights == pytest.approx(4 * (3 * online + sum(
        t.numel() for t in (*model.target.parameters(), *model.buffers()))), rel=0.001)
    assert found.total == found.weights + found.buckets + found.saved


def test_the_batch_that_fits():
    found = rehearsal.Rehearsal({}, {}, 2**30, 2**30, 8 * 2**30, 64)
    assert found.largest_batch(24 * 2**30) == 136  # (0.9 * 24 - 2 - 2) GiB of 1/8 GiB per image: 140
    assert found.largest_batch(2 * 2**30) == 0
