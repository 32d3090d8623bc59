"""A hook that keeps a detector's predictions, so that they can be evaluated again."""
from pathlib import Path

from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner


@HOOKS.register_module()
class KeepPredictionsHook(Hook):
    """Write the predictions of each validation to the work directory.

    They are COCO result files: `predictions/iter_N.bbox.json` and, for a detector with masks,
    `iter_N.segm.json`, where N is the number of iterations done. The evaluator must be
    mmdet's `CocoMetric`.

    Raises:
        ValueError: If no `CocoMetric` is among the evaluator's metrics.
    """

    def before_val(self, runner: Runner) -> None:
        """Set the path that the metric writes to."""
        metrics = [metric for metric in runner.val_loop.evaluator.metrics
                   if hasattr(metric, 'outfile_prefix')]
        if not metrics:
            raise ValueError('KeepPredictionsHook needs a metric that writes COCO result files: set '
                             "val_evaluator.type='CocoMetric', or remove the hook.")
        folder = Path(runner.work_dir) / 'predictions'
        folder.mkdir(parents=True, exist_ok=True)
        for metric in metrics:
            metric.outfile_prefix = str(folder / f'iter_{runner.iter}')
