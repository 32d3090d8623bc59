"""Training runs whose values and pictures also go to TensorBoard or MLflow, each added by one line."""
from pathlib import Path

import pytest
from mmengine.runner import Runner
from small import tiny_config

from projects.soco.runs.log import read_run


def train(folder: Path, backend: dict) -> list[dict]:
    """Train two iterations, and return what the local files say."""
    cfg = tiny_config(folder, photos=4)
    cfg.visualizer.vis_backends.append(backend)
    cfg.default_hooks.views.interval = 1
    cfg.default_hooks.logger.interval = 1
    cfg.train_cfg.max_epochs = 1
    Runner.from_cfg(cfg).train()
    records = [record for record in read_run(folder / 'work') if 'loss' in record]
    assert len(records) == 2
    return records


def test_tensorboard_has_the_values_and_the_views(tmp_path: Path):
    pytest.importorskip('tensorboard')
    local = train(tmp_path, dict(type='TensorboardVisBackend'))
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    (path, ) = tmp_path.rglob('events.out.tfevents.*')
    events = EventAccumulator(str(path))
    events.Reload()
    for key in ('loss', 'lr', 'obj_std', 'momentum'):
        assert [event.value for event in events.Scalars(key)] == pytest.approx(
            [record[key] for record in local]), key
    assert any(name.startswith('views') for name in events.Tags()['images'])


def test_mlflow_has_the_values_in_a_local_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    pytest.importorskip('mlflow', reason='mlflow is not installed')
    monkeypatch.setenv('MLFLOW_ALLOW_FILE_STORE', 'true')  # which MLflow 3.17 refuses otherwise
    local = train(tmp_path, dict(type='MLflowVisBackend', exp_name='soco'))
    from mlflow import MlflowClient
    (store, ) = {path.parents[3] for path in tmp_path.rglob('metrics/loss')}
    client = MlflowClient(f'file://{store}')
    (run, ) = client.search_runs([client.get_experiment_by_name('soco').experiment_id])
    for key in ('loss', 'lr', 'obj_std'):
        assert run.data.metrics[key] == pytest.approx(local[-1][key]), key
    pictures = sorted(path.name for path in store.rglob('artifacts/views*.png'))
    assert pictures == ['views_1.png', 'views_2.png']
