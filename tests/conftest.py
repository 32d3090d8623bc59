"""What all tests share: operators before mmdet, fixed seeds, devices, order, a quick interpreter.

The ordinary suite hides CUDA devices, so that it does the same on every machine: a Runner would move to
the GPU, where sums of atomic additions differ from run to run, and two processes would ask for two
GPUs. With SOCO_TEST_CUDA=1, only the tests of a GPU run: those that are marked `cuda`, and those that
take `device`.
"""
import contextlib
import gc
import logging
import os
import random
import shutil
import signal
import tempfile
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

WITH_CUDA = os.environ.get('SOCO_TEST_CUDA') == '1'
if not WITH_CUDA:  # before MMEngine looks for a device, which it does when it is imported
    os.environ['CUDA_VISIBLE_DEVICES'] = ''

import hypothesis
import numpy as np
import pytest
import torch
import warm_python
from mmengine.logging import MessageHub, MMLogger
from mmengine.registry import DefaultScope
from mmengine.runner import Runner
from mmengine.visualization import Visualizer

import projects.soco.compat  # noqa: F401  before any test imports mmdet
from projects.soco.launch.driver import why_no_device

hypothesis.settings.register_profile('soco', deadline=None, derandomize=True, database=None)
hypothesis.settings.load_profile('soco')

# What docs/reliability.md promises rests on these: in CI a test of theirs that is skipped is a failure.
PROMISES = {'test_bad_images.py', 'test_fuzz.py', 'test_guards.py', 'test_hostile.py', 'test_kills.py',
            'test_resume.py'}
DEVICES = [pytest.param('cuda', marks=pytest.mark.cuda)] if WITH_CUDA else ['cpu']


def pytest_configure(config: pytest.Config) -> None:
    """Write the interpreter that `scripts.PYTHON` names; the processes of pytest-xdist share it."""
    if not hasattr(config, 'workerinput'):
        os.environ['SOCO_WARM_PYTHON'] = tempfile.mkdtemp(prefix='soco_python_')
        warm_python.write_interpreter(Path(os.environ['SOCO_WARM_PYTHON']))


def pytest_unconfigure(config: pytest.Config) -> None:
    """End its server."""
    if not hasattr(config, 'workerinput'):
        folder = os.environ.pop('SOCO_WARM_PYTHON')
        warm_python.stop_server(Path(folder))
        shutil.rmtree(folder, ignore_errors=True)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Put the longest tests first; tests that share a fixture of their file stay together.

    `@pytest.mark.slow(seconds)` says how long a test takes, about.
    """
    if WITH_CUDA:
        config.hook.pytest_deselected(items=[i for i in items if not i.get_closest_marker('cuda')])
        items[:] = [i for i in items if i.get_closest_marker('cuda')]
    longest: dict[str, float] = {}
    groups = []
    for item in items:
        mark = item.get_closest_marker('slow')
        seconds = (mark.args or (5, ))[0] if mark else 0
        fixtures = item._fixtureinfo.name2fixturedefs.values()
        shared = any(fixture.scope == 'module' for found in fixtures for fixture in found)
        group = str(item.path) if shared else item.nodeid
        groups.append(group)
        longest[group] = max(seconds, longest.get(group, 0))
    order = sorted(range(len(items)), key=lambda i: (-longest[groups[i]], groups[i]))
    items[:] = [items[i] for i in order]


def pytest_collection_finish() -> None:
    """Keep what was imported out of later garbage collections, which would go through all of it."""
    gc.collect()
    gc.freeze()


def skipped_fails_in_ci(node: pytest.Item | pytest.Collector, report: Any) -> Any:
    if report.skipped and node.path.name in PROMISES and os.environ.get('CI') == 'true':
        report.outcome = 'failed'
        report.longrepr = f'Skipped, which is a failure in CI: {report.longrepr[2]}'
    return report


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator:
    """Judges a test that skips itself."""
    return skipped_fails_in_ci(item, (yield))


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector: pytest.Collector) -> Generator:
    """Judges a file that is skipped whole."""
    return skipped_fails_in_ci(collector, (yield))


@pytest.fixture(autouse=True)
def same_signals() -> Generator:
    """Takes back the handler that a run which failed has left."""
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.fixture(autouse=True)
def workers_end_with_their_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stop the data workers of a Runner when it ends.

    Otherwise they stop when the Runner is collected as cyclic garbage, and torch then waits five
    seconds for each of them, because the queues that should tell them are garbage too.
    """
    train = Runner.train

    def train_and_stop(runner: Runner) -> torch.nn.Module:
        try:
            return train(runner)
        finally:
            loop = runner._train_loop
            iterator = getattr(getattr(loop, 'dataloader', None), '_iterator', None)
            if iterator is not None:
                iterator._shutdown_workers()

    monkeypatch.setattr(Runner, 'train', train_and_stop)


@pytest.fixture(autouse=True)
def configs_without_layout(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave the text of configs as it is: yapf searches a second for the best breaks of long paths."""
    # the forks' MMEngine imports the name at each call
    monkeypatch.setattr('mmengine.config.config.FormatCode', warm_python.as_it_is, raising=False)


@pytest.fixture(autouse=True)
def no_current_runner() -> Iterator[None]:
    """Forget the loggers and scopes of Runners, or the next test would write to their files."""
    yield
    for logger in MMLogger._instance_dict.values():
        for handler in [h for h in logger.handlers if isinstance(h, logging.FileHandler)]:
            logger.removeHandler(handler)
            with contextlib.suppress(OSError):  # of a full disk
                handler.close()
    for registered in (MMLogger, MessageHub, Visualizer, DefaultScope):
        registered._instance_dict.clear()


@pytest.fixture(autouse=True)
def fixed_seeds() -> None:
    """Starts every test from the same random state, whatever ran before it."""
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)


@pytest.fixture(params=DEVICES)
def device(request: pytest.FixtureRequest) -> torch.device:
    """Runs a test on the CPU, or on the CUDA device with SOCO_TEST_CUDA=1."""
    if request.param == 'cuda' and not torch.cuda.is_available():
        pytest.skip(f'no CUDA device: {why_no_device(torch.version.cuda)}')
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
