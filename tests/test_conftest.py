"""The additions of conftest.py to pytest."""
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
from mmengine.device import get_device
from small import ROOT

ONE = 'import pytest\n\n\ndef test_a():\n    pytest.skip("no reason")\n'
WHOLE = 'import pytest\npytest.skip("no reason", allow_module_level=True)\n'


def plugin(config: pytest.Config) -> ModuleType:
    """Return the conftest.py that is in use."""
    return next(module for module in config.pluginmanager.get_plugins()
                if getattr(module, '__file__', None) == str(ROOT / 'tests/conftest.py'))


def test_the_ordinary_suite_hides_cuda(pytestconfig: pytest.Config) -> None:
    if plugin(pytestconfig).WITH_CUDA:
        pytest.skip('this is not the ordinary suite')
    assert os.environ['CUDA_VISIBLE_DEVICES'] == '' and get_device() == 'cpu'
    assert plugin(pytestconfig).DEVICES == ['cpu']


def test_the_suite_of_a_gpu_is_what_needs_one(monkeypatch: pytest.MonkeyPatch,
                                              pytestconfig: pytest.Config) -> None:
    monkeypatch.setattr(plugin(pytestconfig), 'WITH_CUDA', True)
    items = [SimpleNamespace(
        nodeid=name, path=name, _fixtureinfo=SimpleNamespace(name2fixturedefs={}),
        get_closest_marker=lambda mark, own=marks: getattr(pytest.mark, mark).mark if mark in own
        else None)
        for name, marks in (('a', ['cuda']), ('b', ['slow']), ('c', ['cuda', 'slow']), ('d', []))]
    left_out = []
    hook = SimpleNamespace(pytest_deselected=lambda items: left_out.extend(items))
    plugin(pytestconfig).pytest_collection_modifyitems(SimpleNamespace(hook=hook), items)
    assert [item.nodeid for item in items] == ['c', 'a'] and [i.nodeid for i in left_out] == ['b', 'd']


@pytest.mark.slow
@pytest.mark.parametrize('ci, told', [('true', 'no reason'), ('', '2 skipped')])
def test_a_skipped_promise_is_a_failure_in_ci_only(tmp_path: Path, ci: str, told: str) -> None:
    shutil.copy(ROOT / 'tests/conftest.py', tmp_path)
    for name, text in (('test_kills.py', ONE), ('test_hostile.py', WHOLE)):
        (tmp_path / name).write_text(text)
    done = subprocess.run(
        [sys.executable, '-m', 'pytest', '-q', '-p', 'no:cacheprovider',
         '--continue-on-collection-errors', str(tmp_path)], cwd=tmp_path, text=True,
        env={**os.environ, 'CI': ci, 'PYTHONPATH': f'{ROOT}:{ROOT}/tests'}, capture_output=True,
        timeout=300)
    assert (done.returncode != 0) == (ci == 'true') and told in done.stdout, done.stdout
    assert ('1 failed' in done.stdout and '1 error' in done.stdout) == (ci == 'true')
