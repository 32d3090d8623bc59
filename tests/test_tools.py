"""Every tool starts in a real interpreter; other tests start them from one whose imports are done."""
import os
import subprocess
import sys
from pathlib import Path

import pytest
from small import ROOT

TOOLS = sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / 'tools').rglob('*.py'))


@pytest.mark.slow(6)
@pytest.mark.parametrize('tool', TOOLS)
def test_a_tool_starts_and_says_what_it_does(tool: str, tmp_path: Path):
    done = subprocess.run([sys.executable, str(ROOT / tool), '--help'], cwd=tmp_path, text=True,
                          capture_output=True, env={**os.environ, 'PYTHONPATH': str(ROOT)})
    assert done.returncode == 0, done.stderr[-2000:]
    assert 'usage: ' in done.stdout and '--help' in done.stdout
