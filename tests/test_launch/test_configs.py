"""Tests of command lines, devices and errors of the tools."""
import copy
import os
import re
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pytest
from mmengine.config import Config
from mmselfsup.registry import DATASETS
from scripts import PYTHON, WARM
from small import ROOT, make_photos, make_store

from projects.soco.datasets import SoCoDataset  # noqa: F401  (registers it)
from projects.soco.datasets.transforms import GEOMETRY
from projects.soco.launch.checks import (
    check_devices,
    check_inputs,
    check_shared_memory,
    check_unused,
)
from projects.soco.launch.configs import check_key, find_hook, load_config, set_pretrained
from projects.soco.launch.errors import (
    DIVERGED,
    REFUSED,
    error_text,
    is_for_the_user,
    run_tool,
)

R50 = str(ROOT / 'configs/soco_r50_fpn_400e.py')
QUICKSTART = str(ROOT / 'configs/soco_r18_fpn_quickstart.py')


@pytest.fixture(scope='module')
def r50() -> Config:
    return load_config(R50, {})


def test_options_change_the_config():
    cfg = load_config(R50, {'train_dataloader.batch_size': 128,
                            'optim_wrapper.accumulative_counts': 2,
                            'train_dataloader.dataset.pipeline.1.num_proposals': 8})
    assert cfg.train_dataloader.batch_size == 128
    assert cfg.optim_wrapper.accumulative_counts == 2
    assert cfg.train_dataloader.dataset.pipeline[1].num_proposals == 8


@pytest.mark.parametrize('key', [
    'train_dataloader.batch_size', 'train_dataloader.prefetch_factor', 'model.backbone.with_cp',
    'load_from', 'model_wrapper_cfg', 'default_hooks.momentum.momentum', 'randomness.seed'])
def test_keys_that_mean_something(r50, key):
    check_key(r50, key)


@pytest.mark.parametrize('key, message', [
    ('train_dataloader.batchsize', r"train_dataloader has no key 'batchsize'.*mean "
     r'train_dataloader.batch_size'),
    ('train_dataloder.batch_size', 'Did you mean train_dataloader'),
    ('default_hooks.momentun.momentum', 'mean default_hooks.momentum'),
    ('param_scheduler.9.end', "param_scheduler has no key '9'"),
    ('train_dataloader.batch_size.more', "no key 'more'"),
    ('model.backbon.depth', 'mean model.backbone'),
])
def test_keys_that_do_not_exist(r50, key, message):
    with pytest.raises(ValueError, match=message):
        check_key(r50, key)


def test_a_missing_config_names_its_neighbour(monkeypatch):
    monkeypatch.chdir(ROOT)
    with pytest.raises(FileNotFoundError, match='mean configs/soco_r50_fpn_400e.py'):
        load_config('configs/soco_r50_fpn_40e.py', {})


def test_a_config_that_cannot_be_read(tmp_path):
    (tmp_path / 'a.py').write_text(f"_base_ = '{R50}'\n_base_.model.nek.out_channels = 4\n")
    with pytest.raises(ValueError, match='a.py cannot be read.*nek'):
        load_config(str(tmp_path / 'a.py'), {})


@pytest.mark.parametrize('name', ['soco_r50_fpn_without_p2_400e', 'soco_r50_fpn_star_400e',
                                  'soco_r18_fpn_quickstart'])
def test_a_config_of_an_earlier_version_is_brought_up_to_date(name, tmp_path):
    """Three lists of views, hooks in a list, and a class with another name."""
    new = load_config(str(ROOT / f'configs/{name}.py'), {}, register=False)
    old = Config(new._cfg_dict.to_dict())
    views = old.train_dataloader.dataset.pipeline[1].views
    old.model.data_preprocessor.views = [
        {key: view.pop(key) for key in list(view) if key not in GEOMETRY} for view in views]
    old.model.finest_levels = [view.pop('finest_level', 0) for view in views]
    old.optim_wrapper.type = 'Bf16OptimWrapper'
    old.custom_hooks = [old.default_hooks.pop('momentum'), old.default_hooks.pop('collapse')]
    old.custom_imports.imports.remove('projects.soco.evaluation')
    old.dump(tmp_path / 'old.py')
    found = load_config(str(tmp_path / 'old.py'), {})
    assert 'views' not in found.model.data_preprocessor and 'finest_levels' not in found.model
    for ours, theirs in zip(found.train_dataloader.dataset.pipeline[1].views,
                            new.train_dataloader.dataset.pipeline[1].views):
        assert dict(ours) == {**theirs, 'finest_level': theirs.get('finest_level', 0)}
    assert found.optim_wrapper.type == 'AutocastOptimWrapper'
    assert 'projects.soco.evaluation' in found.custom_imports.imports
    assert find_hook(found, 'MomentumUpdateHook') == new.default_hooks.momentum


class TestDevices:

    def test_enough(self, r50):
        check_devices(r50, asked=8, found=8)

    def test_too_few(self, r50):
        with pytest.raises(ValueError, match='Asked for 8 GPUs, found 4.*accumulative_counts'):
            check_devices(r50, asked=8, found=4)

    def test_none(self, r50):
        with pytest.raises(ValueError, match='Asked for 8 GPUs, found no CUDA.*SyncBN.*AmpOptim'):
            check_devices(r50, asked=8, found=0)

    def test_a_config_made_for_a_cpu_runs_without(self):
        check_devices(load_config(QUICKSTART, {}), asked=2, found=0)

    def test_zero_is_no_number_of_gpus(self, r50):
        with pytest.raises(ValueError, match='at least 1'):
            check_devices(r50, asked=0, found=4)


class TestSharedMemory:

    def check(self, cfg, monkeypatch, free: float, processes: int | None = None) -> None:
        monkeypatch.setattr('os.path.isdir', lambda path: path == '/dev/shm')
        monkeypatch.setattr('os.statvfs', lambda path: SimpleNamespace(
            f_bavail=free * 2**30 / 4096, f_frsize=4096))
        check_shared_memory(cfg, processes)

    def test_the_recipe_fits_into_six_gigabytes(self, r50, monkeypatch):
        """8 processes × 4 workers × 2 batches of 256 × 3 × (224² + 224² + 112²) bytes are 5.2 GiB."""
        assert r50.train_dataloader.num_workers == 4
        self.check(r50, monkeypatch, 5.2, 8)
        told = (r'up to 5.2 GiB.*8 processes × 4 workers × 2 batches of 83 MiB.*/dev/shm has 5.0 GiB.*'
                r'--shm-size.*num_workers=3\.$')
        with pytest.raises(ValueError, match=told):
            self.check(r50, monkeypatch, 5.0, 8)

    def test_a_container_s_64_megabytes(self, r50, monkeypatch):
        with pytest.raises(ValueError, match='has 0.1 GiB.*num_workers=0 .*persistent_workers=False'):
            self.check(r50, monkeypatch, 1 / 16)
        alone = copy.deepcopy(r50)
        alone.train_dataloader.num_workers = 0
        self.check(alone, monkeypatch, 0)

    def test_the_first_process_of_a_machine_checks_for_all(self, r50, monkeypatch):
        monkeypatch.setenv('LOCAL_WORLD_SIZE', '8')
        monkeypatch.setenv('LOCAL_RANK', '1')
        self.check(r50, monkeypatch, 1)
        monkeypatch.setenv('LOCAL_RANK', '0')
        with pytest.raises(ValueError, match='8 processes'):
            self.check(r50, monkeypatch, 1)


def test_a_store_of_other_photos_is_refused_before_processes_start(tmp_path):
    make_photos(tmp_path / 'photos/train', 3)
    store = str(make_store(tmp_path / 'p.arrow', tmp_path / 'photos/train'))

    def check(root: str) -> None:
        data = {f'train_dataloader.dataset.{key}': value for key, value in
                dict(proposals=store, data_root=str(tmp_path / root)).items()}
        check_inputs(load_config(QUICKSTART, data, register=False))

    check('photos/train')
    with pytest.raises(ValueError, match=f'3 of 3 photos .*p.arrow are not in {tmp_path}/photos '
                       f'.*photo_000.png is in {tmp_path}/photos/train: give that as data_root'):
        check('photos')


def test_a_store_without_a_box_is_refused_where_boxes_are_compared(tmp_path):
    make_photos(tmp_path / 'photos', 2)
    store = make_store(tmp_path / 'p.arrow', tmp_path / 'photos', boxes_per_photo=0)
    data = {'train_dataloader.dataset.proposals': str(store),
            'train_dataloader.dataset.data_root': f'{tmp_path}/photos'}
    with pytest.raises(ValueError, match='no box for any of the 2 photos .*--setting fine'):
        check_inputs(load_config(QUICKSTART, data, register=False))
    for config in ('ablations/components_1_whole_image.py', 'benchmarks/transfer_study/byol_r18.py'):
        check_inputs(load_config(str(ROOT / 'configs' / config), data, register=False))


def test_error_text_leaves_out_what_frameworks_add():
    worker = ValueError('Caught ValueError in DataLoader worker process 0.\nOriginal Traceback '
                        '(most recent call last):\n  File "a.py", line 1\nValueError: a.jpg is bad')
    assert error_text(worker) == 'a.jpg is bad'


@pytest.mark.parametrize('config, message', [
    (dict(type='SoCoDatasett'), 'SoCoDatasett is not in the'),
    (dict(type='SoCoDataset', data_rot='x'), 'SoCoDataset cannot be built from the config.*data_rot'),
    (dict(type='SoCoDataset', data_root='x', proposals=3, pipeline=[]), 'SoCoDataset cannot be built'),
])
def test_what_a_config_gives_wrongly_is_for_the_user(config, message):
    with pytest.raises((KeyError, TypeError)) as raised:
        DATASETS.build(config)
    text = ' '.join(error_text(raised.value).split())
    assert is_for_the_user(raised.value) and re.search(message, text)


@pytest.mark.parametrize('error', [TypeError, KeyError, AttributeError])
def test_a_defect_of_our_own_has_a_traceback(error, monkeypatch):
    """Even one with the words of a misspelt argument."""
    def main() -> None:
        raise error("got an unexpected keyword argument 'x', is not in the registry")
    with pytest.raises(error):
        run_tool(main)


@pytest.mark.parametrize('error, code', [
    (ValueError('wrong'), REFUSED), (OSError('gone'), REFUSED), (FloatingPointError('nan'), DIVERGED)])
def test_exit_codes(error, code, capsys):
    def main() -> None:
        raise error
    with pytest.raises(SystemExit) as ended:
        run_tool(main)
    assert ended.value.code == code and str(error) in capsys.readouterr().err


def run(*command: str, **env: str) -> subprocess.CompletedProcess:
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300,
                          env={**os.environ, 'PYTHONPATH': str(ROOT), **env})


def train(*arguments: str) -> subprocess.CompletedProcess:
    return run(PYTHON, 'tools/train.py', *arguments)


@pytest.mark.slow
def test_dist_train_says_what_is_missing_before_it_starts(tmp_path):
    command = ('bash', 'tools/dist_train.sh', 'configs/soco_r50_fpn_400e.py', '64')
    done = run(*command, SOCO_VENV=str(WARM))
    assert done.returncode == 2 and 'there is no proposal store' in ' '.join(done.stderr.split())
    make_photos(tmp_path / 'photos', 2)
    store = make_store(tmp_path / 'store.arrow', tmp_path / 'photos')
    done = run(*command, '--cfg-options', f'train_dataloader.dataset.data_root={tmp_path}/photos',
               f'train_dataloader.dataset.proposals={store}', SOCO_VENV=str(WARM))
    assert done.returncode == 2
    assert 'Asked for 64 GPUs, found' in done.stderr and 'Traceback' not in done.stderr
    assert run('bash', 'tools/dist_train.sh', 'configs/soco_r50_fpn_400e.py').returncode == 2


@pytest.mark.slow
def test_a_config_of_mmdet_s_own_loads_weights_as_ours_do(tmp_path):
    (tmp_path / 'own.py').write_text("_base_ = 'mmdet::retinanet/retinanet_r50_fpn_1x_coco.py'\n")
    (tmp_path / 'r50.pth').touch()
    own = load_config(str(tmp_path / 'own.py'), {})
    assert find_hook(own, 'PretrainedWeightsHook') is None
    for source, kind in ((f'{tmp_path}/r50.pth', 'soco'), ('random', 'random'),
                         (f'supervised:{tmp_path}/r50.pth', 'supervised')):
        cfg = load_config(str(tmp_path / 'own.py'), {})
        assert cfg.model.backbone.init_cfg.type == 'Pretrained'
        set_pretrained(cfg, source)
        set_pretrained(cfg, source)  # once is enough
        assert cfg.default_hooks.pretrained == dict(type='PretrainedWeightsHook', source=kind)
        assert cfg.default_hooks.checkpoint.type == 'PlainCheckpointHook'
        assert cfg.custom_imports.imports == ['projects.soco.engine']
        assert cfg.model.backbone.init_cfg is None  # or mmdet would download another ResNet
        assert cfg.load_from == (None if source == 'random' else f'{tmp_path}/r50.pth')
    cfg = load_config(str(tmp_path / 'own.py'), {})
    cfg.model.backbone.init_cfg = [dict(type='Kaiming'), dict(type='Pretrained', checkpoint='url')]
    cfg.model.neck.init_cfg = dict(type='Pretrained', checkpoint='https://example.org/neck.pth')
    cfg.model.backbone.pretrained = 'torchvision://resnet50'
    set_pretrained(cfg, 'random')
    assert "'Pretrained'" not in cfg.pretty_text and 'torchvision' not in cfg.pretty_text
    cfg = load_config(str(tmp_path / 'own.py'), {'default_hooks.pretrained.require': ['backbone']})
    assert cfg.default_hooks.pretrained.require == ['backbone']


def test_a_pretraining_config_starts_from_weights(tmp_path):
    (tmp_path / 'r18.pth').touch()
    cfg = load_config(QUICKSTART, {})
    set_pretrained(cfg, f'{tmp_path}/r18.pth')
    assert cfg.load_from == f'{tmp_path}/r18.pth' and cfg.default_hooks.pretrained.source == 'soco'
    assert cfg.custom_imports == load_config(QUICKSTART, {}).custom_imports


def test_train_explains_bad_input_in_one_paragraph(tmp_path):
    text = tmp_path / 'text.pth'
    text.write_text('no checkpoint')
    make_photos(tmp_path / 'photos', 2)
    data = (f'train_dataloader.dataset.data_root={tmp_path}/photos',
            'train_dataloader.dataset.proposals='
            f'{make_store(tmp_path / "store.arrow", tmp_path / "photos")}')
    cases = [
        ((), 'there is no proposal store'),
        (('--resume', str(tmp_path / 'nowhere.pth')), 'no checkpoint at'),
        (('--resume', str(text)), 'text.pth'),
        (('--cfg-options', 'train_dataloader.dataset.propsals=x', *data), 'propsals'),
        (('--pretrained', 'nowhere.pth'), 'no checkpoint at nowhere.pth'),
        (('--pretrained', str(text)), 'text.pth'),
        (('--cfg-options', f'load_from={text}'), 'text.pth'),
        (('--cfg-options', 'train_dataloader.batchsize=2'), 'batch_size'),
    ]
    for arguments, message in cases:
        done = train(QUICKSTART, '--work-dir', str(tmp_path / 'work'), *(
            arguments or ('--cfg-options', f'train_dataloader.dataset.proposals={tmp_path}/x.arrow')))
        assert done.returncode == 2, done.stderr
        error = done.stderr[done.stderr.rindex('error: '):]
        assert message in ' '.join(error.split()) and 'Traceback' not in done.stderr, error


@pytest.mark.parametrize('given, near', [
    ('configs/soco_r18_fpn_quickstart.py', f'Did you mean {QUICKSTART}?'),
    ('soco_r18_quickstart.py', f'Did you mean {QUICKSTART}?'),
    ('configs/mine/a.py', 'Did you mean configs/mine/ab.py?'),
    ('zzz', f'configs are in {ROOT}/configs.')])
def test_a_config_is_looked_for_in_the_project_from_any_folder(tmp_path, monkeypatch, given, near):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'configs/mine').mkdir(parents=True)
    (tmp_path / 'configs/mine/ab.py').touch()
    with pytest.raises(FileNotFoundError, match=re.escape(near)):
        load_config(given, {})
    monkeypatch.chdir(ROOT)
    with pytest.raises(FileNotFoundError, match='mean configs/soco_r18_fpn_quickstart.py'):
        load_config('soco_r18_quickstart.py', {})


def test_a_new_run_does_not_mix_with_an_earlier_one(tmp_path):
    work = tmp_path / 'work'
    check_unused(work)
    work.mkdir()
    (work / 'detector_start.pth').touch()  # not of a run
    check_unused(work)
    for age, name in enumerate(('iter_30.pth', 'epoch_10.pth', 'epoch_9.pth')):
        (work / name).touch()
        os.utime(work / name, (1e9 - age, 1e9 - age))
    for start in (('tools/train.py', ), ('-m', 'projects.soco.launch', 'tools/train.py', '2')):
        done = run(PYTHON, *start, QUICKSTART, '--work-dir', str(work))
        told = ' '.join(done.stderr.split())
        assert done.returncode == 2 and f'{work} has checkpoints of an earlier run, the newest ' \
            'iter_30.pth. Add --resume to continue' in told and '--work-dir' in told, told
        done = run(PYTHON, *start, QUICKSTART, '--work-dir', str(work), '--resume')
        assert 'of an earlier run' not in done.stderr and 'no proposal store' in done.stderr
        assert len(list(work.iterdir())) == 4


def test_slurm_train_calls_srun(tmp_path):
    fake = tmp_path / 'srun'
    fake.write_text('#!/bin/sh\necho "$@"\n')
    fake.chmod(0o755)
    done = run('bash', 'tools/slurm_train.sh', 'part', 'job', 'configs/soco_r50_fpn_400e.py',
               '--resume', GPUS='16', SOCO_VENV=str(WARM),
               PATH=f'{tmp_path}:{os.environ["PATH"]}')
    assert done.returncode == 0, done.stderr
    for part in ('-p part', '--job-name=job', '--gres=gpu:8', '--ntasks=16', '--ntasks-per-node=8',
                 'configs/soco_r50_fpn_400e.py --launcher slurm --resume'):
        assert part in done.stdout


def test_scripts_refuse_and_help_before_processes_start(tmp_path):
    config = f'{tmp_path}/my config, 2024.py'
    Path(config).write_text(f"_base_ = '{QUICKSTART}'\n")
    (tmp_path / 'srun').write_text('#!/bin/sh\necho "started $@"\n')
    (tmp_path / 'srun').chmod(0o755)
    for script in (['dist_train.sh', config, '2'], ['slurm_train.sh', 'part', 'job', config]):
        for arguments, code, message in (
                (['--no-such-flag'], 2, 'unrecognized arguments: --no-such-flag'),
                (['--help'], 0, 'usage: train.py'),
                (['--cfg-options', 'train_dataloader.batch_size=many'], 2, 'whole number is expected'),
                (['--cfg-options', 'work_dir=My', 'runs'], 2, 'must be KEY=VALUE')):
            done = run('bash', f'tools/{script[0]}', *script[1:], *arguments, SOCO_VENV=str(WARM),
                       PATH=f'{tmp_path}:{os.environ["PATH"]}')
            told = ' '.join((done.stdout + done.stderr).split())
            assert done.returncode == code and message in told and 'started' not in told, told
            assert 'Traceback' not in told
    wanted = ['--cfg-options', 'train_dataloader.dataset.data_root=Photos, 2024']
    done = run('bash', 'tools/dist_train.sh', config, '1', *wanted,
               f'train_dataloader.dataset.proposals={tmp_path}/a b.arrow', SOCO_VENV=str(WARM))
    assert f'no proposal store at {tmp_path}/a b.arrow' in ' '.join(done.stderr.split())


def test_threads_read_configs_one_after_another(monkeypatch):
    """As the jobs of a study do: MMEngine reloads a package meanwhile, which fails for two at once."""
    read, inside, overlaps = Config.fromfile, [], []

    def slowly(*args, **kwargs):
        overlaps.append(len(inside))
        inside.append(1)
        time.sleep(0.02)
        cfg = read(*args, **kwargs)
        inside.pop()
        return cfg

    monkeypatch.setattr(Config, 'fromfile', slowly)
    with ThreadPoolExecutor(4) as pool:
        configs = list(pool.map(lambda _: load_config(QUICKSTART, {}, register=False), range(8)))
    assert overlaps == [0] * 8 and all(cfg.model.type == 'SoCo' for cfg in configs)


@pytest.mark.parametrize('backend, package', [
    ('TensorboardVisBackend', 'tensorboard'), ('mmengine.WandbVisBackend', 'wandb'),
    ('MLflowVisBackend', 'mlflow')])
def test_the_package_of_a_logger_is_named_before_the_start(
        backend: str, package: str, monkeypatch: pytest.MonkeyPatch):
    cfg = load_config(QUICKSTART, {}, register=False)
    cfg.visualizer.vis_backends.append(dict(type=backend))
    monkeypatch.setattr('projects.soco.launch.checks.importlib.util.find_spec', lambda name: None)
    with pytest.raises(ValueError, match=f'{backend}, which needs the package {package}.*pip install'):
        check_inputs(cfg)


def test_a_config_whose_package_is_missing(tmp_path: Path):
    (tmp_path / 'config.py').write_text("_base_ = 'mmpose::_base_/default_runtime.py'\n")
    with pytest.raises(ValueError, match='config.py cannot be read.*mmpose.*setup_env.sh --host'):
        load_config(str(tmp_path / 'config.py'), {})
