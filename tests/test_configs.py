"""Every pretraining config builds and takes a real training step on a CPU, at batch 2."""
import pytest
import torch
from mmengine.config import Config
from mmengine.runner import Runner
from small import ROOT, make_photos, make_store

from projects.soco.compat import cpu_config

CONFIGS = sorted(path.name for path in (ROOT / 'configs').glob('soco_*.py'))


def test_the_recipes_are_there():
    assert {'soco_r50_fpn_400e.py', 'soco_r50_fpn_100e.py',
            'soco_r18_fpn_quickstart.py'} <= set(CONFIGS)


@pytest.mark.slow
@pytest.mark.parametrize('name', CONFIGS)
def test_a_training_step(name, tmp_path):
    make_photos(tmp_path / 'photos', 2, size=(300, 240))
    make_store(tmp_path / 'proposals.arrow', tmp_path / 'photos')
    cfg = cpu_config(Config.fromfile(ROOT / 'configs' / name))
    cfg.merge_from_dict({
        'train_dataloader.dataset.data_root': str(tmp_path / 'photos'),
        'train_dataloader.dataset.proposals': str(tmp_path / 'proposals.arrow'),
        'train_dataloader.dataset.repeat': 1, 'train_dataloader.batch_size': 2,
        'train_dataloader.num_workers': 0, 'train_dataloader.persistent_workers': False,
        'param_scheduler': [], 'train_cfg.max_epochs': 1, 'work_dir': str(tmp_path / 'work'),
        'log_level': 'ERROR', 'default_hooks.logger.interval': 1,
        # its disk space and time are of no interest here
        'default_hooks.checkpoint': None})
    runner = Runner.from_cfg(cfg)
    before = {}

    def remember(*args) -> None:
        before.update({n: p.detach().clone() for n, p in runner.model.named_parameters()})

    runner.model.register_forward_pre_hook(remember)
    runner.train()
    assert len(before) > 100
    logged = {key: history.current() for key, history in runner.message_hub.log_scalars.items()}
    assert -8 <= logged['train/loss'] <= 8 and 0 < logged['train/obj_std'] <= 1
    assert logged['train/momentum'] == cfg.custom_hooks[0].momentum
    # (zero-initialised residual branches get no gradient in the first step, so not all can move)
    moved = {name for name, value in runner.model.named_parameters()
             if not torch.equal(value, before[name])}
    for part in ('backbone.conv1', 'backbone.layer4', 'neck.lateral_convs.0', 'neck.fpn_convs.3',
                 'roi_head.bbox_head.shared_fcs', 'projector.fc0', 'head.predictor.fc1'):
        assert any(name.startswith(part) for name in moved), part
    assert not any(name.startswith('target.') for name in moved)


def test_the_100_epoch_recipe_differs_in_schedule_and_cutout():
    long, short = (Config.fromfile(ROOT / f'configs/soco_r50_fpn_{n}e.py')._cfg_dict.to_dict()
                   for n in (400, 100))
    assert long['train_dataloader']['dataset']['pipeline'][2]['prob'] == 0.0
    assert short['train_dataloader']['dataset']['pipeline'][2]['prob'] == 0.5
    short['train_dataloader']['dataset']['pipeline'][2]['prob'] = 0.0
    assert {key for key in long if long[key] != short[key]} == {'train_cfg', 'param_scheduler'}
    assert short['train_cfg']['max_epochs'] == short['param_scheduler'][1]['end'] == 100


def test_the_paper_s_batch_and_rate():
    cfg = Config.fromfile(ROOT / 'configs/soco_r50_fpn_400e.py')
    assert cfg.train_dataloader.batch_size * 8 == cfg.auto_scale_lr.base_batch_size == 2048
    assert cfg.optim_wrapper.optimizer.lr == 2048 / 256
