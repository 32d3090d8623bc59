"""A hook that logs in how many directions features differ during training."""
import copy
from typing import Any

import torch
from mmengine.dist import all_gather, get_world_size, is_main_process
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner
from torch import Tensor, nn

from ..engine.runner_utils import unwrapped
from .rank import effective_rank

NAMES = ('obj_rank', 'proj_rank')


@HOOKS.register_module()
class FeatureRankHook(Hook):
    """Log the effective rank of the online network's object features and projections.

    `obj_rank` is the effective rank of the RoI head's output, which a detector starts from, and
    `proj_rank` that of the projections (see `evaluation.rank.effective_rank`). A fall shows that the
    features collapse into a few directions, which neither the loss nor `obj_std` shows.

    The objects are those of the first view, of all ranks, gathered over the iterations before the
    measurement. The first measurement is of the network before training: a copy of it is kept, and
    runs on the batches of the first iterations until there are enough objects. Later measurements are
    compared with it (see `CollapseHook`).

    The host never waits for a GPU: the features are copied in the background, and their rank is logged
    as soon as they have arrived. Between two measurements the hook does nothing.

    Args:
        interval (int): Iterations between two measurements; 0 never measures. Defaults to 50.
        num_objects (int): Objects to measure with, at least. Defaults to 1024.

    Raises:
        ValueError: If `interval` is negative or `num_objects` is less than 2.
    """

    def __init__(self, interval: int = 50, num_objects: int = 1024) -> None:
        if interval < 0 or num_objects < 2:
            raise ValueError('FeatureRankHook: interval must be at least 0 and num_objects at least 2, '
                             f'not {interval} and {num_objects}.')
        self.interval = interval
        self.num_objects = num_objects
        self._start: Any = None  # a SoCo, the network before training, until it has been measured
        self._start_features = _empty()
        self._features = _empty()
        self._handles: list[Any] = []
        self._in_first_view = False
        self._arriving: list[tuple[dict[str, Tensor], Any]] = []

    def before_train(self, runner: Runner) -> None:
        """Keep a copy of the network that a new run begins with."""
        if self.interval and f'train/{NAMES[0]}' not in runner.message_hub.log_scalars:
            self._start = copy.deepcopy(unwrapped(runner))
            del self._start.target  # not measured
            self._start_handle = unwrapped(runner).register_forward_pre_hook(
                self._run_start, with_kwargs=True)

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: dict | None = None) -> None:
        """Collect features from here on, if they are needed for the next measurement."""
        if not self.interval or self._handles:
            return
        images, pairs, _, proposals, _ = data_batch['bboxes'].shape
        iterations = -(-self._share // (images * pairs * proposals))
        if runner.iter % self.interval >= self.interval - iterations:
            model = unwrapped(runner)
            self._handles = [model.register_forward_pre_hook(self._begin),
                             model.roi_head.register_forward_hook(self._keep_objects),
                             model.projector.register_forward_hook(self._keep_projections)]

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch: dict | None = None,
                         outputs: dict | None = None) -> None:
        """Send the features when there are enough of them; log what has arrived."""
        if self._start is not None and self._has_enough(self._start_features):
            self._start_handle.remove()
            self._start = None
            self._send(self._start_features)
            self._start_features = _empty()
        # after the start, so that the first value of the log is its
        if (self._start is None and self._handles and self._has_enough(self._features)
                and self.every_n_train_iters(runner, self.interval)):
            self._stop_collecting()
            self._send(self._features)
            self._features = _empty()
        while self._arriving and (self._arriving[0][1] is None or self._arriving[0][1].query()):
            self._log(runner, self._arriving.pop(0)[0])

    def after_train(self, runner: Runner) -> None:
        """Stop to collect: the run may end between two measurements."""
        self._stop_collecting()
        if self._start is not None:
            self._start_handle.remove()
            self._start = None

    @property
    def _share(self) -> int:
        """Number of objects of each rank; the same on every rank."""
        return -(-self.num_objects // get_world_size())

    def _has_enough(self, features: dict[str, list[Tensor]]) -> bool:
        return sum(map(len, features[NAMES[0]])) >= self._share

    def _run_start(self, module: nn.Module, args: tuple, kwargs: dict) -> None:
        """Run the network before training on a batch, with the same random state afterwards."""
        kwargs = {key: value for key, value in kwargs.items() if key != 'mode'}
        device = next(self._start.parameters()).device
        devices = [device] if device.type == 'cuda' else []
        with torch.no_grad(), torch.random.fork_rng(devices=devices):
            objects, projections = self._start.extract_feat(*args, **kwargs)
        for name, (first, *_) in zip(NAMES, (objects, projections)):
            self._start_features[name].append(first.flatten(0, 2))

    def _begin(self, module: nn.Module, args: tuple) -> None:
        self._in_first_view = True

    def _keep_objects(self, module: nn.Module, args: tuple, objects: Tensor) -> None:
        if self._in_first_view:
            self._features['obj_rank'].append(objects.detach())

    def _keep_projections(self, module: nn.Module, args: tuple, projections: tuple[Tensor]) -> None:
        if self._in_first_view:
            self._features['proj_rank'].append(projections[0].detach())
        self._in_first_view = False

    def _stop_collecting(self) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles = []

    def _send(self, features: dict[str, list[Tensor]]) -> None:
        """Gather the features of all ranks on the main process, and start their copy to the CPU."""
        joined = {name: torch.cat(parts)[-self._share:].float() for name, parts in features.items()}
        if get_world_size() > 1:
            joined = {name: torch.cat(all_gather(value)) for name, value in joined.items()}
        if not is_main_process():
            return
        event = None
        if joined[NAMES[0]].is_cuda:
            joined = {name: torch.empty(value.shape, pin_memory=True).copy_(value, non_blocking=True)
                      for name, value in joined.items()}
            event = torch.cuda.Event()
            event.record()
        self._arriving.append((joined, event))

    @staticmethod
    def _log(runner: Runner, features: dict[str, Tensor]) -> None:
        if not all(values.isfinite().all() for values in features.values()):
            # On a GPU, this may come before the check of the loss, which explains what to do.
            runner.logger.warning('The features are not finite, so their rank is not measured.')
            return
        ranks = {name: effective_rank(values) for name, values in features.items()}
        if f'train/{NAMES[0]}' not in runner.message_hub.log_scalars:  # the start
            runner.visualizer.add_scalars(ranks, step=1)
            runner.logger.info('Effective rank before training: ' + ', '.join(
                f'{name} {value:.1f} of {features[name].shape[1]}' for name, value in ranks.items()))
        for name, value in ranks.items():
            runner.message_hub.update_scalar(f'train/{name}', value)


def _empty() -> dict[str, list[Tensor]]:
    return {name: [] for name in NAMES}
