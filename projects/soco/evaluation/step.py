"""Measurements of a training step: time by stage, operations, memory and host syncs."""
import copy
import ctypes
import functools
import gc
import statistics
import time
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from mmengine.config import Config
from mmengine.optim import OptimWrapper, build_optim_wrapper
from mmengine.registry import MODELS, OPTIM_WRAPPERS, DefaultScope
from torch import nn
from torch.utils.data import default_collate
from torch.utils.data._utils.pin_memory import pin_memory
from torch.utils.flop_counter import FlopCounterMode

from ..compat.cpu import cpu_config
from ..datasets.transforms import ProposalViews, transform_in
from ..engine import AutocastOptimWrapper
from .cost import made_up_batch

AMP_TYPES = {'fp16': torch.float16, 'bf16': torch.bfloat16}
MOMENTUM = 0.99  # EMA momentum; the value does not affect the time


class Stopwatch:
    """A timer of named stages of a step; each stage's time excludes the stages nested in it.

    On CUDA it records events and synchronises once, at the end of a step. Elsewhere it reads the
    clock.

    Args:
        device (torch.device): The device that runs the step.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.running = False
        self.spans: list[list] = []  # stage, start, end, index of the enclosing span
        self.inside: int | None = None

    def watch(self, owner: object, name: str, stage: str) -> None:
        """Time every call of the method `owner.name`, for this object only.

        Args:
            owner (object): The object whose method is replaced with a timed one.
            name (str): Name of the method.
            stage (str): Stage that its time counts for.
        """
        method = getattr(owner, name)

        @functools.wraps(method)
        def timed(*args, **kwargs):
            if not self.running:
                return method(*args, **kwargs)
            outer, self.inside = self.inside, len(self.spans)
            span = [stage, self._now(), None, outer]
            self.spans.append(span)
            try:
                return method(*args, **kwargs)
            finally:
                span[2], self.inside = self._now(), outer

        setattr(owner, name, timed)

    def measure(self, step: Callable[[], None]) -> dict[str, float]:
        """Run a step and time its stages.

        Args:
            step (Callable): The step.

        Returns:
            dict[str, float]: Milliseconds per stage; the key '' has the time outside all stages.
        """
        self.spans, self.running = [], True
        start = self._now()
        step()
        end = self._now()
        self.running = False
        if self.device.type == 'cuda':
            torch.cuda.synchronize(self.device)
        taken = {'': self._between(start, end)}
        for stage, start, end, outer in self.spans:
            span = self._between(start, end)
            around = '' if outer is None else self.spans[outer][0]
            taken[stage] = taken.get(stage, 0.0) + span
            taken[around] -= span
        return taken

    def _now(self) -> object:
        if self.device.type != 'cuda':
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def _between(self, start, end) -> float:
        return start.elapsed_time(end) if self.device.type == 'cuda' else 1000 * (end - start)


class Contender:
    """A model with its optimiser, ready for whole training steps.

    Args:
        model (nn.Module): Has `loss(inputs, bboxes)`.
        preprocess (nn.Module): Turns a collated batch into `inputs` and `bboxes`.
        optim_wrapper (OptimWrapper): Optimiser of the model's parameters.
        update_target (str): Name of the model's method that updates the target network.
        stages (dict[str, list[str]]): Name of a stage to the dotted names of its modules or methods
            in the model.
        finest_levels (list[int], optional): Those of its config, since all contenders get the same
            batch. Defaults to None: those of the batch.
    """

    def __init__(self, model: nn.Module, preprocess: nn.Module,
                 optim_wrapper: OptimWrapper, update_target: str,
                 stages: dict[str, list[str]], finest_levels: list[int] | None = None) -> None:
        self.model, self.optim_wrapper = model, optim_wrapper
        self.finest_levels = finest_levels
        self.preprocess, self.update_target = preprocess, update_target
        self.stages = {**stages, 'EMA': [update_target]}

    def attach(self, stopwatch: Stopwatch) -> None:
        """Time the stages with a stopwatch.

        Args:
            stopwatch (Stopwatch): The stopwatch.
        """
        stopwatch.watch(self.preprocess, 'forward', 'preprocessor')
        stopwatch.watch(self.optim_wrapper, 'backward', 'backward')
        stopwatch.watch(self.optim_wrapper.optimizer, 'step', 'optimiser')
        for stage, names in self.stages.items():
            for name in names:
                path, _, last = name.rpartition('.')
                owner = self.model.get_submodule(path)
                if isinstance(getattr(owner, last), nn.Module):
                    owner, last = getattr(owner, last), 'forward'
                stopwatch.watch(owner, last, stage)

    def prepare(self, data: dict) -> dict:
        """Run the preprocessor on a collated batch."""
        prepared = self.preprocess(data, True)
        if self.finest_levels is not None:
            prepared['finest_levels'] = self.finest_levels
        return prepared

    def learn(self, prepared: dict) -> None:
        """Update the target, run forward and backward, and step the optimiser."""
        getattr(self.model, self.update_target)(MOMENTUM)
        with self.optim_wrapper.optim_context(self.model):
            losses = self.model.loss(**prepared)
        loss = sum(value for key, value in losses.items() if key.startswith('loss'))
        self.optim_wrapper.update_params(loss)


class Timing(NamedTuple):
    """The result of `measure_steps` for one contender; times are medians in milliseconds per step."""

    step: float
    stages: dict[str, float]
    gflop: float  # per image, without the preprocessor
    memory: float  # peak in bytes: weights, optimiser and one step
    syncs: int | None  # number of host-device synchronisations in a step; None on a CPU


def made_up_data(cfg: Config, batch_size: int, pin: bool = False) -> dict:
    """Make a collated batch of noise in the format of a config's data loader.

    Args:
        cfg (Config): A pretraining config.
        batch_size (int): Number of images, N.
        pin (bool): Whether to use page-locked memory. Defaults to False.

    Returns:
        dict: Input of `SoCoDataPreprocessor.forward`, without cutouts.
    """
    views, boxes = made_up_batch(cfg, batch_size)
    generator = torch.Generator().manual_seed(0)
    transform = ProposalViews(**{
        key: value for key, value in transform_in(cfg, 'ProposalViews').items() if key != 'type'})
    uniforms = torch.rand(batch_size, len(views), transform.policy.num_uniforms, generator=generator)
    data: dict[str, Any] = dict(
        inputs=[(64 * view + 128).clamp(0, 255).to(torch.uint8) for view in views],
        bboxes=boxes.contiguous(),
        cutouts=torch.zeros(batch_size, len(views), boxes.shape[3], 4, dtype=torch.int16),
        finest_levels=torch.tensor([transform.finest_levels] * batch_size),
        colours=default_collate([transform.policy.colours(rows) for rows in uniforms.numpy()]))
    return pin_memory(data) if pin else data


def project_contender(cfg: Config, device: torch.device, amp: str,
                      channels_last: bool = False, compiled: bool = False) -> Contender:
    """Build the model of a pretraining config and its optimiser.

    Args:
        cfg (Config): A pretraining config.
        device (torch.device): The device. On a CPU, `compat.cpu_config` replaces the norms.
        amp (str): Precision: 'no', 'fp16' or 'bf16'.
        channels_last (bool): Whether weights and views use the channels-last memory format. Defaults
            to False.
        compiled (bool): Whether backbone and neck are compiled. Defaults to False.

    Returns:
        Contender: The model, its preprocessor and its optimiser.
    """
    cfg = cpu_config(cfg) if device.type == 'cpu' else copy.deepcopy(cfg)
    cfg.model.update(channels_last=channels_last, compile_features=compiled)
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        model = MODELS.build(cfg.model)  # no `init_weights`: times do not depend on the weights
        model.to(device).train()
        wrapper = build_optim_wrapper(
            model, dict(type='OptimWrapper', optimizer=cfg.optim_wrapper.optimizer))
    parts = [part for part in ('backbone', 'neck', 'roi_head', 'projector') if part in model.target]
    stages = {part: [part, f'target.{part}'] for part in parts}
    return Contender(model, model.data_preprocessor, with_precision(wrapper.optimizer, device, amp),
                     'momentum_update', {**stages, 'loss': ['loss', 'head']},
                     [view.get('finest_level', 0) for view in transform_in(cfg, 'ProposalViews').views])


def with_precision(optimizer: torch.optim.Optimizer, device: torch.device, amp: str) -> OptimWrapper:
    """Wrap an optimiser for full precision ('no') or for autocast in 'fp16' or 'bf16'.

    Args:
        optimizer (torch.optim.Optimizer): The optimiser.
        device (torch.device): The device of its parameters.
        amp (str): Precision: 'no', 'fp16' or 'bf16'.

    Returns:
        OptimWrapper: The wrapper.
    """
    if amp == 'no':
        return OptimWrapper(optimizer)
    dtype = str(AMP_TYPES[amp]).split('.')[1]
    if device.type == 'cpu':
        return AutocastOptimWrapper(dtype, optimizer=optimizer)
    return OPTIM_WRAPPERS.build(dict(type='AmpOptimWrapper', optimizer=optimizer, dtype=dtype))


def measure_steps(builders: dict[str, Callable[[], Contender]], data: dict, device: torch.device,
                  steps: int, warmup: int = 2,
                  progress: Callable[[], None] = lambda: None) -> dict[str, Timing]:
    """Time whole training steps of one or more contenders, alternating between them each step.

    Args:
        builders (dict[str, Callable]): Name to a function that builds the contender.
        data (dict): A collated batch on the CPU (`made_up_data`).
        device (torch.device): The device that the contenders run on.
        steps (int): Number of timed steps; the results are medians over them.
        warmup (int): Number of steps before these. Two of them measure operations and memory.
            Defaults to 2.
        progress (Callable): Called after each timed step and each warm-up. Defaults to a function
            that does nothing.

    Returns:
        dict[str, Timing]: Name to `Timing`.
    """
    ready, found = {}, {}
    stopwatch = Stopwatch(device)
    for name, build in builders.items():
        before = memory_in_use(device)
        ready[name] = contender = build()
        found[name] = look_into_step(contender, data, device, before)
        contender.attach(stopwatch)
        for _ in range(warmup - 2):
            contender.learn(contender.prepare(data))
        progress()
    taken: dict[str, list[dict[str, float]]] = {name: [] for name in ready}
    for _ in range(steps):
        for name, contender in ready.items():
            taken[name].append(stopwatch.measure(
                lambda ready=contender: ready.learn(ready.prepare(data))))  # type: ignore[misc]
            progress()
    return {name: Timing(
        step=statistics.median(sum(times.values()) for times in rows),
        stages={stage: statistics.median(times[stage] for times in rows) for stage in rows[0]},
        **found[name]) for name, rows in taken.items()}


def look_into_step(contender: Contender, data: dict, device: torch.device, before: int) -> dict:
    """Measure the operations, memory and synchronisations of a contender with two steps.

    Args:
        contender (Contender): The contender.
        data (dict): A collated batch on the CPU.
        device (torch.device): The contender's device.
        before (int): Bytes in use before the contender was built.

    Returns:
        dict: `gflop` per image, `memory` (peak bytes beyond `before`), and `syncs` (host
        synchronisations; None on a CPU).
    """
    prepared = contender.prepare(data)
    with FlopCounterMode(display=False) as counter:
        contender.learn(prepared)
    del prepared
    reset_peak_memory(device)
    syncs = None
    if device.type == 'cuda':
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter('always')
            torch.cuda.set_sync_debug_mode('warn')
            contender.learn(contender.prepare(data))
            torch.cuda.set_sync_debug_mode('default')
        syncs = sum('synchronizing CUDA operation' in str(w.message) for w in caught)
    else:
        contender.learn(contender.prepare(data))
    return dict(gflop=counter.get_total_flops() / len(data['bboxes']) / 1e9,
                memory=peak_memory(device) - before, syncs=syncs)


def _status(field: str) -> int:
    """Return a field of this process's /proc/self/status, in bytes."""
    with open('/proc/self/status') as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith(field))


def memory_in_use(device: torch.device) -> int:
    """Return the bytes of tensors on a GPU, or of this process on the CPU (Linux)."""
    gc.collect()
    if device.type == 'cuda':
        return torch.cuda.memory_allocated(device)
    ctypes.CDLL(None).malloc_trim(0)  # return freed memory to the system, so that it is not counted
    return _status('VmRSS')


def reset_peak_memory(device: torch.device) -> None:
    """Reset the peak that `peak_memory` returns."""
    if device.type == 'cuda':
        torch.cuda.reset_peak_memory_stats(device)
        return
    ctypes.CDLL(None).malloc_trim(0)
    with open('/proc/self/clear_refs', 'w') as refs:
        refs.write('5')


def peak_memory(device: torch.device) -> int:
    """Return the peak bytes in use since `reset_peak_memory`."""
    return (torch.cuda.max_memory_allocated(device) if device.type == 'cuda' else
            _status('VmHWM'))


def matrix_peak(device: torch.device, amp: str, n: int = 8192, repeats: int = 20) -> float:
    """Measure the peak FLOP/s of matrix products.

    Args:
        device (torch.device): The device.
        amp (str): Precision: 'no', 'fp16' or 'bf16'.
        n (int): Side of the square matrices. Defaults to 8192.
        repeats (int): Number of products; the fastest counts. Defaults to 20.

    Returns:
        float: FLOP per second.
    """
    matrix = torch.rand(n, n, device=device, dtype=AMP_TYPES.get(amp, torch.float32))
    stopwatch = Stopwatch(device)
    stopwatch.measure(lambda: matrix @ matrix)
    fastest = min(sum(stopwatch.measure(lambda: matrix @ matrix).values()) for _ in range(repeats))
    return 2 * n**3 / (fastest / 1000)
