"""The README's notebook: mmdet's own API on a detector that starts from SoCo's weights."""
import re
import subprocess
import sys

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from small import ROOT, make_photos


@pytest.mark.slow
def test_the_readmes_notebook_runs_as_written(tmp_path):
    from mmselfsup.registry import MODELS

    import projects.soco.models  # noqa: F401
    init_default_scope('mmselfsup')
    cfg = Config.fromfile(ROOT / 'configs/soco_r18_fpn_quickstart.py')
    model = MODELS.build(cfg.model)
    torch.save(dict(state_dict=model.state_dict(), meta={}), tmp_path / 'epoch_10.pth')
    make_photos(tmp_path, 1)

    (code, ) = re.findall(r'```python\n(.*?)```', (ROOT / 'README.md').read_text(), re.S)
    code = code.replace('work_dirs/quickstart/pretrain/epoch_10.pth', f'{tmp_path}/epoch_10.pth')
    code = code.replace('photo.jpg', f'{tmp_path}/photo_000.png')
    code += ('\nprint("keys", int((detector.backbone.conv1.weight '
             '== soco["backbone.conv1.weight"]).all()))')
    code = f'import torch; soco = torch.load("{tmp_path}/epoch_10.pth")["state_dict"]\n' + code
    done = subprocess.run([sys.executable, '-c', code], cwd=ROOT, capture_output=True, text=True,
                          env={**__import__('os').environ, 'PYTHONPATH': str(ROOT)})
    assert done.returncode == 0, done.stderr[-2000:]
    assert 'keys 1' in done.stdout and 'DetDataSample' in done.stdout
