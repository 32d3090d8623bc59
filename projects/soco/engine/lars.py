"""The LARS optimiser with the official order of operations, for all tensors at once."""
from collections.abc import Callable, Iterable

import torch
from mmengine.registry import OPTIMIZERS
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.sgd import sgd


@OPTIMIZERS.register_module()
class SoCoLARS(Optimizer):
    """Layer-wise adaptive rate scaling before plain SGD (official behaviour).

    For each tensor of two or more dimensions: `g += weight_decay * p`, then
    `g *= trust_coefficient * |p| / (|g| + eps)` where both norms are positive. One-dimensional
    tensors (BN, biases) get neither. Then `buf = momentum * buf + g` and `p -= lr * buf`.
    MMSelfSup's `LARS` differs: another denominator, and lr inside the momentum buffer.

    No step waits for the device, not even under a `GradScaler`, which passes its scale and whether
    there are infinite gradients (`grad_scale` and `found_inf`) as tensors.

    Args:
        params (Iterable): Parameters or parameter groups.
        lr (float): Learning rate, positive.
        momentum (float): Momentum of SGD, in [0, 1). Defaults to 0.9.
        weight_decay (float): Weight decay of the tensors that are scaled. Defaults to 1e-5.
        trust_coefficient (float): Factor of the ratio of the norms. Defaults to 0.001.
        eps (float): Added to the gradient's norm. Defaults to 1e-8.
    """

    _step_supports_amp_scaling = True  # read by GradScaler

    def __init__(self, params: Iterable, lr: float, momentum: float = 0.9,
                 weight_decay: float = 1e-5, trust_coefficient: float = 0.001,
                 eps: float = 1e-8) -> None:
        if lr < 0 or not 0 <= momentum < 1 or weight_decay < 0:
            raise ValueError('SoCoLARS needs lr >= 0, 0 <= momentum < 1 and weight_decay >= 0, not '
                             f'lr={lr}, momentum={momentum}, weight_decay={weight_decay}.')
        super().__init__(params, dict(lr=lr, momentum=momentum, weight_decay=weight_decay,
                                      trust_coefficient=trust_coefficient, eps=eps))

    @torch.no_grad()
    def step(  # type: ignore[override]
            self, closure: Callable | None = None) -> float | None:
        """Perform one optimisation step.

        Args:
            closure (Callable, optional): Evaluates the model again and returns the loss.

        Returns:
            float | None: What `closure` returned, None without it.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            params = [p for p in group['params'] if p.grad is not None]
            scaled = [p for p in params if p.ndim > 1]
            plain = [p for p in params if p.ndim <= 1]
            grads = self._scale(scaled, group) if scaled else []
            self._descend(scaled + plain, grads + self._unscaled(plain), group)
        return loss

    def _unscaled(self, params: list) -> list:
        """Return the gradients without the factor of a gradient scaler."""
        grads = [p.grad for p in params]
        scale = getattr(self, 'grad_scale', None)
        return grads if scale is None else list(torch._foreach_mul(grads, scale.reciprocal()))

    def _scale(self, params: list, group: dict) -> list:
        """Return the gradients with weight decay, scaled by the trust ratio of their tensors."""
        grads = torch._foreach_add(self._unscaled(params), params, alpha=group['weight_decay'])
        length_p = torch.stack(torch._foreach_norm(params))
        length_g = torch.stack(torch._foreach_norm(grads))
        trust = group['trust_coefficient'] * length_p / (length_g + group['eps'])
        trust = torch.where((length_p > 0) & (length_g > 0), trust, torch.ones_like(trust))
        torch._foreach_mul_(grads, trust.unbind())
        return list(grads)

    def _descend(self, params: list, grads: list, group: dict) -> None:
        """Apply the SGD step in one kernel, which itself skips a step with infinite gradients."""
        sgd(params, grads, [self._buffer(p) for p in params], fused=True, lr=group['lr'],
            momentum=group['momentum'], weight_decay=0, dampening=0, nesterov=False, maximize=False,
            found_inf=getattr(self, 'found_inf', None))

    def _buffer(self, param: Tensor) -> Tensor:
        state = self.state[param]
        if 'momentum_buffer' not in state:
            state['momentum_buffer'] = torch.zeros_like(param)
        elif state['momentum_buffer'].stride() != param.stride():  # from a run in another memory format
            state['momentum_buffer'] = torch.empty_like(param).copy_(state['momentum_buffer'])
        return state['momentum_buffer']
