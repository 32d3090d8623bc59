"""Tests of the comparison of schedules with the length of the run."""
import pytest
from mmengine.config import Config
from small import ROOT

from projects.soco.launch.configs import load_config, set_length, update_config
from projects.soco.launch.schedule_check import schedule_warning

MULTI_STEP = dict(type='MultiStepLR', begin=0, end=12, by_epoch=True, milestones=[8, 11], gamma=0.1)
WARM_UP = dict(type='LinearLR', start_factor=0.001, by_epoch=False, begin=0, end=500)


def config(length: dict, *schedulers: dict) -> Config:
    return Config(dict(train_cfg=length, param_scheduler=list(schedulers)))


@pytest.mark.parametrize('length, schedulers', [
    (dict(max_epochs=12), (WARM_UP, MULTI_STEP)),  # mmdet's 1x
    (dict(max_epochs=300), (  # YOLOX
        dict(type='mmdet.QuadraticWarmupLR', by_epoch=True, begin=0, end=5),
        dict(type='CosineAnnealingLR', begin=5, T_max=285, end=285, by_epoch=True),
        dict(type='ConstantLR', by_epoch=True, factor=1, begin=285, end=300))),
    (dict(max_epochs=300), (  # RTMDet
        dict(type='LinearLR', start_factor=1e-5, by_epoch=False, begin=0, end=1000),
        dict(type='CosineAnnealingLR', eta_min=2e-4, begin=150, end=300, T_max=150, by_epoch=True,
             convert_to_iter_based=True))),
    (dict(max_iters=900), (dict(type='CosineAnnealingLR', by_epoch=False, begin=90),)),
    (dict(max_iters=900), (dict(type='PolyLR', by_epoch=False, begin=0, end=900, power=0.9),)),
    (dict(max_epochs=3), ()),
])
def test_schedules_that_fit(length, schedulers):
    assert schedule_warning(config(length, *schedulers)) == ''


@pytest.mark.parametrize('length, schedulers, parts', [
    (dict(max_epochs=3), (WARM_UP, MULTI_STEP), ['max_epochs is 3', 'steps at epoch 8 and 11']),
    (dict(max_epochs=10), (WARM_UP, MULTI_STEP), ['max_epochs is 10', 'steps at epoch 11,']),
    (dict(max_epochs=3), (dict(type='CosineAnnealingLR', begin=1, T_max=9, end=10),),
     ['max_epochs is 3', 'ends at epoch 10', 'does not reach its end']),
    (dict(max_iters=200), (dict(type='CosineAnnealingLR', by_epoch=False, begin=5, end=50),),
     ['max_iters is 200', 'ends at iteration 50', 'stays as it is']),
    (dict(max_iters=200), (dict(type='LinearLR', by_epoch=False, begin=0, end=1001),),
     ['max_iters is 200', 'warms up until iteration 1001', 'never reached']),
    (dict(max_epochs=100), (dict(type='CosineAnnealingLR', begin=150, end=300, T_max=150),),
     ['begins at epoch 150']),
    (dict(max_epochs=8), (dict(type='OneCycleLR', total_steps=10, by_epoch=True),),
     ['ends at epoch 10']),
])
def test_one_warning_with_both_numbers(length, schedulers, parts):
    warning = schedule_warning(config(length, *schedulers))
    assert all(part in warning for part in parts), warning
    assert warning.count('disagree') == 1 and 'param_scheduler.' in warning


RUNS = sorted(path for path in ROOT.glob('configs/**/*.py')
              if '_base_' not in path.parts and not path.stem.startswith(('study_', 'collapse_')))


@pytest.mark.parametrize('path', RUNS, ids=lambda path: path.stem)
def test_every_config_of_the_project_follows_its_length(path):
    """Without `end` and milestones there is nothing that could disagree, whatever the length."""
    schedulers = Config.fromfile(path, import_custom_modules=False).get('param_scheduler') or []
    for scheduler in [schedulers] if isinstance(schedulers, dict) else schedulers:
        assert scheduler.type in ('WarmupLR', 'CosineLR', 'StepsLR')


def test_the_length_of_a_run():
    epochs = load_config(str(ROOT / 'configs/soco_r18_fpn_quickstart.py'), {}, register=False)
    set_length(epochs, 3, None)
    assert epochs.train_cfg.max_epochs == 3
    with pytest.raises(ValueError, match=r'--iters 5: this config counts.*in epochs.*is 3.*--epochs'):
        set_length(epochs, None, 5)
    with pytest.raises(ValueError, match='--epochs must be at least 1, not 0'):
        set_length(epochs, 0, None)


def test_a_dumped_config_of_an_earlier_version_has_the_same_schedule():
    cfg = config(dict(type='ResumableEpochLoop', max_epochs=10), dict(
        type='WarmupLR', start_factor=0.01, begin=0, end=1, convert_to_iter_based=True))
    update_config(cfg)
    assert cfg.param_scheduler == [
        dict(type='WarmupLR', start_factor=0.01, by_epoch=False, share=0.1)]
    assert cfg.default_hooks.resume.type == 'ResumeHook'
