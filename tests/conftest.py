"""What all tests share: MMCV's ops before mmdet, fixed seeds, the devices, a folder of photos."""
import os
import random
from pathlib import Path

import hypothesis
import numpy as np
import pytest
import torch

import projects.soco.compat  # noqa: F401  before any test imports mmdet

hypothesis.settings.register_profile('soco', deadline=None, derandomize=True, database=None)
hypothesis.settings.load_profile('soco')

DEVICES = ['cpu', 'cuda'] if torch.cuda.is_available() else ['cpu']


@pytest.fixture(autouse=True)
def fixed_seeds() -> None:
    """Starts every test from the same random state, whatever ran before it."""
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)


@pytest.fixture(params=DEVICES)
def device(request: pytest.FixtureRequest) -> torch.device:
    """Runs a test on the CPU, and on a CUDA device where there is one."""
    return torch.device(request.param)


@pytest.fixture(scope='session')
def photo_data() -> Path:
    """The folder of optional photos that SOCO_TEST_DATA names (photos/, originals/, coco_mini/)."""
    folder = os.environ.get('SOCO_TEST_DATA')
    if not folder:
        pytest.skip('needs photos: set SOCO_TEST_DATA to the folder that holds them')
    if not Path(folder).is_dir():
        pytest.fail(f'SOCO_TEST_DATA names a folder that is not there: {folder}')
    return Path(folder)
