"""What only a GPU can show: SOCO_TEST_CUDA=1 pytest tests/test_cuda.py

The tests of other files that take `device` run on the GPU too: SOCO_TEST_CUDA=1 pytest.
"""
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import mmcv.ops
import pytest
import torch
from miniatures import point_to, shrink, write_coco
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.model import MMDistributedDataParallel
from mmengine.optim import build_optim_wrapper
from mmengine.registry import HOOKS, init_default_scope
from mmselfsup.registry import MODELS
from scripts import free_port
from small import ROOT, assert_same, make_photos, make_store, tiny_config
from torch import Tensor, distributed, nn

from projects.soco.compat import ops
from projects.soco.engine.runner import SummaryRunner
from projects.soco.engine.runner_utils import cpu_group
from projects.soco.evaluation.step import made_up_data
from projects.soco.launch.configs import set_pretrained
from projects.soco.launch.driver import why_no_device
from projects.soco.weights.read import find_newest_checkpoint, read_checkpoint

if os.environ.get('SOCO_TEST_CUDA') != '1':
    pytest.skip('needs a GPU: SOCO_TEST_CUDA=1 pytest tests/test_cuda.py', allow_module_level=True)
if not torch.cuda.is_available():
    pytest.skip(f'no CUDA device: {why_no_device(torch.version.cuda)}', allow_module_level=True)

pytestmark = pytest.mark.cuda
os.environ.setdefault('CUBLAS_WORKSPACE_CONFIG', ':4096:8')  # before the first product of matrices
CUDA = torch.device('cuda')
HALF = dict(type='AmpOptimWrapper', dtype='float16', loss_scale='dynamic',
            optimizer=dict(type='SoCoLARS', lr=0.1))


@pytest.fixture
def deterministic() -> Iterator[None]:
    """Takes back what a deterministic run sets."""
    yield
    torch.use_deterministic_algorithms(False)
    torch.backends.cudnn.deterministic = False


# the operators of compat


def roi_align(feats: Tensor) -> Tensor:
    rois = torch.tensor([[0, 3.2, 1.5, 60.1, 40.7], [1, 20, 4, 79.5, 70], [1, 5, 5, 9, 8]])
    return mmcv.ops.roi_align(feats, rois.to(feats), 7, 1 / 8, 0, 'avg', True)


def focal_loss(logits: Tensor) -> Tensor:
    target = torch.arange(len(logits), device=logits.device) % 6
    return mmcv.ops.sigmoid_focal_loss(logits, target, 2.0, 0.25, None, 'none')


def deform_conv(image: Tensor, offset: Tensor, weight: Tensor) -> Tensor:
    return mmcv.ops.deform_conv2d(image, offset, weight, 1, 1)


def modulated_deform_conv(image: Tensor, offset: Tensor, mask: Tensor, weight: Tensor) -> Tensor:
    return mmcv.ops.modulated_deform_conv2d(image, offset, mask, weight, None, 1, 1)


@pytest.mark.parametrize('dtype', [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize(('operator', 'shapes'), [
    (roi_align, [(2, 4, 10, 12)]), (focal_loss, [(12, 5)]),
    (deform_conv, [(2, 4, 9, 9), (2, 18, 9, 9), (6, 4, 3, 3)]),
    (modulated_deform_conv, [(2, 4, 9, 9), (2, 18, 9, 9), (2, 9, 9, 9), (6, 4, 3, 3)])])
def test_each_operator_is_that_of_the_cpu(operator: Callable, shapes: list, dtype: torch.dtype) -> None:
    """The same numbers, rounded to `dtype`, in float32 on the CPU and as they are on the GPU."""
    half = dtype != torch.float32
    there = [torch.randn(shape).to(dtype) for shape in shapes]
    here = [value.float().requires_grad_() for value in there]
    there = [value.to(CUDA).requires_grad_() for value in there]
    results = [operator(*values) for values in (here, there)]
    assert results[1].dtype == dtype and results[1].is_cuda
    for result in results:
        result.float().square().sum().backward()
    pairs = [(results[0], results[1]), *((a.grad, b.grad) for a, b in zip(here, there))]
    for expected, found in pairs:
        largest = float(expected.detach().abs().max())
        torch.testing.assert_close(found.detach().float().cpu(), expected.detach(),
                                   rtol=0.05 if half else 1e-4, atol=(0.03 if half else 1e-4) * largest)


@pytest.mark.parametrize('dtype', [torch.float32, torch.float16, torch.bfloat16])
def test_nms_is_that_of_the_cpu(dtype: torch.dtype) -> None:
    corner = torch.randint(0, 60, (200, 2))
    boxes = torch.cat([corner, corner + torch.randint(4, 40, (200, 2))], dim=1).to(dtype)  # exact
    scores = (torch.randperm(200) / 256).to(dtype)  # different, also when rounded
    expected = ops._nms(boxes.float(), scores.float(), 0.5, 0)
    assert torch.equal(ops._nms(boxes.to(CUDA), scores.to(CUDA), 0.5, 0).cpu(), expected)


def test_the_deterministic_gradient_of_roi_align(deterministic: None) -> None:
    feats = torch.randn(2, 8, 20, 24, device=CUDA, requires_grad=True)
    corner = torch.rand(50, 2) * 100
    boxes = torch.cat([corner, corner + 5 + torch.rand(50, 2) * 60], dim=1)
    rois = torch.cat([torch.arange(50)[:, None] % 2, boxes], dim=1).to(CUDA)
    gradients = []
    for strict in (False, True, True):
        torch.use_deterministic_algorithms(strict)
        out = mmcv.ops.roi_align(feats, rois, 7, 1 / 8, 0, 'avg', True)
        gradients.append(torch.autograd.grad(out.square().sum(), feats)[0])
    torch.testing.assert_close(*gradients[:2], rtol=1e-3, atol=1e-3)
    assert torch.equal(*gradients[1:])


# a step


def build(folder: Path, wrapper: dict, **changes) -> tuple[Config, nn.Module, object]:
    cfg = tiny_config(folder, photos=4, **changes)
    init_default_scope('mmselfsup')
    model = MODELS.build(cfg.model)
    model.init_weights()
    model = model.to(CUDA).train()
    return cfg, model, build_optim_wrapper(model, wrapper)


@pytest.mark.parametrize('wrapper', [HALF, dict(
    type='AutocastOptimWrapper', optimizer=dict(type='SoCoLARS', lr=0.1))], ids=['fp16', 'bf16'])
def test_a_step_never_waits_for_the_device(tmp_path: Path, wrapper: dict) -> None:
    """Boxes are on the CPU; forward, backward, scaler, LARS and target."""
    cfg, model, optimiser = build(tmp_path, wrapper)
    data = made_up_data(cfg, 4, pin=True)
    assert not data['bboxes'].is_cuda

    def step() -> dict:
        prepared = model.data_preprocessor(data, True)
        assert all(view.is_cuda for view in prepared['inputs'])
        with optimiser.optim_context(model):
            losses = model(**prepared, mode='loss')
            loss, _ = model.parse_losses(losses)
        optimiser.update_params(loss)
        model.momentum_update(0.99)
        return losses

    before = model.backbone.conv1.weight.detach().clone()
    step()  # cuDNN chooses its algorithms, the scaler and LARS make their state
    torch.cuda.set_sync_debug_mode('error')
    try:
        losses = step()
    finally:
        torch.cuda.set_sync_debug_mode('default')
    assert all(value.isfinite().all() for value in losses.values())
    assert not torch.equal(before, model.backbone.conv1.weight)
    assert model.backbone.conv1.weight.dtype == torch.float32


def test_lars_leaves_out_a_step_whose_gradients_overflow(tmp_path: Path) -> None:
    cfg, model, optimiser = build(tmp_path, {**HALF, 'loss_scale': dict(init_scale=2.**40)})
    data, before = made_up_data(cfg, 4), {}
    for i in range(2):
        before = {name: value.detach().clone() for name, value in model.named_parameters()}
        with optimiser.optim_context(model):
            loss, _ = model.parse_losses(model(**model.data_preprocessor(data, True), mode='loss'))
        optimiser.update_params(loss)
        assert loss.isfinite() and optimiser.loss_scaler.get_scale() == 2.**(39 - i)
        assert all(torch.equal(before[name], value) for name, value in model.named_parameters())
    buffers = [state['momentum_buffer'] for state in optimiser.optimizer.state.values()]
    assert buffers and all(buffer.isfinite().all() for buffer in buffers)


# runs


def run_of(folder: Path, name: str, **changes) -> SummaryRunner:
    cfg = tiny_config(folder, photos=12, **{
        'train_cfg.max_epochs': 2, 'default_hooks.logger.interval': 2,
        'default_hooks.checkpoint.by_epoch': False, 'default_hooks.checkpoint.interval': 4,
        'default_hooks.checkpoint.max_keep_ckpts': -1, 'work_dir': str(folder / 'work'),
        'experiment_name': f'{folder.name}_{name}', **changes})
    return SummaryRunner.from_cfg(cfg)


def test_a_run_with_every_hook(tmp_path: Path) -> None:
    make_photos(tmp_path / 'held_out', 3, seed=7)
    make_store(tmp_path / 'held_out.arrow', tmp_path / 'held_out', seed=7)
    runner = run_of(tmp_path, 'hooks', **{
        'default_hooks.scores.images': str(tmp_path / 'held_out'), 'default_hooks.scores.interval': 1,
        'default_hooks.scores.proposals': str(tmp_path / 'held_out.arrow'),
        'default_hooks.views.interval': 3, 'default_hooks.rank.interval': 2,
        'default_hooks.rank.num_objects': 32,
        'train_dataloader.num_workers': 2, 'train_dataloader.persistent_workers': True,
        'train_dataloader.pin_memory': True, 'optim_wrapper': dict(_delete_=True, **HALF)})
    runner.train()
    assert next(runner.model.parameters()).is_cuda
    scalars = runner.message_hub.log_scalars
    assert scalars['train/amp_scale'].current() > 0 and 'train/skipped_steps' in scalars
    assert 'train/obj_rank' in scalars
    scalars_file, = Path(runner.work_dir).glob('*/vis_data/scalars.json')
    assert 'objects/top1' in scalars_file.read_text() and '"memory"' in scalars_file.read_text()
    assert list(scalars_file.parent.glob('vis_image/*'))
    state = read_checkpoint(tmp_path / 'work/iter_12.pth')['state_dict']
    assert all(value.isfinite().all() for value in state.values())


@pytest.mark.parametrize('interval', [2, 50])
def test_a_loss_that_is_not_finite_stops_the_run_at_the_next_check(tmp_path: Path,
                                                                   interval: int) -> None:
    runner = run_of(tmp_path, 'nan', **{'default_hooks.finite_loss.interval': interval,
                                        'default_hooks.checkpoint.interval': 100,
                                        'default_hooks.rank.interval': 5})
    keys = []
    loss = runner.model.loss

    def spoiled(*args) -> dict:
        losses = loss(*args)
        if runner.iter == 4:
            losses['loss_12'] = losses['loss_12'] * float('nan')
            keys.extend(runner.train_dataloader.batch_sampler.keys_of(4))
        return losses

    runner.model.loss = spoiled
    with pytest.raises(FloatingPointError, match='not been finite since iteration 5') as error:
        runner.train()
    assert runner.iter + 1 == 6  # the next even number, and the end of the epoch
    assert all(runner.train_dataloader.dataset.image_name(key) in str(error.value) for key in keys)


class Killed(Exception):
    pass


@HOOKS.register_module(force=True)
class KillCudaHook(Hook):
    """Stops training after 6 iterations, like a kill."""
    priority = 'LOWEST'

    def after_train_iter(self, runner: SummaryRunner, *args, **kwargs) -> None:
        if runner.iter + 1 == 6:
            raise Killed


def test_a_deterministic_run_is_resumed_to_the_bit(tmp_path: Path, deterministic: None) -> None:
    same = {'randomness.deterministic': True}
    run_of(tmp_path / 'whole', 'whole', **same).train()
    with pytest.raises(Killed):
        run_of(tmp_path / 'parts', 'parts', custom_hooks=[dict(type='KillCudaHook')], **same).train()
    newest = find_newest_checkpoint(tmp_path / 'parts/work')
    assert newest.name == 'iter_4.pth'
    run_of(tmp_path / 'parts', 'rest', resume=True, load_from=str(newest), **same).train()
    ends = [read_checkpoint(tmp_path / part / 'work/iter_12.pth') for part in ('whole', 'parts')]
    for key in ('state_dict', 'optimizer'):
        assert_same(ends[0][key], ends[1][key], key)


def test_a_run_under_a_scaler_is_resumed(tmp_path: Path) -> None:
    """Without determinism nearly, and with the scale that it had."""
    half = {'optim_wrapper': dict(_delete_=True, **HALF)}
    with pytest.raises(Killed):
        run_of(tmp_path, 'parts', custom_hooks=[dict(type='KillCudaHook')], **half).train()
    newest = find_newest_checkpoint(tmp_path / 'work')
    scale = read_checkpoint(newest)['optimizer']['loss_scaler']['scale']
    runner = run_of(tmp_path, 'rest', resume=True, load_from=str(newest), **half)
    runner.train()
    assert runner.iter == 12 and runner.optim_wrapper.loss_scaler.get_scale() <= scale
    assert scale == 2.**16 or scale < 2.**16


@pytest.fixture
def one_rank(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Lets a launcher's variables describe one process."""
    for name, value in dict(RANK=0, LOCAL_RANK=0, WORLD_SIZE=1, LOCAL_WORLD_SIZE=1,
                            MASTER_ADDR='127.0.0.1', MASTER_PORT=free_port()).items():
        monkeypatch.setenv(name, str(value))
    yield
    if distributed.is_initialized():
        distributed.destroy_process_group()


def test_nccl_sync_bn_and_a_group_of_cpus_with_one_rank(tmp_path: Path, one_rank: None) -> None:
    norm = dict(type='SyncBN', requires_grad=True)
    runner = run_of(tmp_path, 'nccl', **{
        'launcher': 'pytorch', 'env_cfg.dist_cfg.backend': 'nccl', 'model.backbone.norm_cfg': norm,
        'model.neck.norm_cfg': norm, 'model.roi_head.bbox_head.norm_cfg': norm,
        'model.projector.norm_cfg.type': 'SyncBN', 'model.head.predictor.norm_cfg.type': 'SyncBN',
        'optim_wrapper': dict(_delete_=True, **HALF)})
    assert distributed.get_backend() == 'nccl' and isinstance(runner.model, MMDistributedDataParallel)
    runner.train()
    assert find_newest_checkpoint(tmp_path / 'work').name == 'iter_12.pth'
    total = torch.ones(3)
    distributed.all_reduce(total, group=cpu_group())
    assert total.tolist() == [1, 1, 1]


# other tools


def test_the_benchmark_of_a_step(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / 'tools/benchmark_step.py'),
         str(ROOT / 'configs/soco_r18_fpn_quickstart.py'), '--device', 'cuda', '--batch', '4',
         '--steps', '2', '--warmup', '2', '--json', str(tmp_path / 'out.json')],
        capture_output=True, text=True, env={**os.environ, 'PYTHONPATH': str(ROOT)})
    assert done.returncode == 0 and (tmp_path / 'out.json').is_file(), done.stderr[-3000:]


@pytest.mark.parametrize('wrapper', ['AmpOptimWrapper', 'AutocastOptimWrapper'])
def test_a_detector_trains_with_precise_bn_and_is_evaluated(tmp_path: Path, wrapper: str) -> None:
    cfg = Config.fromfile(ROOT / 'configs/benchmarks/mmdetection/coco/mask-rcnn_r50_fpn_ms-1x_coco.py')
    point_to(cfg, 'data/coco/', write_coco(tmp_path / 'coco'))
    shrink(cfg, iterations=2)
    cfg.model.backbone.depth = 18
    cfg.model.neck.in_channels = [64, 128, 256, 512]
    cfg.optim_wrapper.type = wrapper
    cfg.work_dir, cfg.experiment_name = str(tmp_path / 'work'), f'{tmp_path.name}_{wrapper}'
    set_pretrained(cfg, 'random')
    runner = SummaryRunner.from_cfg(cfg)
    seen: list[torch.dtype] = []
    layer = runner.model.roi_head.bbox_roi_extractor.roi_layers[0]
    layer.register_forward_pre_hook(lambda _, inputs: seen.extend(value.dtype for value in inputs))
    runner.train()
    assert set(seen) == {torch.float32}  # maps and RoIs, also where the rest is in half precision
    state = read_checkpoint(tmp_path / 'work/iter_2.pth')['state_dict']
    assert all(value.isfinite().all() for value in state.values())
    assert any('bbox_mAP' in name for name in runner.message_hub.log_scalars)
