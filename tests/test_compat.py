"""MMCV's ops, from either backend, against their definitions; and CPU configs."""
import math
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import mmcv.ops
import pytest
import torch
import torch.nn.functional as F
import torchvision
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmdet.utils import register_all_modules
from mmengine.config import Config
from mmengine.runner import Runner
from mmengine.structures import InstanceData
from mmengine.utils.dl_utils import mmcv_full_available
from torch import Tensor

import projects.soco.engine  # noqa: F401
from projects.soco.compat import cpu, host, network, ops

ROOT = Path(__file__).resolve().parents[1]
COMPILED = ops.ops_backend() == 'mmcv'
needs_stand_in = pytest.mark.skipif(COMPILED, reason='the ops come from compiled MMCV')
needs_compiled = pytest.mark.skipif(not COMPILED, reason='mmcv-lite: there are no compiled ops')


# nms


def plain_nms(boxes: Tensor, scores: Tensor, threshold: float, offset: int) -> list[int]:
    """Keep a box unless a kept box with a higher score has an IoU above `threshold` with it."""
    def overlap(a: list[float], b: list[float]) -> float:
        w = min(a[2], b[2]) - max(a[0], b[0]) + offset
        h = min(a[3], b[3]) - max(a[1], b[1]) + offset
        shared = max(w, 0) * max(h, 0)
        areas = [(x2 - x1 + offset) * (y2 - y1 + offset) for x1, y1, x2, y2 in (a, b)]
        return shared / (sum(areas) - shared)

    rows, kept = boxes.tolist(), []
    for i in scores.argsort(descending=True).tolist():
        if all(overlap(rows[i], rows[j]) <= threshold for j in kept):
            kept.append(i)
    return kept


def random_boxes(count: int, size: float = 60) -> Tensor:
    corner = torch.rand(count, 2) * size
    return torch.cat([corner, corner + 4 + torch.rand(count, 2) * size / 2], dim=1)


@pytest.mark.parametrize('offset', [0, 1])
@pytest.mark.parametrize('threshold', [0.3, 0.7])
def test_nms_keeps_what_plain_nms_keeps(
        device: torch.device, threshold: float, offset: int) -> None:
    boxes, scores = random_boxes(200), torch.rand(200)
    dets, kept = mmcv.ops.nms(boxes.to(device), scores.to(device), threshold, offset=offset)
    expected = plain_nms(boxes, scores, threshold, offset)
    assert 5 < len(expected) < 200
    assert kept.tolist() == expected
    assert torch.equal(dets.cpu(), torch.cat([boxes[kept.cpu()], scores[kept.cpu(), None]], 1))


def test_nms_offset_decides_at_the_border(device: torch.device) -> None:
    boxes = torch.tensor([[0., 0., 9., 9.], [0., 0., 9., 4.]], device=device)
    scores = torch.tensor([0.9, 0.8], device=device)
    # Overlap 36 / 81 without the offset, and 50 / 100 with it.
    assert mmcv.ops.nms(boxes, scores, 0.47, offset=0)[1].tolist() == [0, 1]
    assert mmcv.ops.nms(boxes, scores, 0.47, offset=1)[1].tolist() == [0]


def test_nms_without_boxes(device: torch.device) -> None:
    dets, kept = mmcv.ops.nms(
        torch.zeros(0, 4, device=device), torch.zeros(0, device=device), 0.5)
    assert dets.shape == (0, 5) and kept.shape == (0, )


def test_batched_nms_keeps_classes_apart(device: torch.device) -> None:
    boxes = torch.tensor([[0., 0., 10., 10.]] * 3, device=device)
    scores = torch.tensor([0.5, 0.9, 0.7], device=device)
    classes = torch.tensor([0, 0, 1], device=device)
    _, kept = mmcv.ops.batched_nms(boxes, scores, classes, dict(type='nms', iou_threshold=0.5))
    assert kept.tolist() == [1, 2]


@needs_stand_in
def test_nms_takes_half_precision(device: torch.device) -> None:
    boxes = torch.tensor([[0, 0, 8, 8], [0, 0, 8, 7], [20, 20, 28, 28]], device=device).half()
    scores = torch.tensor([0.5, 0.75, 0.25], device=device)
    assert mmcv.ops.nms(boxes, scores, 0.5)[1].tolist() == [1, 2]


# RoIAlign


def random_rois(count: int, images: int, size: float) -> Tensor:
    index = torch.randint(images, (count, 1)).float()
    return torch.cat([index, random_boxes(count, size)], dim=1)


def roi_align_and_gradient(op: Callable[[Tensor, Tensor], Tensor], feats: Tensor, rois: Tensor,
                           weight: Tensor) -> tuple[Tensor, Tensor]:
    feats = feats.clone().requires_grad_()
    out = op(feats, rois)
    (out * weight).sum().backward()
    return out.detach(), feats.grad


@pytest.mark.parametrize('aligned', [True, False])
@pytest.mark.parametrize('sampling_ratio', [0, 2])
def test_roi_align_equals_torchvisions(
        device: torch.device, aligned: bool, sampling_ratio: int) -> None:
    feats = torch.randn(2, 5, 20, 24, device=device)
    rois = random_rois(30, 2, 160).to(device)
    weight = torch.randn(30, 5, 7, 5, device=device)
    ours, our_grad = roi_align_and_gradient(
        mmcv.ops.RoIAlign((7, 5), 1 / 8, sampling_ratio, aligned=aligned), feats, rois, weight)
    theirs, their_grad = roi_align_and_gradient(
        lambda f, r: torchvision.ops.roi_align(f, r, (7, 5), 1 / 8, sampling_ratio, aligned),
        feats, rois, weight)
    assert theirs.abs().sum() > 0 and their_grad.abs().sum() > 0
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(our_grad, their_grad, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize('aligned', [True, False])
@pytest.mark.parametrize('sampling_ratio', [0, 2])
def test_the_deterministic_gradient_is_that_of_the_operator(aligned: bool, sampling_ratio: int) -> None:
    """Also of RoIs that reach over the border, and of one without an area."""
    rois = torch.cat([random_rois(30, 3, 160), torch.tensor([
        [0., -20., -9., 30., 40.], [2., 150., 100., 230., 190.], [2., 40., 40., 40., 40.]])])
    rois = rois[rois[:, 0] != 1]  # a photo without RoIs
    feats = torch.randn(3, 5, 20, 24, requires_grad=True)
    grad = torch.randn(len(rois), 5, 7, 6)
    out = torchvision.ops.roi_align(feats, rois, (7, 6), 1 / 8, sampling_ratio, aligned)
    expected, = torch.autograd.grad(out, feats, grad)
    found = ops._roi_align_gradient(grad, rois, feats.shape, 1 / 8, sampling_ratio, aligned)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@needs_stand_in
@pytest.mark.parametrize('deterministic', [True, False])
def test_determinism_avoids_the_operator_that_refuses_it(deterministic: bool,
                                                         monkeypatch: pytest.MonkeyPatch) -> None:
    """On CUDA only: torchvision's own `roi_align` has such a path too, but MMCV's does not take it."""
    asked = []
    monkeypatch.setattr(ops, '_roi_align_gradient', lambda grad, rois, shape, *args: asked.append(
        1) or torch.zeros(shape))
    monkeypatch.setattr(torch, 'are_deterministic_algorithms_enabled', lambda: deterministic)
    monkeypatch.setattr(torch.ops.torchvision, '_roi_align_backward',
                        lambda *args: torch.zeros(args[5:9]))
    grad = SimpleNamespace(dtype=torch.float32, is_cuda=True, to=lambda dtype: None)
    ops._roi_align_backward(
        grad, torch.zeros(1, 5), None, None, torch.zeros(1, 2, 3, 4), aligned_height=2, aligned_width=2,
        spatial_scale=1., sampling_ratio=2, pool_mode=1, aligned=True)
    assert bool(asked) == deterministic


def test_roi_align_of_a_plane_by_hand(device: torch.device) -> None:
    """For f(x, y) = 10y + x, a bin is f at its centre minus half a pixel, as pixels have centres."""
    y, x = torch.meshgrid(torch.arange(12.), torch.arange(12.), indexing='ij')
    feats = torch.stack([10 * y + x, torch.ones(12, 12)])[None].to(device).requires_grad_()
    rois = torch.tensor([[0., 2., 4., 6., 8.]], device=device)
    out = mmcv.ops.RoIAlign(2, 1.0, 2)(feats, rois)
    # Bins of 2 x 2 pixels around (3, 5), (5, 5), (3, 7), (5, 7).
    expected = [[[10 * 4.5 + 2.5, 10 * 4.5 + 4.5], [10 * 6.5 + 2.5, 10 * 6.5 + 4.5]],
                [[1., 1.], [1., 1.]]]
    torch.testing.assert_close(out[0], torch.tensor(expected, device=device))
    out[0, 0, 0, 0].backward()
    gradient = torch.zeros(12, 12)
    gradient[4:6, 2:4] = 1 / 4  # four samples, at the pixel centres of the bin
    torch.testing.assert_close(feats.grad[0, 0].cpu(), gradient)
    assert feats.grad[0, 1].abs().max() == 0


def test_roi_align_gradient_by_finite_differences(device: torch.device) -> None:
    feats = torch.randn(2, 2, 6, 7, dtype=torch.double, device=device, requires_grad=True)
    rois = torch.tensor([[0, 1.2, 0.7, 5.1, 4.4], [1, 0, 2, 6.5, 5.9]], device=device).double()
    assert torch.autograd.gradcheck(
        lambda f: mmcv.ops.roi_align(f, rois, 3, 0.8, 2, 'avg', True), feats,
        nondet_tol=1e-9)


@needs_stand_in
@pytest.mark.parametrize('dtype', [torch.half, torch.bfloat16])
def test_roi_align_takes_half_precision(device: torch.device, dtype: torch.dtype) -> None:
    feats = torch.randn(1, 3, 10, 10, device=device).to(dtype)
    rois = torch.tensor([[0., 1., 1., 8., 9.]], device=device).to(dtype)
    weight = torch.ones(1, 3, 2, 2, device=device)
    op = mmcv.ops.RoIAlign(2, 1.0, 2)
    out, grad = roi_align_and_gradient(op, feats, rois, weight.to(dtype))
    exact, exact_grad = roi_align_and_gradient(op, feats.float(), rois.float(), weight)
    assert out.dtype == grad.dtype == dtype
    torch.testing.assert_close(out.float(), exact, rtol=1e-2, atol=1e-2)
    torch.testing.assert_close(grad.float(), exact_grad, rtol=1e-2, atol=1e-2)


@needs_stand_in
def test_roi_align_refuses_max_pooling() -> None:
    with pytest.raises(NotImplementedError, match="pool_mode='avg'.*--mmcv source"):
        mmcv.ops.RoIAlign(2, pool_mode='max')(torch.zeros(1, 1, 4, 4), torch.zeros(1, 5))


# sigmoid focal loss (compiled MMCV has it on CUDA only)


@pytest.fixture
def focal_device(device: torch.device) -> torch.device:
    if COMPILED and device.type == 'cpu':
        pytest.skip('compiled MMCV has the sigmoid focal loss on CUDA only')
    return device


def plain_focal_loss(logits: Tensor, target: Tensor, gamma: float, alpha: float) -> Tensor:
    """Return -a (1 - p)^g log(p) for the class, -(1 - a) p^g log(1 - p) for others (Lin, 2017)."""
    p = logits.sigmoid()
    positive = -alpha * (1 - p)**gamma * p.log()
    negative = -(1 - alpha) * p**gamma * (1 - p).log()
    is_class = F.one_hot(target, logits.size(1) + 1)[:, :-1].bool()
    return torch.where(is_class, positive, negative)


@pytest.mark.parametrize('weighted', [False, True])
@pytest.mark.parametrize('gamma, alpha', [(2.0, 0.25), (1.5, 0.6), (0.0, 0.5)])
def test_focal_loss_and_gradient_follow_the_formula(
        focal_device: torch.device, gamma: float, alpha: float, weighted: bool) -> None:
    classes = 4
    target = torch.arange(12) % (classes + (0 if weighted else 1))  # the last class is background
    logits = 3 * torch.randn(12, classes, dtype=torch.double)
    logits[0] = 0
    class_weight = torch.rand(classes, dtype=torch.double) if weighted else None
    factor = torch.randn(12, classes, dtype=torch.double)

    plain = logits.clone().requires_grad_()
    expected = plain_focal_loss(plain, target, gamma, alpha)
    if weighted:
        expected = expected * class_weight[target][:, None]
    (expected * factor).sum().backward()

    ours = logits.float().to(focal_device).requires_grad_()
    class_weight = class_weight.float().to(focal_device) if weighted else None
    loss = mmcv.ops.sigmoid_focal_loss(
        ours, target.to(focal_device), gamma, alpha, class_weight, 'none')
    (loss * factor.float().to(focal_device)).sum().backward()
    torch.testing.assert_close(loss.double().cpu(), expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(ours.grad.double().cpu(), plain.grad, rtol=1e-5, atol=1e-6)


def test_focal_loss_by_hand(focal_device: torch.device) -> None:
    loss = mmcv.ops.sigmoid_focal_loss(
        torch.zeros(2, 2, device=focal_device), torch.tensor([1, 2], device=focal_device),
        2.0, 0.25, None, 'none')
    low, high = 0.75 * 0.25 * math.log(2), 0.25 * 0.25 * math.log(2)
    torch.testing.assert_close(loss.cpu(), torch.tensor([[low, high], [low, low]]))


@pytest.mark.parametrize('reduction, share', [('mean', 1 / 3), ('sum', 1.0)])
def test_focal_loss_reductions(focal_device: torch.device, reduction: str, share: float) -> None:
    logits = torch.randn(3, 5, device=focal_device)
    target = torch.tensor([0, 5, 3], device=focal_device)
    every = mmcv.ops.sigmoid_focal_loss(logits, target, 2.0, 0.25, None, 'none')
    total = mmcv.ops.sigmoid_focal_loss(logits, target, 2.0, 0.25, None, reduction)
    torch.testing.assert_close(total, every.sum() * share)


@needs_stand_in
def test_focal_loss_stays_finite_at_extreme_logits(focal_device: torch.device) -> None:
    logits = torch.tensor([[200., -200.], [-200., 200.]], device=focal_device, requires_grad=True)
    loss = mmcv.ops.sigmoid_focal_loss(
        logits, torch.tensor([0, 0], device=focal_device), 0.5, 0.25, None, 'none')
    loss.sum().backward()
    torch.testing.assert_close(
        loss.cpu().detach(), torch.tensor([[0., 0.], [0.25 * 200, 0.75 * 200]]))
    torch.testing.assert_close(logits.grad.cpu(), torch.tensor([[0., 0.], [-0.25, 0.75]]))


@needs_stand_in
def test_focal_loss_weighs_background_with_one(focal_device: torch.device) -> None:
    logits = torch.randn(1, 2, device=focal_device)
    background = torch.tensor([2], device=focal_device)
    weight = torch.tensor([5., 7.], device=focal_device)
    torch.testing.assert_close(
        mmcv.ops.sigmoid_focal_loss(logits, background, 2.0, 0.25, weight, 'none'),
        mmcv.ops.sigmoid_focal_loss(logits, background, 2.0, 0.25, None, 'none'))


# choice of the backend


@needs_stand_in
def test_other_ops_name_themselves_and_the_way_out() -> None:
    with pytest.raises(NotImplementedError, match="'softnms'.*tools/setup_env.sh --mmcv source"):
        mmcv.ops.soft_nms(torch.rand(3, 4), torch.rand(3))


@needs_stand_in
def test_mmengine_sees_no_compiled_mmcv() -> None:
    module = sys.modules['mmcv._ext']
    # the forks' MMEngine asks whether there is a module, not whether a file is its source
    assert mmcv_full_available() == (host.host_name() == 'onedl')
    assert module.__spec__.name == 'mmcv._ext'
    assert not hasattr(module, '__file__')


@needs_stand_in
def test_installing_twice_changes_nothing() -> None:
    before = sys.modules['mmcv._ext']
    assert ops._install_ops() == 'torchvision'
    assert sys.modules['mmcv._ext'] is before


# deformable convolution


@pytest.mark.parametrize('modulated', [False, True])
def test_deformable_convolution_samples_at_offsets(device: torch.device, modulated: bool) -> None:
    """With whole offsets, it is a convolution of shifted pixels; values and gradients."""
    n, c, side = 2, 4, 7
    image = torch.randn(n, c, side, side, dtype=torch.double)
    weight = torch.randn(6, c, 3, 3, dtype=torch.double)
    offset = torch.zeros(n, 18, side, side, dtype=torch.double)
    offset[:, 0::2], offset[:, 1::2] = 1, -2  # down by 1, left by 2
    mask = torch.full((n, 9, side, side), 0.25 if modulated else 1.0, dtype=torch.double)
    padded = F.pad(image, (4, 4, 4, 4))
    plain = padded.clone().requires_grad_()
    # where a kernel sample (y, x) reads image (y + 1, x - 2)
    window = plain[:, :, 4:4 + side + 2, 1:1 + side + 2]
    plain_weight = weight.clone().requires_grad_()
    expected = F.conv2d(window, plain_weight) * mask[:, :1]
    expected.square().sum().backward()

    ours = image.float().to(device).requires_grad_()
    our_weight = weight.float().to(device).requires_grad_()
    arguments = [offset.float().to(device)] + [mask.float().to(device)] * modulated
    if modulated:
        result = mmcv.ops.modulated_deform_conv2d(ours, *arguments, our_weight, None, 1, 1)
    else:
        result = mmcv.ops.deform_conv2d(ours, *arguments, our_weight, 1, 1)
    result.square().sum().backward()
    torch.testing.assert_close(result.double().cpu(), expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(our_weight.grad.double().cpu(), plain_weight.grad, rtol=1e-4, atol=1e-3)
    torch.testing.assert_close(
        ours.grad.double().cpu(), plain.grad[:, :, 4:-4, 4:-4], rtol=1e-4, atol=1e-3)


@needs_stand_in
@pytest.mark.parametrize('dtype', [torch.half, torch.bfloat16])
@pytest.mark.parametrize('modulated', [False, True])
def test_deformable_convolution_takes_half_precision(device: torch.device, modulated: bool,
                                                     dtype: torch.dtype) -> None:
    """The kernels of torchvision have no bfloat16."""
    shapes = [(2, 4, 7, 7), (2, 18, 7, 7)] + [(2, 9, 7, 7)] * modulated + [(6, 4, 3, 3)]
    halves = [torch.randn(shape, device=device).to(dtype).requires_grad_() for shape in shapes]
    exact = [half.detach().float().requires_grad_() for half in halves]
    for *tensors, weight in (halves, exact):
        if modulated:
            result = mmcv.ops.modulated_deform_conv2d(*tensors, weight, None, 1, 1)
        else:
            result = mmcv.ops.deform_conv2d(*tensors, weight, 1, 1)
        assert result.dtype == weight.dtype
        result.float().square().sum().backward()
    for half, full in zip(halves, exact):
        torch.testing.assert_close(half.grad.float(), full.grad, rtol=0.05, atol=0.02 * float(
            full.grad.abs().max()))


@needs_stand_in
def test_offsets_of_a_larger_map_are_read_in_their_order() -> None:
    """As MMCV's kernels do; DyHead gives such offsets."""
    image, weight = torch.randn(2, 4, 4, 4), torch.randn(4, 4, 3, 3)
    offset = torch.randn(2, 18, 8, 8, requires_grad=True)
    mask = torch.rand(2, 9, 8, 8, requires_grad=True)
    result = mmcv.ops.modulated_deform_conv2d(image, offset, mask, weight, None, 1, 1)
    read = [values.flatten(1)[:, :size].view(2, -1, 4, 4)
            for values, size in ((offset, 18 * 16), (mask, 9 * 16))]
    assert torch.equal(result, torchvision.ops.deform_conv2d(
        image, read[0], weight, padding=1, mask=read[1]))
    result.sum().backward()
    assert offset.grad.flatten(1)[:, :18 * 16].any() and not offset.grad.flatten(1)[:, 18 * 16:].any()


@needs_compiled
def test_steps_aside_for_the_compiled_ops() -> None:
    assert mmcv_full_available()
    assert sys.modules['mmcv._ext'].__file__.endswith('.so')


@needs_compiled
@pytest.mark.parametrize('aligned', [True, False])
def test_stand_in_equals_the_compiled_roi_align(aligned: bool) -> None:
    feats = torch.randn(2, 8, 40, 50)
    rois = random_rois(64, 2, 300)
    grad = torch.randn(64, 8, 7, 7)
    options = dict(aligned_height=7, aligned_width=7, spatial_scale=0.125, sampling_ratio=0,
                   pool_mode=1, aligned=aligned)
    empty, compiled = torch.zeros(0), sys.modules['mmcv._ext']
    outputs, gradients = [], []
    for forward, backward in ((compiled.roi_align_forward, compiled.roi_align_backward),
                              (ops._roi_align_forward, ops._roi_align_backward)):
        outputs.append(torch.zeros(64, 8, 7, 7))
        gradients.append(torch.zeros_like(feats))
        forward(feats, rois, outputs[-1], empty, empty, **options)
        backward(grad, rois, empty, empty, gradients[-1], **options)
    assert torch.equal(*outputs)
    assert torch.equal(*gradients)


@needs_compiled
@pytest.mark.parametrize('offset', [0, 1])
def test_stand_in_equals_the_compiled_nms(offset: int) -> None:
    boxes, scores = random_boxes(500), torch.rand(500)
    compiled = sys.modules['mmcv._ext'].nms(boxes, scores, iou_threshold=0.5, offset=offset)
    assert torch.equal(ops._nms(boxes, scores, iou_threshold=0.5, offset=offset), compiled)


def run_python(code: str, path: Path) -> str:
    """Run code in a new Python that searches `path` first, check its exit code, return its output."""
    env = {**os.environ, 'PYTHONPATH': f'{path}{os.pathsep}{ROOT}'}
    done = subprocess.run([sys.executable, '-c', code], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def fake_mmcv(folder: Path, *files: str) -> Path:
    """Write a package `mmcv` with the given empty files, to be found before the installed one."""
    (folder / 'mmcv').mkdir()
    for name in ('__init__.py', *files):
        (folder / 'mmcv' / name).write_text('')
    return folder


def test_steps_aside_for_any_extension_that_is_there(tmp_path: Path) -> None:
    path = fake_mmcv(tmp_path, '_ext.py')
    assert run_python('from projects.soco.compat.ops import ops_backend; import mmcv._ext; '
                      'print(ops_backend(), mmcv._ext.__file__)', path) == \
        f'mmcv {tmp_path / "mmcv" / "_ext.py"}'


def test_says_when_mmcv_ops_came_first(tmp_path: Path) -> None:
    path = fake_mmcv(tmp_path, 'ops.py')
    printed = run_python('import mmcv.ops\ntry: import projects.soco.compat\n'
                         'except ImportError as error: print(error)', path)
    assert 'before projects.soco.compat' in printed and 'Restart' in printed


def test_says_when_mmcv_is_absent(tmp_path: Path) -> None:
    printed = run_python(
        'import importlib.util as util\nfind = util.find_spec\n'
        'util.find_spec = lambda name, *rest: None if name == "mmcv" else find(name, *rest)\n'
        'try: import projects.soco.compat\n'
        'except ModuleNotFoundError as error: print(error)', tmp_path)
    assert 'MMCV is not installed' in printed and 'tools/setup_env.sh' in printed


# mmdet's detectors on these ops


def small_backbone_and_neck(start_level: int) -> dict:
    return dict(
        backbone=dict(type='ResNet', depth=18, norm_cfg=dict(type='BN'), init_cfg=None),
        neck=dict(type='FPN', in_channels=[64, 128, 256, 512], out_channels=16, num_outs=5,
                  start_level=start_level))


def small_detector(name: str) -> dict:
    """Return mmdet's base config of the detector, reduced to ResNet-18, 16 channels, 3 classes."""
    import mmdet
    files = {'mask_rcnn': '_base_/models/mask-rcnn_r50_fpn.py',
             'retinanet': '_base_/models/retinanet_r50_fpn.py',
             'fcos': 'fcos/fcos_r50-caffe_fpn_gn-head_1x_coco.py'}
    folder = Path(mmdet.__file__).parent / '.mim' / 'configs'
    model = Config.fromfile(folder / files[name]).model
    start_level = 0 if name == 'mask_rcnn' else 1
    for key, value in small_backbone_and_neck(start_level).items():
        model[key] = value
    if name == 'mask_rcnn':
        model.rpn_head.update(in_channels=16, feat_channels=16)
        model.roi_head.bbox_roi_extractor.out_channels = 16
        model.roi_head.mask_roi_extractor.out_channels = 16
        model.roi_head.bbox_head.update(in_channels=16, fc_out_channels=32, num_classes=3)
        model.roi_head.mask_head.update(
            num_convs=1, in_channels=16, conv_out_channels=16, num_classes=3)
        model.train_cfg.rcnn.sampler.num = 16
    else:
        model.bbox_head.update(in_channels=16, feat_channels=16, stacked_convs=1, num_classes=3,
                               norm_cfg=None)
    return model


def small_batch(device: torch.device) -> tuple[Tensor, list[DetDataSample]]:
    from mmdet.structures.mask import BitmapMasks
    masks = torch.zeros(2, 64, 96, dtype=torch.uint8)
    boxes = torch.tensor([[4., 6., 40., 50.], [30., 10., 90., 60.]])
    for mask, (x1, y1, x2, y2) in zip(masks, boxes.int().tolist()):
        mask[y1:y2, x1:x2] = 1
    sample = DetDataSample(metainfo=dict(
        img_shape=(64, 96), batch_input_shape=(64, 96), pad_shape=(64, 96), ori_shape=(64, 96),
        scale_factor=(1.0, 1.0)))
    sample.gt_instances = InstanceData(
        bboxes=boxes, labels=torch.tensor([0, 2]), masks=BitmapMasks(masks.numpy(), 64, 96))
    sample.ignored_instances = InstanceData(bboxes=torch.zeros(0, 4), labels=torch.zeros(0).long())
    return torch.randn(1, 3, 64, 96, device=device), [sample.to(device)]


@pytest.mark.parametrize('name', ['mask_rcnn', 'retinanet', 'fcos'])
def test_detector_trains_and_detects(device: torch.device, name: str) -> None:
    register_all_modules()
    model = MODELS.build(small_detector(name))
    model.init_weights()
    model.to(device).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.001)
    inputs, samples = small_batch(device)
    before = model.backbone.conv1.weight.detach().clone()
    total, _ = model.parse_losses(model(inputs, samples, mode='loss'))
    assert torch.isfinite(total) and total > 0
    total.backward()
    optimizer.step()
    assert not torch.equal(before, model.backbone.conv1.weight)
    model.eval()
    with torch.no_grad():
        found = model(inputs, samples, mode='predict')[0].pred_instances
    assert found.bboxes.shape == (len(found.scores), 4)


# coordinates under mixed precision


@pytest.fixture
def exact() -> None:
    """Builds a model as a Runner does, after which mmdet's classes keep their coordinates."""
    register_all_modules()
    Runner.build_model(SimpleNamespace(), torch.nn.Identity())


# In bfloat16, 771 is 772. In float16, 513.3 is 513.5, and the area of 300 x 300 is infinite.
FAR = [[0., 771., 515., 899., 643.], [1., 513.3, 101.3, 813.3, 401.3], [0., 3., 5., 40., 60.]]


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
@pytest.mark.parametrize('kind', ['SingleRoIExtractor', 'GenericRoIExtractor'])
def test_rois_keep_their_coordinates_under_autocast(exact: None, kind: str, dtype: torch.dtype) -> None:
    strides, sizes = [4, 8, 16, 32], [264, 132, 66, 33]
    extractor = MODELS.build(dict(
        type=kind, out_channels=2, featmap_strides=strides,
        roi_layer=dict(type='RoIAlign', output_size=2, sampling_ratio=2)))
    feats = [torch.randint(-3, 4, (2, 2, size, size)).to(dtype) for size in sizes]  # exact in half
    rois, seen = torch.tensor(FAR), []
    for layer in extractor.roi_layers:
        layer.register_forward_pre_hook(lambda _, inputs: seen.extend(inputs))
    exactly = extractor([feat.float() for feat in feats], rois)
    seen.clear()
    maps = [feat.requires_grad_() for feat in feats]
    with torch.autocast('cpu', dtype=dtype):
        pooled = extractor(maps, rois)
        rounded = type(extractor).forward.__wrapped__(extractor, feats, rois.to(dtype))
    assert pooled.dtype == dtype and {tensor.dtype for tensor in seen[:4]} == {torch.float32}
    torch.testing.assert_close(pooled, exactly.to(dtype))
    assert (rounded.float() - exactly).abs().max() > 0.02  # the outputs' rounding is below 0.01
    pooled.float().square().sum().backward()
    assert all(feat.grad is not None and feat.grad.dtype == dtype for feat in maps)


@pytest.mark.parametrize('name', ['mask_rcnn', 'retinanet', 'fcos'])
def test_anchors_and_points_are_float32_under_autocast(exact: None, name: str) -> None:
    """RPN asks for anchors in the type of its scores, FCOS for points in that of its distances."""
    model = MODELS.build(small_detector(name))
    generator = (model.rpn_head if name == 'mask_rcnn' else model.bbox_head).prior_generator
    levels = [(2, 300 >> level) for level in range(len(generator.strides))]
    half = generator.grid_priors(levels, dtype=torch.bfloat16, device='cpu')
    full = generator.grid_priors(levels, dtype=torch.float32, device='cpu')
    assert all(torch.equal(a, b) and a.dtype == torch.float32 for a, b in zip(half, full))
    assert any((level.bfloat16() != level).any() for level in full)  # rounding would show
    boxes: list = []
    inputs, samples = small_batch(torch.device('cpu'))
    generate = type(generator).grid_priors
    with pytest.MonkeyPatch.context() as patch, torch.autocast('cpu', dtype=torch.bfloat16):
        patch.setattr(type(generator), 'grid_priors', lambda self, *args, **kwargs: boxes.append(
            generate(self, *args, **kwargs)) or boxes[-1])
        loss, _ = model.parse_losses(model(inputs, samples, mode='loss'))
    loss.backward()
    assert loss.isfinite() and boxes
    assert {level.dtype for levels in boxes for level in levels} == {torch.float32}


# training on a CPU


def cuda_config() -> Config:
    return Config(dict(
        model=dict(
            type='SoCo',
            backbone=dict(type='mmdet.ResNet', norm_cfg=dict(type='SyncBN', eps=1e-4)),
            heads=[dict(type='Head', norm_cfg=dict(type='mmdet.SyncBN'))],
            projector=dict(type='mmselfsup.NonLinearNeck', norm_cfg=dict(type='SyncBN')),
            predictor=dict(type='NonLinearNeck', in_channels=4)),
        optim_wrapper=dict(type='AmpOptimWrapper', loss_scale='dynamic', dtype='float16',
                           accumulative_counts=2, optimizer=dict(type='SGD', lr=0.1)),
        model_wrapper_cfg=dict(find_unused_parameters=True)))


def test_cpu_config_changes_what_needs_cuda_and_nothing_else() -> None:
    cfg = cuda_config()
    ours = cpu.cpu_config(cfg)
    assert ours.model.to_dict() == dict(
        type='SoCo',
        backbone=dict(type='mmdet.ResNet', norm_cfg=dict(type='BN', eps=1e-4)),
        heads=[dict(type='Head', norm_cfg=dict(type='BN'))],
        projector=dict(type='mmselfsup.NonLinearNeck', norm_cfg=dict(type='BN1d')),
        predictor=dict(type='NonLinearNeck', in_channels=4, norm_cfg=dict(type='BN1d')))
    assert ours.optim_wrapper.to_dict() == dict(
        type='OptimWrapper', accumulative_counts=2, optimizer=dict(type='SGD', lr=0.1))
    assert ours.model_wrapper_cfg.to_dict() == dict(
        type='MMDistributedDataParallel', device_ids=None, broadcast_buffers=False,
        find_unused_parameters=True)
    assert cfg.to_dict() == cuda_config().to_dict()
    assert cpu.cpu_config(ours).to_dict() == ours.to_dict()


def test_needs_cuda_says_why() -> None:
    assert cpu.needs_cuda(cuda_config()) == [
        'SyncBN (model.backbone.norm_cfg and 3 more places)', 'AmpOptimWrapper (optim_wrapper)']
    assert cpu.needs_cuda(cpu.cpu_config(cuda_config())) == []
    assert cpu.needs_cuda(Config(dict(optim_wrapper=dict(type='OptimWrapper')))) == []


def test_process_group_needs_the_launchers_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ('RANK', 'WORLD_SIZE', 'MASTER_ADDR'):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv('MASTER_PORT', '1')
    with pytest.raises(ValueError, match='RANK, WORLD_SIZE, MASTER_ADDR not set.*dist_train.sh'):
        cpu.init_cpu_process_group()


def test_process_group_joins_on_gloo(tmp_path: Path) -> None:
    script = tmp_path / 'join.py'
    script.write_text(
        'import os, torch, torch.distributed as dist\n'
        'from projects.soco.compat.cpu import init_cpu_process_group\n'
        'init_cpu_process_group()\ninit_cpu_process_group()\n'
        'value = torch.tensor([1.0 + dist.get_rank()])\ndist.all_reduce(value)\n'
        f'open(f"{tmp_path}/{{dist.get_rank()}}", "w")'
        '.write(f"{dist.get_backend()} {value.item()} " + os.environ["GLOO_SOCKET_IFNAME"])\n'
        'dist.destroy_process_group()\n')
    done = subprocess.run(
        [sys.executable, '-m', 'torch.distributed.run', '--standalone', '--nproc_per_node', '2',
         str(script)], env={**os.environ, 'PYTHONPATH': str(ROOT)}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert [(tmp_path / rank).read_text() for rank in '01'] == ['gloo 3.0 lo'] * 2


# the interface of gloo

INTERFACES = {'lo': '127.0.0.1', 'docker0': '172.17.0.1', 'eth0': '10.0.0.5', 'ib0': '10.1.0.5',
              'eth1': None}
MACHINES = dict(WORLD_SIZE='16', LOCAL_WORLD_SIZE='8')


@pytest.mark.parametrize(('env', 'own', 'expected'), [
    (dict(WORLD_SIZE='8', LOCAL_WORLD_SIZE='8'), None, 'lo'),  # whatever the host name's address is
    (dict(SLURM_PROCID='0', SLURM_NNODES='1', WORLD_SIZE='8'), None, 'lo'),
    ({**MACHINES, 'NCCL_SOCKET_IFNAME': 'eth'}, '10.1.0.5', 'eth0'),
    ({**MACHINES, 'NCCL_SOCKET_IFNAME': '=ib1,ib0'}, '10.0.0.5', 'ib0'),
    ({**MACHINES, 'NCCL_SOCKET_IFNAME': '^eth0'}, '10.1.0.5', 'ib0'),
    (MACHINES, '10.0.0.5', 'eth0'),  # by which MASTER_ADDR is reached
    (MACHINES, '127.0.0.1', 'ib0'),  # the master itself, whose host name has Debian's 127.0.1.1
    (dict(SLURM_PROCID='0', SLURM_NNODES='2'), None, 'ib0'),
    ({**MACHINES, 'GLOO_SOCKET_IFNAME': 'eth1'}, None, 'eth1'),  # the user's choice holds
])
def test_gloo_listens_where_other_machines_find_it(env: dict, own: str | None, expected: str,
                                                   monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ('GLOO_SOCKET_IFNAME', 'NCCL_SOCKET_IFNAME', 'SLURM_PROCID', 'WORLD_SIZE',
                 'LOCAL_WORLD_SIZE'):
        monkeypatch.setenv(name, '')
        monkeypatch.delenv(name)
    for name, value in env.items():
        monkeypatch.setenv(name, value)

    class Socket(socket.socket):

        def connect(self, address: tuple) -> None:
            if own is None:
                raise OSError

        def getsockname(self) -> tuple:
            return own, 0

    monkeypatch.setattr(socket, 'if_nameindex', lambda: list(enumerate(INTERFACES)))
    monkeypatch.setattr(network, '_address', INTERFACES.get)
    monkeypatch.setattr(socket, 'socket', Socket)
    network.choose_gloo_interface()
    assert os.environ['GLOO_SOCKET_IFNAME'] == expected


def test_the_address_of_an_interface() -> None:
    assert network._address('lo') == '127.0.0.1' and network._address('none0') is None
