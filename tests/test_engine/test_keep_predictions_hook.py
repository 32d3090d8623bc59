"""Tests of the hook that keeps predictions."""
from pathlib import Path
from types import SimpleNamespace

import pytest

from projects.soco.engine import KeepPredictionsHook


def runner(folder: Path, metrics: list, iterations: int = 40) -> SimpleNamespace:
    return SimpleNamespace(work_dir=str(folder), iter=iterations,
                           val_loop=SimpleNamespace(evaluator=SimpleNamespace(metrics=metrics)))


def test_each_validation_has_a_name_of_its_own(tmp_path: Path):
    metric, other = SimpleNamespace(outfile_prefix=None), SimpleNamespace()
    hook = KeepPredictionsHook()
    for iterations in (40, 80):
        hook.before_val(runner(tmp_path, [other, metric], iterations))
        assert metric.outfile_prefix == str(tmp_path / f'predictions/iter_{iterations}')
    assert (tmp_path / 'predictions').is_dir() and not hasattr(other, 'outfile_prefix')


def test_without_a_metric_that_writes_it_is_told(tmp_path: Path):
    with pytest.raises(ValueError, match="val_evaluator.type='CocoMetric'"):
        KeepPredictionsHook().before_val(runner(tmp_path, [SimpleNamespace()]))
    assert not (tmp_path / 'predictions').exists()
