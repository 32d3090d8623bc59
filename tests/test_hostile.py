"""A stranger's checkpoint or a command line cannot run code: every entry, with a planted file."""
import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from miniatures import write_coco
from small import ROOT, tiny_config

ENV = {**os.environ, 'PYTHONPATH': str(ROOT), 'OMP_NUM_THREADS': '1'}
DETECTOR = 'configs/benchmarks/mmdetection/coco/mask-rcnn_r18_fpn_quickstart.py'


class Planted:
    """Creates a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), 'w')


def plant(folder: Path, suffix: str = '.pth') -> tuple[Path, Path]:
    """A checkpoint that creates a file, and that file."""
    mark = folder / 'planted'
    content = dict(state_dict={'backbone.conv1.weight': torch.ones(1)}, meta=Planted(mark))
    path = folder / f'epoch_1{suffix}'
    if suffix == '.pth':
        torch.save(content, path)
        torch.load(path, weights_only=False)['meta'].close()  # what must not happen, happens here
    else:
        path.write_bytes(pickle.dumps(content))
        pickle.loads(path.read_bytes())['meta'].close()
    assert mark.is_file()
    mark.unlink()
    return path, mark


def run(*command: str, **env: str) -> str:
    done = subprocess.run([sys.executable, *command], cwd=ROOT, env={**ENV, **env}, text=True,
                          capture_output=True, timeout=300)
    assert done.returncode == 2 and 'Traceback' not in done.stderr, done.stderr[-2000:]
    return ' '.join(done.stderr.split())


@pytest.mark.slow
def test_checkpoints_run_no_code_at_any_entry(tmp_path: Path) -> None:
    cfg = tiny_config(tmp_path, photos=4)
    cfg.dump(tmp_path / 'config.py')
    config = str(tmp_path / 'config.py')
    write_coco(tmp_path / 'coco', ['sock'])
    own = dict(SOCO_QUICKSTART_PHOTOS=str(tmp_path / 'coco/val2017'),
               SOCO_QUICKSTART_ANNOTATIONS=str(tmp_path / 'coco/annotations/instances_val2017.json'))
    evil, mark = plant(tmp_path)
    pickled, _ = plant(tmp_path, '.pkl')
    work = ('--work-dir', str(tmp_path / 'work'))
    for command, env in (
        (('tools/train.py', config, *work, '--resume', str(evil)), {}),
        (('tools/train.py', config, *work, '--cfg-options', f'load_from={evil}'), {}),
        (('tools/train.py', DETECTOR, *work, '--pretrained', str(evil)), own),
        (('tools/train.py', DETECTOR, *work, '--pretrained', f'supervised:{evil}'), own),
        (('tools/test.py', DETECTOR, str(evil), *work), own),
        (('tools/convert_weights.py', str(evil), str(tmp_path / 'out.pth'), '--to', 'mmdet'), {}),
        (('tools/convert_weights.py', str(pickled), str(tmp_path / 'out.pth'), '--to', 'mmdet'), {}),
    ):
        message = run(*command, **env)
        assert not mark.exists(), command
        assert 'code' in message and ('epoch_1.pth' in message or 'epoch_1.pkl' in message)
    assert not (tmp_path / 'out.pth').exists()


@pytest.mark.slow
def test_resume_without_a_path_passes_over_a_planted_checkpoint(tmp_path: Path) -> None:
    cfg = tiny_config(tmp_path, photos=4, **{'train_cfg.max_epochs': 1, 'log_level': 'INFO'})
    cfg.dump(tmp_path / 'config.py')
    work = Path(cfg.work_dir)
    work.mkdir()
    evil, mark = plant(work)
    done = subprocess.run([sys.executable, 'tools/train.py', str(tmp_path / 'config.py'), '--resume'],
                          cwd=ROOT, env=ENV, text=True, capture_output=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    output = ' '.join((done.stdout + done.stderr).split())
    assert f'Passed over: {evil}' in output and not mark.exists()


@pytest.mark.slow
@pytest.mark.parametrize('option', [
    "train_cfg.max_epochs=__import__('pathlib').Path('{mark}').touch()",
    "randomness.seed=[open('{mark}','w')]", 'work_dir=$(touch {mark})',
    "custom_imports.imports=[\"os;open('{mark}','w')\"]"])
def test_options_are_values_and_never_code(tmp_path: Path, option: str) -> None:
    mark = tmp_path / 'planted'
    subprocess.run([sys.executable, 'tools/train.py', 'configs/soco_r18_fpn_quickstart.py',
                    '--work-dir', str(tmp_path / 'work'), '--cfg-options', option.format(mark=mark)],
                   cwd=ROOT, env=ENV, capture_output=True, timeout=300)
    assert not mark.exists()
