"""A hook that logs in how many directions features differ during training."""
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
    measurement. The first measurement uses the first iterations of a run, and stands for the network
    before training: during warm-up the weights hardly change. Later measurements are compared with it
    (see `CollapseHook`).

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
        self._handles: list[Any] = []
        self._in_first_view = False
        self._gathered: dict[str, list[Tensor]] = {name: [] for name in NAMES}
        self._arriving: tuple[dict[str, Tensor], Any] | None = None

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: dict | None = None) -> None:
        """Collect features from here on, if they are needed for the next measurement."""
        if self.interval and not self._handles and self._is_needed(runner, data_batch):
            model = unwrapped(runner)
            self._handles = [model.register_forward_pre_hook(self._begin),
                             model.roi_head.register_forward_hook(self._keep_objects),
                             model.projector.register_forward_hook(self._keep_projections)]

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch: dict | None = None,
                         outputs: dict | None = None) -> None:
        """Log what has arrived; send the features when there are enough of them."""
        self._log(runner)
        enough = sum(map(len, self._gathered[NAMES[0]])) >= self._share
        if not self._handles or not enough or not (
                self._is_first(runner) or self.every_n_train_iters(runner, self.interval)):
            return
        for handle in self._handles:
            handle.remove()
        self._handles = []
        features = {name: torch.cat(parts)[-self._share:].float()
                    for name, parts in self._gathered.items()}
        self._gathered = {name: [] for name in NAMES}
        if get_world_size() > 1:
            features = {name: torch.cat(all_gather(value)) for name, value in features.items()}
        if is_main_process():
            self._arriving = self._send(features)
        self._log(runner)

    def after_train(self, runner: Runner) -> None:
        """Stop to collect: the run may end between two measurements."""
        for handle in self._handles:
            handle.remove()
        self._handles = []

    @property
    def _share(self) -> int:
        """Number of objects of each rank; the same on every rank."""
        return -(-self.num_objects // get_world_size())

    def _is_needed(self, runner: Runner, data_batch: dict | None) -> bool:
        """Return whether the objects of this iteration count for the next measurement."""
        images, pairs, _, proposals, _ = data_batch['bboxes'].shape
        iterations = -(-self._share // (images * pairs * proposals))
        return self._is_first(runner) or runner.iter % self.interval >= self.interval - iterations

    def _is_first(self, runner: Runner) -> bool:
        """Return whether a run has just begun; a resumed run has its first measurement behind it."""
        return runner.iter < self.interval and not self._has_measured(runner)

    @staticmethod
    def _has_measured(runner: Runner) -> bool:
        return f'train/{NAMES[0]}' in runner.message_hub.log_scalars

    def _begin(self, module: nn.Module, args: tuple) -> None:
        self._in_first_view = True

    def _keep_objects(self, module: nn.Module, args: tuple, objects: Tensor) -> None:
        if self._in_first_view:
            self._gathered['obj_rank'].append(objects.detach())

    def _keep_projections(self, module: nn.Module, args: tuple, projections: tuple[Tensor]) -> None:
        if self._in_first_view:
            self._gathered['proj_rank'].append(projections[0].detach())
        self._in_first_view = False

    @staticmethod
    def _send(features: dict[str, Tensor]) -> tuple[dict[str, Tensor], Any]:
        """Start the copy to the CPU, and return what tells when it is done."""
        if next(iter(features.values())).device.type == 'cpu':
            return features, None
        copies = {name: torch.empty(value.shape, pin_memory=True).copy_(value, non_blocking=True)
                  for name, value in features.items()}
        event = torch.cuda.Event()
        event.record()
        return copies, event

    def _log(self, runner: Runner) -> None:
        if self._arriving is None or (self._arriving[1] and not self._arriving[1].query()):
            return
        ranks = {name: effective_rank(features) for name, features in self._arriving[0].items()}
        if not self._has_measured(runner):  # not at a log: write it now
            runner.visualizer.add_scalars(ranks, step=runner.iter + 1)
            runner.logger.info('Effective rank at the start: ' + ', '.join(
                f'{name} {value:.1f} of {self._arriving[0][name].shape[1]}'
                for name, value in ranks.items()))
        for name, value in ranks.items():
            runner.message_hub.update_scalar(f'train/{name}', value)
        self._arriving = None
