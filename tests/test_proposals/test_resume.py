"""Killed runs, and runs on a Dask cluster, give the file of an undisturbed run."""
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image

from projects.soco.proposals import ProposalStore
from projects.soco.proposals.executors import DaskExecutor, SerialExecutor
from projects.soco.proposals.filters import get_filter
from projects.soco.proposals.generate import GenerateOptions, describe_run, generate
from projects.soco.proposals.journal import ChunkFolder
from projects.soco.proposals.sources import open_source

ROOT = Path(__file__).parents[2]
TOOL = ROOT / 'tools' / 'generate_proposals.py'
ENVIRONMENT = dict(os.environ, PYTHONPATH=str(ROOT))
OPTIONS = GenerateOptions(box_filter=get_filter('all'))


@pytest.fixture(scope='module')
def many_photos(tmp_path_factory, photo):
    """Forty photos."""
    folder = tmp_path_factory.mktemp('many')
    with Image.open(photo('coffee.png')) as image:
        for i in range(40):
            image.crop((5 * i, 2 * i, 5 * i + 320, 2 * i + 240)).save(folder / f'{i:02d}.png')
    return folder


@pytest.fixture(scope='module')
def whole(tmp_path_factory, many_photos):
    """The bytes of an undisturbed run."""
    out = tmp_path_factory.mktemp('whole') / 's.arrow'
    generate(open_source(many_photos), out, OPTIONS, SerialExecutor())
    return out.read_bytes()


def start_tool(*args):
    return subprocess.Popen([sys.executable, str(TOOL), *map(str, args)], env=ENVIRONMENT,
                            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def wait_for(condition, seconds=120):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, 'waited too long'
        time.sleep(0.01)


@pytest.mark.slow
def test_a_run_that_is_killed_twice_gives_the_same_file(tmp_path, many_photos, whole):
    out = tmp_path / 's.arrow'
    parts = tmp_path / 's.arrow.parts'
    for done, workers in ((3, 2), (20, 1)):
        process = start_tool(many_photos, out, '--keep', 'all', '--workers', workers)
        wait_for(lambda: len(list(parts.glob('*.arrow'))) >= done or process.poll() is not None)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert not out.exists()
    process = start_tool(many_photos, out, '--keep', 'all', '--workers', 2)
    text = process.communicate()[0]
    assert process.returncode == 0, text
    assert 'were there from an earlier run' in text
    assert out.read_bytes() == whole
    assert [path.name for path in tmp_path.iterdir()] == ['s.arrow']


@pytest.mark.slow
def test_workers_do_not_outlive_a_killed_run(tmp_path, many_photos):
    process = start_tool(many_photos, tmp_path / 's.arrow', '--workers', 2)
    wait_for((tmp_path / 's.arrow.parts').exists)
    wait_for(lambda: list((tmp_path / 's.arrow.parts').glob('*.arrow')))
    started = {int(p.name) for p in Path('/proc').iterdir() if p.name.isdigit()
               and _ancestor(p.name, process.pid)}
    assert len(started) >= 2
    process.kill()
    process.wait()
    wait_for(lambda: not any(_alive(pid) for pid in started), 20)


def _parent(pid):
    try:
        return int(Path(f'/proc/{pid}/stat').read_text().rpartition(')')[2].split()[1])
    except (OSError, ValueError):
        return 0


def _ancestor(pid, wanted):
    parent = _parent(pid)
    return parent == wanted or (parent > 1 and _ancestor(parent, wanted))


def _alive(pid):
    try:
        return Path(f'/proc/{pid}/stat').read_text().rpartition(')')[2].split()[0] != 'Z'
    except OSError:
        return False


def test_two_runs_at_a_time_are_refused(tmp_path, many_photos):
    source = open_source(many_photos)
    folder = ChunkFolder(tmp_path / 's.arrow', describe_run(source.names(), source, OPTIONS))
    with pytest.raises(ValueError, match='another run is writing'):
        generate(source, tmp_path / 's.arrow', OPTIONS, SerialExecutor())
    folder.remove()


def test_a_cluster_that_does_not_answer():
    pytest.importorskip('distributed')
    with pytest.raises(ConnectionError, match='tcp://127.0.0.1:9 did not answer within 1 s'):
        DaskExecutor('tcp://127.0.0.1:9', timeout=1)


@pytest.fixture
def cluster(tmp_path):
    """A scheduler with two workers, and the workers' processes."""
    pytest.importorskip('distributed')
    started = []

    def start(*command):
        started.append(subprocess.Popen([sys.executable, '-m', *command], env=ENVIRONMENT,
                                        cwd=tmp_path, stdout=subprocess.DEVNULL,
                                        stderr=subprocess.DEVNULL))
        return started[-1]

    file = tmp_path / 'scheduler.json'
    start('distributed.cli.dask_scheduler', '--port', '0', '--no-dashboard', '--host',
          '127.0.0.1', '--scheduler-file', str(file))
    wait_for(lambda: file.exists() and file.read_text().strip().endswith('}'))
    workers = [start('distributed.cli.dask_worker', '--scheduler-file', str(file), '--nthreads',
                     '1', '--no-dashboard', '--no-nanny') for _ in range(2)]
    yield json.loads(file.read_text())['address'], workers
    for process in started:
        process.kill()
        process.wait()


@pytest.mark.slow
def test_a_cluster_that_loses_a_worker_gives_the_same_file(tmp_path, many_photos, whole, cluster):
    address, workers = cluster
    killed = []

    def report(images, bad, before):
        if not killed:
            workers[0].kill()
            killed.append(workers[0].wait())

    executor = DaskExecutor(address)
    wait_for(lambda: len(executor.client.scheduler_info()['workers']) == 2)
    out = tmp_path / 's.arrow'
    generate(open_source(many_photos), out, OPTIONS, executor, report=report)
    assert killed == [-signal.SIGKILL]
    assert len(executor.client.scheduler_info()['workers']) == 1
    assert out.read_bytes() == whole
    assert len(ProposalStore.open(out)) == 40
