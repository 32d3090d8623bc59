"""The inference example of the pages: mmdet's API with a fine-tuned detector of this project."""
import os
import re
import subprocess
import sys

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from small import ROOT, make_photos


@pytest.mark.slow(10)
def test_the_inference_example_runs_as_written(tmp_path):
    cfg = Config.fromfile(ROOT / 'configs/benchmarks/mmdetection/coco/mask-rcnn_r18_fpn_quickstart.py')
    init_default_scope('mmdet')
    detector = MODELS.build(cfg.model)
    torch.save(dict(state_dict=detector.state_dict(), meta={}), tmp_path / 'iter_50.pth')
    make_photos(tmp_path, 1)

    page = (ROOT / 'docs/transfer.md').read_text()
    (code, ) = re.findall(r'```python\n(import projects.soco.compat.*?)```', page, re.S)
    code = code.replace('work_dirs/quickstart/finetune/iter_50.pth', f'{tmp_path}/iter_50.pth')
    code = code.replace('photo.jpg', f'{tmp_path}/photo_000.png')
    code += (f'\nsaved = torch.load("{tmp_path}/iter_50.pth")["state_dict"]\n'
             'print("all", all(torch.equal(v, saved[k]) for k, v in detector.state_dict().items()))')
    done = subprocess.run([sys.executable, '-c', f'import torch\n{code}'], cwd=ROOT, text=True,
                          capture_output=True, env={**os.environ, 'PYTHONPATH': str(ROOT)})
    assert done.returncode == 0, done.stderr[-2000:]
    assert 'all True' in done.stdout and 'DetDataSample' in done.stdout
