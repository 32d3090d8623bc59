"""Hooks that log a pretraining run: model outputs, speed and level shares."""
import torch
from mmengine.dist import get_world_size
from mmengine.hooks import Hook, RuntimeInfoHook
from mmengine.registry import HOOKS
from mmengine.runner import Runner
from torch import Tensor

from .runner_utils import log_is_due, unwrapped


@HOOKS.register_module()
class DeferredInfoHook(RuntimeInfoHook):
    """mmengine's `RuntimeInfoHook` that waits for the GPU once per log instead of every iteration.

    The model's outputs stay on the device until a log, the end of an epoch or a checkpoint needs them.
    The histories are the same.
    """

    def __init__(self) -> None:
        self._pending: list[dict[str, Tensor]] = []

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch: dict | None = None,
                         outputs: dict | None = None) -> None:
        """Collect the outputs, and write them to the histories when a log is due."""
        self._pending.append({key: value.detach() for key, value in (outputs or {}).items()})
        if log_is_due(self, runner, batch_idx):
            self._write(runner)

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Complete the histories in a checkpoint that is written between two logs."""
        if self._pending:
            self._write(runner)
            checkpoint['message_hub'] = runner.message_hub.state_dict()

    def _write(self, runner: Runner) -> None:
        values = [value.float() for outputs in self._pending for value in outputs.values()]
        numbers = iter(torch.stack(values).tolist() if values else [])  # waits for the device once
        for outputs in self._pending:
            for key in outputs:
                runner.message_hub.update_scalar(f'train/{key}', next(numbers))
        self._pending.clear()


@HOOKS.register_module()
class BatchInfoHook(Hook):
    """Log the images per second of all ranks, and the levels that boxes are pooled from.

    Both are over the iterations since the last log. `images_per_s` includes the time spent waiting for
    data. `share_v1_p2` is the share of level P2 among the boxes of the first view on this rank, and so
    on for each view and level; a model without a pyramid has no shares. The shares are written to the
    visualizer's files only, as they would fill the text log. The boxes are on the CPU, so nothing waits
    for a device.
    """

    def __init__(self) -> None:
        self._iterations = 0
        self._counts: Tensor | None = None  # (V, levels)

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch: dict | None = None,
                         outputs: dict | None = None) -> None:
        """Count a batch, and log the counts when a log is due."""
        model, bboxes = unwrapped(runner), data_batch['bboxes']
        self._iterations += 1
        levels = model.box_levels(bboxes, data_batch['finest_levels'][0].tolist())  # (N, P, 2, K)
        if levels is not None:
            counts = torch.stack([
                torch.bincount(part.flatten(), minlength=model.roi_head.bbox_roi_extractor.num_inputs)
                for part in (levels[:, :, 0], *levels[:, :, 1].unbind(dim=1))])
            self._counts = counts if self._counts is None else self._counts + counts
        if not log_is_due(self, runner, batch_idx):
            return
        # mmengine's timer hook has the same priority and is registered earlier, so it has run
        seconds = runner.message_hub.get_scalar('train/time').mean(self._iterations)
        runner.message_hub.update_scalar('train/images_per_s',
                                         float(len(bboxes) * get_world_size() / seconds))
        if self._counts is not None:
            shares = self._counts.double() / self._counts.sum(dim=1, keepdim=True)
            runner.visualizer.add_scalars(
                {f'share_v{v}_{level.lower()}': share for v, row in enumerate(shares.tolist(), 1)
                 for level, share in zip(model.level_names, row)}, step=runner.iter + 1)
        self._iterations, self._counts = 0, None
