"""Untrusted checkpoints and command-line options cannot execute code at any entry point."""
import argparse
import ast
import os
import pickle
import runpy
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from miniatures import write_coco
from mmengine.config import Config
from scripts import PYTHON
from small import ROOT, tiny_config

from projects.soco.launch.arguments import add_config_arguments
from projects.soco.launch.configs import load_config
from projects.soco.launch.errors import run_tool

ENV = {**os.environ, 'PYTHONPATH': str(ROOT), 'OMP_NUM_THREADS': '1'}
DETECTOR = 'configs/benchmarks/mmdetection/coco/mask-rcnn_r18_fpn_quickstart.py'
LINEAR = 'configs/benchmarks/classification/resnet50_linear-8xb32-steplr-100e_in1k.py'


class Planted:
    """An object that creates a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), 'w')


def plant(folder: Path, suffix: str = '.pth') -> tuple[Path, Path]:
    """Return a checkpoint that creates a file when unpickled, and the path of that file."""
    mark = folder / 'planted'
    content = dict(state_dict={'backbone.conv1.weight': torch.ones(1)}, meta=Planted(mark))
    path = folder / f'epoch_1{suffix}'
    if suffix == '.pth':
        torch.save(content, path)
        torch.load(path, weights_only=False)['meta'].close()  # verify that the payload works
    else:
        path.write_bytes(pickle.dumps(content))
        pickle.loads(path.read_bytes())['meta'].close()
    assert mark.is_file()
    mark.unlink()
    return path, mark


@pytest.fixture
def refused(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> Callable[..., str]:
    """Return a function that runs a tool, checks for exit code 2 and returns the message."""

    def run(*command: str) -> str:
        monkeypatch.chdir(ROOT)
        monkeypatch.setattr(sys, 'argv', list(command))
        with pytest.raises(SystemExit) as ended:
            run_tool(runpy.run_path(command[0])['main'])
        assert ended.value.code == 2
        return ' '.join(capsys.readouterr().err.split())

    return run


@pytest.mark.slow
def test_checkpoints_run_no_code_at_any_entry(tmp_path: Path, refused: Callable,
                                              monkeypatch: pytest.MonkeyPatch) -> None:
    cfg = tiny_config(tmp_path, photos=4)
    cfg.dump(tmp_path / 'config.py')
    config = str(tmp_path / 'config.py')
    write_coco(tmp_path / 'coco', ['sock'])
    monkeypatch.setenv('SOCO_QUICKSTART_PHOTOS', str(tmp_path / 'coco/val2017'))
    monkeypatch.setenv('SOCO_QUICKSTART_ANNOTATIONS',
                       str(tmp_path / 'coco/annotations/instances_val2017.json'))
    evil, mark = plant(tmp_path)
    work = ('--work-dir', str(tmp_path / 'work'))
    out = (str(tmp_path / 'out.pth'), '--to', 'mmdet')
    for command in (
        ('tools/train.py', config, *work, '--resume', str(evil)),
        ('tools/train.py', config, *work, '--cfg-options', f'load_from={evil}'),
        ('tools/train.py', DETECTOR, *work, '--pretrained', str(evil)),
        ('tools/train.py', DETECTOR, *work, '--pretrained', f'supervised:{evil}'),
        ('tools/train.py', LINEAR, *work, '--pretrained', str(evil)),
        ('tools/train.py', LINEAR, *work, '--pretrained', f'supervised:{evil}'),
        ('tools/test.py', DETECTOR, str(evil), *work),
        ('tools/evaluate_objects.py', config, str(evil), '--images', str(tmp_path / 'photos')),
        ('tools/publish_model.py', str(evil), str(tmp_path / 'out.pth')),
        ('tools/convert_weights.py', str(evil), *out),
        ('tools/convert_weights.py', str(plant(tmp_path, '.pkl')[0]), *out),
        ('tools/convert_weights.py', str(plant(tmp_path, '.safetensors')[0]), *out),
    ):
        message = refused(*command)
        assert not mark.exists(), command
        assert 'epoch_1.' in message and ('code' in message or 'not a safetensors' in message), message
    assert not (tmp_path / 'out.pth').exists() and not (tmp_path / 'work').exists()


FORBIDDEN = {'eval', 'exec', 'compile', 'pickle.load', 'pickle.loads', 'pickle.Unpickler', 'os.system',
             'marshal.loads', 'os.popen', 'shelve.open', 'joblib.load', 'yaml.load', 'torch.hub.load'}


def test_nothing_else_opens_files_in_a_way_that_can_run_code() -> None:
    """The quickstart, evaluations and future code must read files as the entries above do."""
    loads = 0
    for path in (*ROOT.joinpath('projects').rglob('*.py'), *ROOT.joinpath('tools').rglob('*.py')):
        for call in ast.walk(ast.parse(path.read_text())):
            if not isinstance(call, ast.Call):
                continue
            name, given = ast.unparse(call.func), {k.arg: ast.unparse(k.value) for k in call.keywords}
            where = f'{path}:{call.lineno}: {name}'
            assert name not in FORBIDDEN and name.split('.')[-1] != 'extractall', where
            assert given.get('allow_pickle', 'False') == 'False' and 'shell' not in given, where
            if name == 'torch.load':
                loads += 1
                assert given['weights_only'] == 'True', where
    assert loads == 1  # in `load_plain`


@pytest.mark.slow
def test_resume_without_a_path_passes_over_a_planted_checkpoint(tmp_path: Path) -> None:
    """Strings in options also stay strings in everything that a run does with its config."""
    cfg = tiny_config(tmp_path, photos=4, **{'train_cfg.max_epochs': 1, 'log_level': 'INFO'})
    cfg.dump(tmp_path / 'config.py')
    work = Path(cfg.work_dir)
    work.mkdir()
    evil, mark = plant(work)
    text = f"';__import__('pathlib').Path('{mark}').touch()#"
    done = subprocess.run(
        [PYTHON, 'tools/train.py', str(tmp_path / 'config.py'), '--resume', '--cfg-options',
         f'experiment_name={text}'],
        cwd=ROOT, env=ENV, text=True, capture_output=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    output = ' '.join((done.stdout + done.stderr).split())
    assert f'Skipped {evil}' in output and not mark.exists()


@pytest.mark.parametrize('around', [
    '{}', '[{}]', '$({})', '`{}`', '{{{{{}}}}}', '{{{{$HOME:{}}}}}', 'lambda:{}', "f'{{{}}}'",
    "'+{}+'"])
def test_options_are_values_and_never_code(tmp_path: Path, around: str) -> None:
    mark = tmp_path / 'planted'
    value = around.format(f"__import__('pathlib').Path('{mark}').touch()")
    parser = argparse.ArgumentParser()
    add_config_arguments(parser)
    args = parser.parse_args(['config.py', '--cfg-options', f'experiment_name={value}'])
    cfg = load_config(str(ROOT / 'configs/soco_r18_fpn_quickstart.py'), args.cfg_options)
    assert cfg.experiment_name == value
    again = Config.fromstring(cfg.pretty_text, '.py')  # the config file in the work directory
    assert again.experiment_name == cfg.experiment_name and not mark.exists()


@pytest.mark.parametrize('key', [
    'default_hooks.momentum.type', 'train_dataloader.collate_fn.type', 'model.type',
    'train_dataloader.dataset.pipeline.0.type'])
@pytest.mark.parametrize('name', ['subprocess.Popen', 'os.system', 'mmengine.utils.path.os.system'])
def test_options_name_no_class_from_elsewhere(key: str, name: str) -> None:
    """MMEngine imports and calls whatever a `type` names, so other names must be rejected."""
    with pytest.raises(ValueError, match='is not the name of a registered class'):
        load_config(str(ROOT / 'configs/soco_r18_fpn_quickstart.py'), {key: name})


@pytest.mark.parametrize('name', ['MomentumUpdateHook', 'mmdet.ResNet'])
def test_options_name_registered_classes(name: str) -> None:
    cfg = load_config(str(ROOT / 'configs/soco_r18_fpn_quickstart.py'),
                      {'default_hooks.momentum.type': name})
    assert cfg.default_hooks.momentum.type == name
