"""Two CPU processes: equal parameters on all ranks, and the gradient of the joint batch."""
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from scripts import PYTHON
from small import ROOT, tiny_config
from torch.utils.data import default_collate

pytestmark = pytest.mark.slow


def launch(script: str, *arguments: str) -> None:
    """Run this file's `script` in two gloo processes."""
    command = [PYTHON, '-m', 'torch.distributed.run', '--nproc_per_node=2',
               '--master_port=0', '--standalone', __file__, script, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=400, env={
        **os.environ, 'PYTHONPATH': f'{ROOT}:{ROOT}/tests', 'OMP_NUM_THREADS': '1'})
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]


def fixed_batch(cfg, rows: list[int]) -> dict:
    """Return a batch whose augmentations depend on the photos, not on the process."""
    from mmselfsup.registry import DATASETS
    dataset = DATASETS.build(cfg.train_dataloader.dataset)
    return default_collate([dataset[row] for row in rows])


def loss_and_gradient(model: torch.nn.Module, batch: dict) -> dict:
    module = getattr(model, 'module', model)
    module.eval()  # BN uses running statistics, so the split of the batch does not matter
    data = module.data_preprocessor(batch, True)
    losses = model(**data, mode='loss')
    sum(v for k, v in losses.items() if k.startswith('loss')).backward()
    return {n: p.grad for n, p in module.named_parameters() if p.grad is not None}


def build(folder: Path) -> tuple:
    from mmengine.config import Config
    from mmengine.registry import init_default_scope
    from mmselfsup.registry import MODELS

    import projects.soco.models  # noqa: F401
    cfg = Config.fromfile(folder / 'config.py')
    init_default_scope('mmselfsup')
    torch.manual_seed(0)
    model = MODELS.build(cfg.model)
    model.init_weights()
    return cfg, model


def gradient_worker(folder: Path) -> None:
    from mmengine.model import MMDistributedDataParallel

    from projects.soco.compat.cpu import init_cpu_process_group
    init_cpu_process_group()
    rank = torch.distributed.get_rank()
    cfg, model = build(folder)
    wrapped = MMDistributedDataParallel(model, device_ids=None, broadcast_buffers=False)
    grads = loss_and_gradient(wrapped, fixed_batch(cfg, [[0, 1], [2, 3]][rank]))
    torch.save(grads, folder / f'grads_{rank}.pth')


@pytest.mark.parametrize('regulariser', [None, dict(type='VarianceCovariance')], ids=['off', 'on'])
def test_two_ranks_average_to_the_gradient_of_the_joint_batch(tmp_path, regulariser):
    tiny_config(tmp_path, **{'model.regulariser': regulariser}).dump(tmp_path / 'config.py')
    launch('gradient', str(tmp_path))
    cfg, model = build(tmp_path)
    joint = loss_and_gradient(model, fixed_batch(cfg, [0, 1, 2, 3]))
    first, second = (torch.load(tmp_path / f'grads_{rank}.pth', weights_only=True)
                     for rank in range(2))
    assert first.keys() == second.keys() == joint.keys()
    scale = max(float(g.abs().max()) for g in joint.values())
    for name, grad in joint.items():
        assert torch.equal(first[name], second[name]), name
        assert (first[name] - grad).abs().max() <= 1e-5 * scale, name


def train_worker(folder: Path) -> None:
    from mmengine.config import Config
    from mmengine.runner import Runner

    from projects.soco.launch.checks import prepare_processes
    cfg = Config.fromfile(folder / 'config.py')
    prepare_processes(cfg, 'pytorch')
    runner = Runner.from_cfg(cfg)
    runner.train()
    model = runner.model.module
    torch.save(dict(model.named_parameters()), folder / f'params_{runner.rank}.pth')
    torch.save(model.state_dict()['backbone.bn1.running_mean'], folder / f'bn_{runner.rank}.pth')


def test_all_ranks_end_with_the_same_parameters(tmp_path):
    cfg = tiny_config(tmp_path, **{'train_cfg.max_epochs': 2,
                                   'default_hooks.checkpoint.interval': 2})
    cfg.dump(tmp_path / 'config.py')
    launch('train', str(tmp_path))
    first, second = (torch.load(tmp_path / f'params_{rank}.pth', weights_only=True)
                     for rank in range(2))
    assert first.keys() == second.keys() and len(first) > 100
    assert all(torch.equal(first[name], second[name]) for name in first)
    # the ranks saw different photos, so the statistics of plain BN differ
    stats = [torch.load(tmp_path / f'bn_{rank}.pth', weights_only=True) for rank in range(2)]
    assert not torch.equal(*stats)


if __name__ == '__main__':
    {'gradient': gradient_worker, 'train': train_worker}[sys.argv[1]](Path(sys.argv[2]))
    torch.distributed.destroy_process_group()
