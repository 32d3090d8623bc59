"""Helper processes of a run that listens to signals."""
import os
import subprocess
import sys

import pytest
from small import ROOT

SCRIPT = """
import multiprocessing, os, signal, sys, time
os.register_at_fork(after_in_child=lambda: time.sleep(.5))  # a helper that takes long to be ready
from projects.soco.engine.stop_signal_hook import StopSignalHook

hook = StopSignalHook()
signal.signal(signal.SIGTERM, hook._ask)
context = multiprocessing.get_context('fork')
helper = context.Process(target=time.sleep, args=(60, ), daemon=True)
helper.start()
if sys.argv[1] == 'parent':
    helper.terminate()
else:
    os.system(f'kill -TERM {helper.pid}')
helper.join(3)
print('ended' if helper.exitcode == 0 else 'lives')
blocked = signal.pthread_sigmask(signal.SIG_BLOCK, ())
os.kill(os.getpid(), signal.SIGTERM)
print('heard' if hook.asked and not blocked else 'deaf')
helper.kill()
"""


@pytest.mark.slow
@pytest.mark.parametrize(('sender', 'told'), [('parent', 'ended'), ('another process', 'lives')])
def test_a_helper_hears_its_parent_from_the_beginning(sender: str, told: str):
    """A signal that arrives before a helper is ready is not lost; one of a cluster does not end it."""
    done = subprocess.run([sys.executable, '-c', SCRIPT, sender], cwd=ROOT, text=True,
                          capture_output=True, env={**os.environ, 'PYTHONPATH': str(ROOT)})
    assert done.stdout.split() == [told, 'heard'], done.stdout + done.stderr
