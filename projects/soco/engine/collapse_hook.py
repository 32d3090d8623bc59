"""A hook that warns when object features collapse."""
from typing import Any

from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner


@HOOKS.register_module()
class CollapseHook(Hook):
    """Warn when object features hardly differ: the network has collapsed to a trivial solution.

    `obj_std`, which `SoCo` logs, is the spread of normalised object features: near 1 when they point
    in all directions, 0 when all are equal.

    Args:
        threshold (float): Spread below which features count as collapsed, in (0, 1). Defaults to
            0.1 (our choice).
        patience (int): Consecutive checks below it before the warning. Defaults to 5.
        interval (int): Iterations between two checks. Defaults to 50, like the log's.
    """

    def __init__(self, threshold: float = 0.1, patience: int = 5, interval: int = 50) -> None:
        if not 0 < threshold < 1 or patience < 1 or interval < 1:
            raise ValueError('CollapseHook: threshold must be in (0, 1), patience and interval at '
                             f'least 1, not {threshold}, {patience} and {interval}.')
        self.threshold = threshold
        self.patience = patience
        self.interval = interval
        self._in_a_row = 0

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None,
                         outputs: dict | None = None) -> None:
        """Check the spread every `interval` iterations."""
        if not self.every_n_train_iters(runner, self.interval) or 'obj_std' not in (outputs or {}):
            return
        spread = float(outputs['obj_std'])
        self._in_a_row = self._in_a_row + 1 if spread < self.threshold else 0
        if self._in_a_row and self._in_a_row % self.patience == 0:
            runner.logger.warning(
                f'COLLAPSE? The spread of object features (obj_std) is {spread:.3f}, below '
                f'{self.threshold}, in {self._in_a_row} checks in a row: all objects look alike to the '
                'network. Common causes: a learning rate too high for the batch, a warm-up too short, '
                'a missing predictor or BN, weight decay on BN. Check the curves before you continue.')
