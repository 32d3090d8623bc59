"""The additions of conftest.py to pytest."""
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from small import ROOT

ONE = 'import pytest\n\n\ndef test_a():\n    pytest.skip("no reason")\n'
WHOLE = 'import pytest\npytest.skip("no reason", allow_module_level=True)\n'


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
    assert ('1 failed, 1 error' in done.stdout) == (ci == 'true')
