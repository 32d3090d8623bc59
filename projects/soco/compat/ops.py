"""Replacement of MMCV's compiled operators by those of torchvision and torch.

`mmdet` imports `mmcv.ops`, whose functions are in a compiled extension, `mmcv._ext`, that the package
index has as source only. Importing this module **before** `mmdet` (or `mmcv.ops`) adds a replacement
for it, which provides the operators that most detectors call (`nms`, RoIAlign, deformable convolution,
sigmoid focal loss) from torchvision and torch, on any device. If the compiled extension is installed,
nothing is replaced; `ops_backend()` returns which of the two is used. torchvision is imported at the
first call: a check of a run's inputs need not wait for it.
"""

import importlib.machinery
import importlib.util
import math
import sys
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

_EXT = 'mmcv._ext'
_WAY_OUT = 'bash tools/setup_env.sh --mmcv source'


def _nms(boxes: Tensor, scores: Tensor, iou_threshold: float, offset: int) -> Tensor:
    """Return the indices (k,) of the boxes (n, 4) to keep, highest score first.

    `offset` is added to the right and bottom edges of the boxes.
    """
    import torchvision
    dtype = torch.promote_types(torch.promote_types(boxes.dtype, scores.dtype), torch.float32)
    boxes, scores = boxes.to(dtype), scores.to(dtype)
    if offset:
        boxes = boxes + boxes.new_tensor([0, 0, offset, offset])
    return torchvision.ops.nms(boxes, scores, iou_threshold)


def _check_pool_mode(pool_mode: int) -> None:
    if pool_mode != 1:
        raise NotImplementedError(
            "RoIAlign with pool_mode='max' is not among the ops that torchvision can provide. "
            f"Use pool_mode='avg', or build MMCV's own ops: {_WAY_OUT}")


# RoIAlign runs in float32 or wider, as in torchvision under autocast; only input and output are half.
def _roi_align_forward(
        input: Tensor, rois: Tensor, output: Tensor, argmax_y: Tensor, argmax_x: Tensor, *,
        aligned_height: int, aligned_width: int, spatial_scale: float, sampling_ratio: int,
        pool_mode: int, aligned: bool) -> None:
    """Fill `output` (k, C, h, w) from `input` (n, C, H, W) at `rois` (k, 5)."""
    import torchvision  # noqa: F401  (registers the operator)
    _check_pool_mode(pool_mode)
    dtype = torch.promote_types(input.dtype, torch.float32)
    output.copy_(torch.ops.torchvision.roi_align(
        input.to(dtype), rois.to(dtype), spatial_scale, aligned_height, aligned_width,
        sampling_ratio, aligned))


def _roi_align_backward(
        grad_output: Tensor, rois: Tensor, argmax_y: Tensor, argmax_x: Tensor, grad_input: Tensor,
        *, aligned_height: int, aligned_width: int, spatial_scale: float, sampling_ratio: int,
        pool_mode: int, aligned: bool) -> None:
    """Fill `grad_input` (n, C, H, W) from `grad_output` (k, C, h, w)."""
    import torchvision  # noqa: F401  (registers the operator)
    _check_pool_mode(pool_mode)
    dtype = torch.promote_types(grad_output.dtype, torch.float32)
    if torch.are_deterministic_algorithms_enabled() and grad_output.is_cuda:  # the operator refuses
        grad_input.copy_(_roi_align_gradient(grad_output.to(dtype), rois.to(dtype), grad_input.shape,
                                             spatial_scale, sampling_ratio, aligned))
        return
    grad_input.copy_(torch.ops.torchvision._roi_align_backward(
        grad_output.to(dtype), rois.to(dtype), spatial_scale, aligned_height, aligned_width,
        *grad_input.shape, sampling_ratio, aligned))


def _roi_align_gradient(grad: Tensor, rois: Tensor, shape: Sequence[int], scale: float,
                        sampling_ratio: int, aligned: bool) -> Tensor:
    """Return the gradient of RoIAlign by its input, summed in the same order each time.

    The average of bilinear samples in a bin is a product of weights of rows and of columns. The
    gradient of a photo is therefore one matrix product over its RoIs, without the atomic additions of
    torchvision's operator, whose order changes.

    Args:
        grad (Tensor): Gradient of the output, (k, C, h, w).
        rois (Tensor): (k, 5), batch index and x1 y1 x2 y2 in pixels of the photo.
        shape (Sequence[int]): Shape of the input, (n, C, H, W).
        scale (float): Pixels of the map per pixel of the photo.
        sampling_ratio (int): Samples per bin and direction; 0 for the size of the bin, rounded up.
        aligned (bool): Whether pixels have their centres at half a pixel.

    Returns:
        Tensor: (n, C, H, W).
    """
    result = grad.new_zeros(tuple(shape))
    for photo in rois[:, 0].unique().long().tolist():
        own = rois[:, 0] == photo
        rows, columns = (  # (k, h, H), (k, w, W)
            _bin_weights(rois[own, axis], rois[own, axis + 2], grad.size(4 - axis), shape[4 - axis],
                         scale, sampling_ratio, aligned) for axis in (2, 1))
        wide = torch.einsum('kchw,kwx->ckhx', grad[own], columns)
        result[photo] = torch.einsum('khy,ckhx->cyx', rows, wide)
    return result


def _bin_weights(start: Tensor, end: Tensor, bins: int, size: int, scale: float, sampling_ratio: int,
                 aligned: bool) -> Tensor:
    """Return the weight (k, bins, size) of each row (or column) of a map in each bin of each RoI."""
    offset = 0.5 if aligned else 0.0
    first, length = start * scale - offset, (end - start) * scale
    if not aligned:
        length = length.clamp_min(1)
    width = length / bins
    counts = torch.full_like(width, sampling_ratio) if sampling_ratio > 0 else width.ceil()
    samples = torch.arange(int(counts.max()), device=start.device)
    corner = first[:, None] + torch.arange(bins, device=start.device) * width[:, None]
    step = width / counts.clamp_min(1)
    position = corner[..., None] + (samples + 0.5) * step[:, None, None]  # (k, bins, samples)
    used = (samples < counts[:, None])[:, None] & (position >= -1) & (position <= size)
    position = position.clamp(0, size - 1)[..., None]
    weights = (1 - (position - torch.arange(size, device=start.device)).abs()).clamp_min(0)
    return (weights * used[..., None]).sum(dim=2) / counts.clamp_min(1)[:, None, None]


def _focal_terms(input: Tensor, target: Tensor, alpha: float,
                 weight: Tensor) -> tuple[Tensor, Tensor]:
    """Return the sign (+1 for the positive class, else -1) and factor of each logit (n, c).

    A target outside [0, c) is background: no class is positive, and no class weight applies.
    """
    classes = torch.arange(input.size(1), device=input.device)
    positive = target[:, None] == classes
    factor = torch.where(positive, alpha, 1 - alpha)
    if weight.numel():
        is_class = (target >= 0) & (target < input.size(1))
        factor = factor * torch.where(is_class, weight[target.where(is_class, 0)], 1.0)[:, None]
    return torch.where(positive, 1.0, -1.0), factor


def _sigmoid_focal_loss_forward(input: Tensor, target: Tensor, weight: Tensor, output: Tensor, *,
                                gamma: float, alpha: float) -> None:
    """Fill `output` (n, c) with the loss of logits `input` (n, c), class indices `target` (n,)."""
    sign, factor = _focal_terms(input, target, alpha, weight)
    logits = sign * input
    output.copy_(-factor * torch.sigmoid(-logits).pow(gamma) * F.logsigmoid(logits))


def _sigmoid_focal_loss_backward(input: Tensor, target: Tensor, weight: Tensor, grad_input: Tensor,
                                 *, gamma: float, alpha: float) -> None:
    """Fill `grad_input` (n, c) with the derivative of each loss term by its logit."""
    sign, factor = _focal_terms(input, target, alpha, weight)
    logits = sign * input
    p, miss = torch.sigmoid(logits), torch.sigmoid(-logits)
    slope = miss.pow(gamma) * (gamma * p * F.logsigmoid(logits) - miss)
    grad_input.copy_(sign * factor * slope)


def _deform_settings(kwargs: dict) -> tuple:
    """Return torchvision's arguments for MMCV's settings of a deformable convolution."""
    if 'kernel_h' in kwargs:  # the modulated operator
        names = ('stride_h', 'stride_w', 'pad_h', 'pad_w', 'dilation_h', 'dilation_w')
    else:
        names = ('dH', 'dW', 'padH', 'padW', 'dilationH', 'dilationW')
    return (*(kwargs[name] for name in names), kwargs['group'], kwargs['deformable_group'])


def _per_output(values: Tensor, output: Tensor) -> Tensor:
    """Return offsets or masks (N, C, h, w) with the height and width of `output`.

    MMCV reads the values of each photo as if they had this size; DyHead gives larger ones.
    """
    size = (values.size(1), *output.shape[2:])
    return values.flatten(1)[:, :math.prod(size)].view(len(values), *size)


def _deform(name: str, *tensors: Tensor, settings: dict, modulated: bool) -> Any:
    """Call torchvision's deformable convolution, or its gradient, in float32 or wider.

    Its kernels have no bfloat16.
    """
    import torchvision  # noqa: F401  (registers the operator)
    dtype = torch.promote_types(tensors[0].dtype, torch.float32)
    operator = getattr(torch.ops.torchvision, name)
    return operator(*(tensor.to(dtype) for tensor in tensors), *_deform_settings(settings), modulated)


def _modulated_deform_conv_forward(
        input: Tensor, weight: Tensor, bias: Tensor, ones: Tensor, offset: Tensor, mask: Tensor,
        output: Tensor, columns: Tensor, *, with_bias: bool, **settings: int) -> None:
    """Fill `output` with a deformable convolution whose samples are weighted by `mask`."""
    bias = bias if with_bias else weight.new_zeros(len(weight))
    output.copy_(_deform('deform_conv2d', input, weight, _per_output(offset, output),
                         _per_output(mask, output), bias, settings=settings, modulated=True))


def _modulated_deform_conv_backward(
        input: Tensor, weight: Tensor, bias: Tensor, ones: Tensor, offset: Tensor, mask: Tensor,
        columns: Tensor, grad_input: Tensor, grad_weight: Tensor, grad_bias: Tensor,
        grad_offset: Tensor, grad_mask: Tensor, grad_output: Tensor, *, with_bias: bool,
        **settings: int) -> None:
    """Fill the gradients of `_modulated_deform_conv_forward`."""
    zeros = bias if with_bias else weight.new_zeros(len(weight))
    grads = _deform(
        '_deform_conv2d_backward', grad_output, input, weight, _per_output(offset, grad_output),
        _per_output(mask, grad_output), zeros, settings=settings, modulated=True)
    filled = (grad_input, grad_weight, _per_output(grad_offset, grad_output),
              _per_output(grad_mask, grad_output), grad_bias)
    for ours, theirs in zip(filled if with_bias else filled[:4], grads):
        ours.copy_(theirs)


def _deform_conv_forward(input: Tensor, weight: Tensor, offset: Tensor, output: Tensor,
                         columns: Tensor, ones: Tensor, **settings: int) -> None:
    """Fill `output` with a deformable convolution."""
    output.copy_(_deform(
        'deform_conv2d', input, weight, offset, input.new_zeros(len(input), 0, 0, 0),
        weight.new_zeros(len(weight)), settings=settings, modulated=False))


def _deform_grads(input: Tensor, weight: Tensor, offset: Tensor, grad_output: Tensor,
                  settings: dict) -> tuple[Tensor, ...]:
    return _deform(
        '_deform_conv2d_backward', grad_output, input, weight, offset,
        input.new_zeros(len(input), 0, 0, 0), weight.new_zeros(len(weight)), settings=settings,
        modulated=False)


def _deform_conv_backward_input(
        input: Tensor, offset: Tensor, grad_output: Tensor, grad_input: Tensor, grad_offset: Tensor,
        weight: Tensor, columns: Tensor, **settings: int) -> None:
    """Fill the gradients of input and offset of `_deform_conv_forward`."""
    grads = _deform_grads(input, weight, offset, grad_output, settings)
    grad_input.copy_(grads[0])
    grad_offset.copy_(grads[2])


def _deform_conv_backward_parameters(
        input: Tensor, offset: Tensor, grad_output: Tensor, grad_weight: Tensor, columns: Tensor,
        ones: Tensor, *, scale: float, **settings: int) -> None:
    """Add the gradient of the weight of `_deform_conv_forward` to `grad_weight`."""
    grad_weight.add_(_deform_grads(input, grad_weight, offset, grad_output, settings)[1], alpha=scale)


_SERVED: dict[str, Callable] = {
    'nms': _nms,
    'roi_align_forward': _roi_align_forward,
    'roi_align_backward': _roi_align_backward,
    'sigmoid_focal_loss_forward': _sigmoid_focal_loss_forward,
    'sigmoid_focal_loss_backward': _sigmoid_focal_loss_backward,
    'modulated_deform_conv_forward': _modulated_deform_conv_forward,
    'modulated_deform_conv_backward': _modulated_deform_conv_backward,
    'deform_conv_forward': _deform_conv_forward,
    'deform_conv_backward_input': _deform_conv_backward_input,
    'deform_conv_backward_parameters': _deform_conv_backward_parameters,
    'get_compiler_version': lambda: 'n/a (mmcv-lite, ops served by torchvision)',
    'get_compiling_cuda_version': lambda: 'n/a (mmcv-lite, ops served by torchvision)',
}


def _missing_op(name: str) -> Callable:
    """Return a function that replaces the op `name` and raises an error when called."""
    if name.startswith('__'):
        raise AttributeError(f'module {_EXT!r} has no attribute {name!r}')

    def op(*args: Any, **kwargs: Any) -> None:
        raise NotImplementedError(
            f'The MMCV op {name!r} is compiled code, and this environment has mmcv-lite, for '
            'which torchvision provides only nms, roi_align, deformable convolution and '
            'sigmoid_focal_loss. To use all ops of MMCV, build them from source (about ten '
            f'minutes): {_WAY_OUT}')

    op.__name__ = name
    return op


def _install_ops() -> str:
    """Add the replacement to `sys.modules` unless compiled ops exist, and return the backend."""
    loaded = sys.modules.get(_EXT)
    if loaded is not None:
        return vars(loaded).get('served_by', 'mmcv')
    package = importlib.util.find_spec('mmcv')
    if package is None:
        raise ModuleNotFoundError(
            'MMCV is not installed in this environment, and mmdet and mmselfsup need it. '
            'Create an environment that has it: bash tools/setup_env.sh', name='mmcv')
    if importlib.machinery.PathFinder.find_spec(_EXT, package.submodule_search_locations):
        return 'mmcv'
    if 'mmcv.ops' in sys.modules:
        raise ImportError(
            'mmcv.ops was imported before projects.soco.compat, so its ops can no longer be '
            'served by torchvision. Restart Python (or the notebook kernel) and put '
            '`import projects.soco.compat` before the first import of mmdet or mmcv.ops.')
    module = ModuleType(_EXT, 'Ops of MMCV, served by torchvision; see projects.soco.compat.')
    # Without a loader, mmengine's mmcv_full_available() correctly returns False.
    module.__spec__ = importlib.machinery.ModuleSpec(_EXT, None)
    vars(module).update(_SERVED, served_by='torchvision', __getattr__=_missing_op)
    sys.modules[_EXT] = module
    return 'torchvision'


_OPS_BACKEND = _install_ops()


def ops_backend() -> str:
    """Return the backend of MMCV's ops: 'mmcv' (compiled) or 'torchvision' (this module)."""
    return _OPS_BACKEND


