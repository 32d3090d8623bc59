"""Keep what a detector predicts, to be evaluated again later."""
from pathlib import Path

from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner


@HOOKS.register_module()
class KeepPredictionsHook(Hook):
    """Have each validation leave its predictions in the work directory.

    They are COCO's result files, `predictions/iter_N.bbox.json` and, of a detector with masks,
    `iter_N.segm.json`, N being the iterations done. The evaluator must be mmdet's `CocoMetric`.

    Raises:
        ValueError: No `CocoMetric` is among the evaluator's metrics.
    """

    def before_val(self, runner: Runner) -> None:
        """Tell the metric where to write."""
        metrics = [metric for metric in runner.val_loop.evaluator.metrics
                   if hasattr(metric, 'outfile_prefix')]
        if not metrics:
            raise ValueError('KeepPredictionsHook needs a metric that writes COCO result files: set '
                             "val_evaluator.type='CocoMetric', or leave the hook out.")
        folder = Path(runner.work_dir) / 'predictions'
        folder.mkdir(parents=True, exist_ok=True)
        for metric in metrics:
            metric.outfile_prefix = str(folder / f'iter_{runner.iter}')
