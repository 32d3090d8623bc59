"""A hook that warns when object features collapse."""
from typing import Any

from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner
from torch import nn

from .runner_utils import unwrapped


@HOOKS.register_module()
class CollapseHook(Hook):
    """Warn when object features collapse: into one point, or into a few directions.

    It watches two values of the log. `obj_std`, which `SoCo` logs, is the spread of normalised object
    features: near 1 when they point in all directions, 0 when all are equal. `obj_rank`, which
    `FeatureRankHook` logs, is their effective rank: it is compared with its first value, that of the
    network before training. Features can have a large spread and a low rank.

    Args:
        threshold (float): Spread below which features count as collapsed, in (0, 1). Defaults to
            0.1 (our choice).
        rank_share (float): Share of the rank at the start below which features count as collapsed, in
            [0, 1); 0 does not watch the rank. Defaults to 0.2 (our choice).
        patience (int): Consecutive checks below it before the warning; for the rank, consecutive
            measurements. Defaults to 5.
        interval (int): Iterations between two checks of the spread. Defaults to 50, like the log's.

    Raises:
        ValueError: If an argument is outside its range.
    """

    LOW_RANK = ('The loss and the objects found again do not show this. It is a warning: whether a '
                'detector suffers from it, only a comparison tells (docs/results/collapse.md).')

    def __init__(self, threshold: float = 0.1, rank_share: float = 0.2, patience: int = 5,
                 interval: int = 50) -> None:
        if not 0 < threshold < 1 or not 0 <= rank_share < 1 or patience < 1 or interval < 1:
            raise ValueError('CollapseHook: threshold must be in (0, 1), rank_share in [0, 1), '
                             'patience and interval at least 1, not '
                             f'{threshold}, {rank_share}, {patience} and {interval}.')
        self.threshold = threshold
        self.rank_share = rank_share
        self.patience = patience
        self.interval = interval
        self._in_a_row = 0
        self._told_of_rank = False

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None,
                         outputs: dict | None = None) -> None:
        """Check the spread every `interval` iterations, and each rank that was measured."""
        if self.every_n_train_iters(runner, self.interval) and 'obj_std' in (outputs or {}):
            self._check_spread(runner, float(outputs['obj_std']))
        if self.rank_share and not self._told_of_rank:
            self._check_rank(runner)

    def _check_spread(self, runner: Runner, spread: float) -> None:
        self._in_a_row = self._in_a_row + 1 if spread < self.threshold else 0
        if self._in_a_row and self._in_a_row % self.patience == 0:
            runner.logger.warning(
                f'COLLAPSE? The spread of object features (obj_std) is {spread:.3f}, below '
                f'{self.threshold}, in {self._in_a_row} checks in a row: all objects look alike to the '
                'network. Common causes: a learning rate too high for the batch, a warm-up too short, '
                'a missing predictor or BN, weight decay on BN. Check the curves before you continue.')

    def _check_rank(self, runner: Runner) -> None:
        """Warn once, when the last `patience` measurements after the first are all too low."""
        history = runner.message_hub.log_scalars.get('train/obj_rank')
        if history is None or len(history.data[0]) <= self.patience:
            return
        ranks = history.data[0]
        start, last = float(ranks[0]), ranks[-self.patience:]
        if max(last) < self.rank_share * start:
            self._told_of_rank = True
            runner.logger.warning(
                f'COLLAPSE? The effective rank of object features (obj_rank) is {last[-1]:.1f}, below '
                f'{self.rank_share:.0%} of the {start:.1f} at the start, in {self.patience} '
                'measurements in a row: the features differ in a few directions only. '
                f'{self.LOW_RANK} {_remedy(unwrapped(runner))}')


def _remedy(model: nn.Module) -> str:
    """Return what can be tried against a low rank."""
    terms = getattr(model, 'regulariser', None)
    if terms is None:
        return ('To try against it: the terms of the recipe for own photos, --cfg-options '
                '"model.regulariser={type: VarianceCovariance}"')
    weight = getattr(terms, 'covariance_weight', None)
    raised = '' if weight is None else (
        f' a larger model.regulariser.covariance_weight than {weight:g} (the rank grows with it; the '
        'largest on that page made the worst detector),')
    return (f'The config has terms against it already. To try:{raised} a lower learning rate, or '
            'ImageNet weights as the start (--pretrained).')
