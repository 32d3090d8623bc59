"""Which OpenMMLab is installed: its own releases, or the forks, which serve under the same names."""
import os
import subprocess
import sys
from pathlib import Path

import pytest
from mmengine.config import Config
from small import ROOT, make_photos, make_store

from projects.soco.compat import host

ORIGINALS = {'mmengine': '0.10.7', 'mmcv-lite': '2.0.1', 'mmdet': '3.3.0'}
FORKS = {'onedl-mmengine': '0.10.12', 'onedl-mmcv': '2.3.6', 'onedl-mmdetection': '3.5.1'}


@pytest.mark.parametrize('installed, both', [
    (ORIGINALS, None), (FORKS, None), ({'mmpretrain': '1.2.0', **ORIGINALS}, None),
    ({**FORKS, 'mmcv-lite': '2.0.1'}, 'onedl-mmcv and mmcv-lite'),
    ({**ORIGINALS, 'onedl-mmengine': '0.10.12'}, 'onedl-mmengine and mmengine')])
def test_two_hosts_in_one_environment_are_refused(
        installed: dict, both: str | None, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(host, 'installed_version', installed.get)
    if both is None:
        host.check_one_host()
    else:
        with pytest.raises(ValueError, match=f'two hosts: {both} are both .*setup_env.sh --host onedl'):
            host.check_one_host()


@pytest.mark.parametrize('torch, vision, told', [
    ('2.14.1', '0.29.1', None), ('2.14.1+cpu', '0.29.1+cpu', None), ('2.14.1+cu130', '0.29.1', None),
    ('2.13.0', '0.29.1', 'torchvision 0.29.1 was built for torch ==2.14.1'),
    ('2.14.1+cpu', '0.29.1', 'a build for CPUs only'),
    ('2.14.1', '0.29.1+cpu', 'a build for CPUs only'),
    ('2.14.1', None, 'has no torchvision'), (None, '0.29.1', 'has no torch')])
def test_a_torch_without_its_torchvision_is_refused(
        torch: str | None, vision: str | None, told: str | None, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(host, 'installed_version', dict(torch=torch, torchvision=vision).get)
    monkeypatch.setattr(host, 'requires', lambda name: ['numpy', 'torch==2.14.1'])
    if told is None:
        host.check_torchvision()
    else:
        with pytest.raises(ValueError, match=f'{told}.*Install a pair'):
            host.check_torchvision()


# Stands for MMPretrain, of which the seam uses these names.
MMPRETRAIN = {
    '__init__.py': '',
    'registry.py': 'from mmengine.registry import MODELS as ROOT, Registry\n__all__ = ["MODELS"]\n'
                   'MODELS = Registry("model", parent=ROOT, locations=["mmpretrain.models"])\n',
    'structures.py': 'here = True\n',
    'models/__init__.py': 'from . import heads, necks, selfsup, utils\n',
    'models/necks.py':
        'from mmengine.model import BaseModule\nfrom mmpretrain.registry import MODELS\n'
        '@MODELS.register_module()\nclass NonLinearNeck(BaseModule):\n'
        '    def forward(self, x): return (x[0] + 1, )\n'
        '@MODELS.register_module()\nclass Other(BaseModule): pass\n',
    'models/utils/__init__.py': 'from . import norm\n',
    'models/utils/norm.py':
        'from mmengine.model import BaseModule\nfrom mmpretrain.registry import MODELS\n'
        '@MODELS.register_module()\nclass GRN(BaseModule): pass\n',
    'models/utils/extra.py': 'from .norm import GRN\n',
    'models/heads.py':
        'from mmengine.model import BaseModule\nfrom mmpretrain.registry import MODELS\n'
        '@MODELS.register_module()\nclass LatentPredictHead(BaseModule):\n'
        '    def loss(self, input, target): return input - target\n',
    'models/selfsup.py':
        'from mmengine.model import BaseModel\nfrom mmpretrain.registry import MODELS\n'
        'class BaseSelfSupervisor(BaseModel):\n'
        '    def __init__(self, neck=None, **parts):\n'
        '        super().__init__()\n        self.neck = neck\n'
        '        self.head = self.target_generator = None\n'
        '    def forward(self): pass\n'
        '@MODELS.register_module()\nclass BYOL(BaseSelfSupervisor):\n'
        '    def __init__(self, base_momentum=0.004):\n'
        '        super().__init__()\n        self.share = base_momentum\n'}
USE = """
from importlib.machinery import PathFinder
find, ABSENT = PathFinder.find_spec, ('mmselfsup', 'mmcls', 'imgaug')
PathFinder.find_spec = lambda name, *rest: None if name in ABSENT else find(name, *rest)
import importlib, sys
import projects.soco.compat
from projects.soco.compat.host import host_name
assert host_name() == 'onedl' and 'mmpretrain' not in sys.modules
from mmselfsup.registry import MODELS
from mmselfsup.models import BaseModel
from mmengine.registry import MODELS as ROOT, DefaultScope
import mmcls.models, mmcls.structures, mmpretrain.models
assert mmcls.models is mmpretrain.models and mmcls.structures.here
for name in ('mmcls.nowhere', 'mmselfsup.nowhere'):
    try: importlib.import_module(name)
    except ModuleNotFoundError: pass
    else: raise AssertionError(name)
importlib.import_module('mmcls.registry')
importlib.import_module('mmselfsup.models.utils')
extra = importlib.import_module('mmselfsup.models.utils.extra')  # not a second time, by its path
assert extra is importlib.import_module('mmpretrain.models.utils.extra')
import imgaug.augmenters as iaa
from imgaug.augmentables.lines import LineString
try: iaa.Sequential([LineString])
except ImportError as error: assert 'Sequential of imgaug is needed' in str(error)
else: raise AssertionError('imgaug')
with DefaultScope.overwrite_default_scope('mmselfsup'):
    assert ROOT.build(dict(type='NonLinearNeck'))([1]) == [2]
    assert ROOT.build(dict(type='LatentPredictHead'))(5, 3) == 2
    assert abs(ROOT.build(dict(type='BYOL', base_momentum=0.9)).share - 0.1) < 1e-9
with DefaultScope.overwrite_default_scope('mmengine'):
    assert type(ROOT.build(dict(type='mmcls.Other'))) is mmpretrain.models.necks.Other
    assert ROOT.build(dict(type='mmselfsup.NonLinearNeck'))([1]) == [2]
class SoCo(BaseModel):
    pass
assert not hasattr(SoCo(), 'neck') and not SoCo().with_neck and SoCo(neck=1).with_neck
print('all as MMSelfSup has it')
"""


@pytest.mark.slow(6)
@pytest.mark.skipif(host.host_name() == 'onedl', reason='all other tests use the forks themselves')
def test_mmpretrain_serves_under_the_names_of_mmselfsup_and_mmcls(tmp_path: Path):
    for name, text in MMPRETRAIN.items():
        path = tmp_path / 'mmpretrain' / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    done = subprocess.run([sys.executable, '-W', 'ignore', '-c', USE], text=True, capture_output=True,
                          env={**os.environ, 'PYTHONPATH': f'{ROOT}:{tmp_path}'})
    assert done.stdout.strip() == 'all as MMSelfSup has it', done.stderr[-2000:]


OTHER = os.environ.get('SOCO_OTHER_VENV')


@pytest.mark.slow(60)
@pytest.mark.skipif(not OTHER, reason='needs an environment with the other host: '
                    'set SOCO_OTHER_VENV to its folder (tools/setup_env.sh --host)')
def test_a_checkpoint_resumes_on_the_other_host(tmp_path: Path):
    """In both directions, with the numbers of a run that was not stopped."""
    make_photos(tmp_path / 'photos', 4)
    make_store(tmp_path / 'photos.arrow', tmp_path / 'photos')
    pythons = {'here': sys.executable, 'there': f'{OTHER}/bin/python'}

    def train(where: str, work: str, *arguments: str) -> None:
        done = subprocess.run(
            [pythons[where], '-W', 'ignore', str(ROOT / 'tools/train.py'),
             str(ROOT / 'configs/soco_r18_fpn_quickstart.py'), '--work-dir', f'{tmp_path}/{work}',
             *arguments, '--cfg-options', f'train_dataloader.dataset.data_root={tmp_path}/photos',
             f'train_dataloader.dataset.proposals={tmp_path}/photos.arrow',
             'train_dataloader.dataset.repeat=1', 'train_dataloader.batch_size=2',
             'train_dataloader.num_workers=0', 'train_dataloader.persistent_workers=False',
             'default_hooks.logger.interval=1', 'default_hooks.checkpoint.interval=1'],
            cwd=tmp_path, text=True, capture_output=True,
            env={**os.environ, 'PYTHONPATH': str(ROOT), 'OMP_NUM_THREADS': '1'})
        assert done.returncode == 0, done.stderr[-2000:]

    def weights(work: str) -> dict:
        from projects.soco.weights.read import read_checkpoint
        return read_checkpoint(tmp_path / work / 'epoch_2.pth')['state_dict']

    for first, second in (('here', 'there'), ('there', 'here')):
        train(first, f'{first}_whole', '--epochs', '2')
        config = next((tmp_path / f'{first}_whole').glob('*.py'))
        assert Config.fromfile(config, import_custom_modules=False).model.type == 'SoCo'
        (tmp_path / f'{first}_part').mkdir()
        (tmp_path / f'{first}_whole/epoch_1.pth').rename(tmp_path / f'{first}_part/epoch_1.pth')
        train(second, f'{first}_part', '--epochs', '2', '--resume')
        whole, part = weights(f'{first}_whole'), weights(f'{first}_part')
        assert whole.keys() == part.keys()
        for key, tensor in whole.items():
            assert float((tensor.double() - part[key].double()).abs().max()) < 1e-5, key
