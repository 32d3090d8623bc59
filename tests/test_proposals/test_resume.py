"""Tests that killed runs, and runs on a Dask cluster, give the file of an uninterrupted run.

SOCO_KILLS sets how often a run is killed (default 4; docs/reliability.md has a longer run).
"""
import errno
import json
import os
import random
import re
import resource
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image

from projects.soco.proposals import ProposalStore, StoreWriter, journal
from projects.soco.proposals.executors import DaskExecutor, SerialExecutor
from projects.soco.proposals.filters import get_filter
from projects.soco.proposals.generate import GenerateOptions, describe_run, generate
from projects.soco.proposals.journal import ChunkFolder
from projects.soco.proposals.sources import open_source

KILLS = int(os.environ.get('SOCO_KILLS', 4))
ROOT = Path(__file__).parents[2]
TOOL = ROOT / 'tools' / 'generate_proposals.py'
ENVIRONMENT = dict(os.environ, PYTHONPATH=str(ROOT))
OPTIONS = GenerateOptions(box_filter=get_filter('all'))


@pytest.fixture(scope='module')
def many_photos(tmp_path_factory, photo):
    """Make a folder of forty photos."""
    folder = tmp_path_factory.mktemp('many')
    with Image.open(photo('coffee.png')) as image:
        for i in range(40):
            image.crop((5 * i, 2 * i, 5 * i + 320, 2 * i + 240)).save(folder / f'{i:02d}.png')
    return folder


@pytest.fixture(scope='module')
def whole(tmp_path_factory, many_photos):
    """Return the bytes of the store of an uninterrupted run."""
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
        time.sleep(0.001)


def start_logged(images, out, log, workers, **kwargs):
    code = ('import sys; from test_proposals.worker_functions import generate_logged; '
            'generate_logged(*sys.argv[1:])')
    return subprocess.Popen([sys.executable, '-c', code, *map(str, (images, out, log, workers))],
                            env=dict(ENVIRONMENT, PYTHONPATH=f'{ROOT}:{ROOT / "tests"}'), text=True,
                            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, **kwargs)


def kill_group(process):
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


@pytest.mark.slow
@pytest.mark.parametrize('workers', [1, 2])
def test_a_run_that_is_killed_again_and_again_gives_the_same_file(tmp_path, photo, workers):
    images, out, parts = tmp_path / 'in', tmp_path / 's.arrow', tmp_path / 's.arrow.parts'
    count = 8 * KILLS + 8
    images.mkdir()
    with Image.open(photo('coffee.png')) as image:
        for i in range(count):
            box = (i % 40 * 5, i // 40 * 5)
            image.crop((*box, box[0] + 320, box[1] + 240)).save(images / f'{i:03d}.png')
    generate(open_source(images), tmp_path / 'whole.arrow', OPTIONS, SerialExecutor())
    rng = random.Random(workers)
    log, killed = tmp_path / 'log', 0
    log.touch()

    def saved():
        return {path.stem for path in parts.glob('*.arrow')}

    def wait_for_saved(process, goal):
        wait_for(lambda: process.poll() is not None or len(saved()) >= goal)

    while killed < KILLS:
        before = saved()
        process = start_logged(images, out, log, workers, start_new_session=True)
        if killed == KILLS - 1:  # while the chunks are joined
            wait_for_saved(process, count)
        elif killed % 4 == 3:  # while it starts
            time.sleep(rng.uniform(0, 2))
        else:  # at any moment after at least one more image
            wait_for_saved(process, len(before) + rng.randint(0, 7))
            time.sleep(rng.uniform(0, 0.1))
        if process.poll() is not None:
            break
        kill_group(process)
        killed += 1
        assert before <= saved()
    assert killed >= KILLS - 1  # the last kill may be too late
    last = start_logged(images, out, log, workers)
    assert last.wait(300) == 0, last.communicate()[0]
    assert out.read_bytes() == (tmp_path / 'whole.arrow').read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ['in', 'log', 's.arrow', 'whole.arrow']
    again = len(log.read_text().splitlines()) - count
    assert 0 <= again <= KILLS * workers  # a batch is one image here
    print(f'{killed} kills survived of {killed} tried with {workers} workers; {again} of {count} '
          f'images done again')


@pytest.mark.parametrize('share', [0, 0.3, 0.9])
def test_a_full_disk_while_a_store_is_written(tmp_path, whole, share):
    out = tmp_path / 's.arrow'
    out.write_bytes(whole)
    code = ('import sys; from projects.soco.proposals import ProposalStore, StoreWriter; '
            'from projects.soco.proposals.store_operations import write_subset; '
            'old = ProposalStore.open(sys.argv[1]); write_subset(old, [r.image for r in old], '
            'sys.argv[2])')
    (tmp_path / 'target.arrow').write_bytes(b'what was there')
    done = subprocess.run([sys.executable, '-c', code, str(out), str(tmp_path / 'target.arrow')],
                          env=ENVIRONMENT, capture_output=True, text=True,
                          preexec_fn=limit_files(int(share * len(whole))))
    assert done.returncode == 1
    assert 'target.arrow could not be written (File too large); what was there' in done.stderr
    assert (tmp_path / 'target.arrow').read_bytes() == b'what was there'
    assert sorted(path.name for path in tmp_path.iterdir()) == ['s.arrow', 'target.arrow']


def limit_files(size):
    """Return a function that limits the size of a process's files, as a full disk or a quota does."""
    return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


@pytest.mark.slow
@pytest.mark.parametrize('size', [10, 2000, 8000])
def test_a_full_disk_stops_the_generator_and_costs_nothing(tmp_path, many_photos, whole, size):
    """Test three limits: the lock does not fit; no chunk fits; the chunks fit, but not the store."""
    out = tmp_path / 's.arrow'
    command = [sys.executable, str(TOOL), str(many_photos), str(out), '--keep', 'all', '--workers']
    done = subprocess.run([*command, '1'], env=ENVIRONMENT, capture_output=True, text=True,
                          preexec_fn=limit_files(size))
    assert done.returncode == 2 and 'Traceback' not in done.stderr
    assert 'could not be written (File too large)' in done.stderr, done.stderr
    assert 'start the same command again' in done.stderr
    assert not out.exists() and not list(tmp_path.rglob('*.partial'))
    assert len(list(tmp_path.rglob('0*.arrow'))) == (40 if size == 8000 else 0)
    done = subprocess.run([*command, '2'], env=ENVIRONMENT, capture_output=True, text=True)
    assert done.returncode == 0 and out.read_bytes() == whole, done.stderr
    assert ('were reused from an earlier run' in done.stdout) == (size == 8000)


@pytest.mark.parametrize('function, message', [
    ('mkdir', 's.arrow.parts could not be written (Read-only file system)'),
    ('fsync', 'run.json could not be written (Read-only file system)'),
    ('replace', 'run.json could not be written (Read-only file system)')])
def test_a_read_only_disk(tmp_path, many_photos, whole, monkeypatch, function, message):
    """Test a disk that fails to create a folder, to flush, or to rename a file."""
    def refuse(*args, **kwargs):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    source, out = open_source(many_photos), tmp_path / 's.arrow'
    out.write_bytes(whole)
    monkeypatch.setattr(os, function, refuse)
    with pytest.raises(OSError, match=re.escape(message)):
        generate(source, out, OPTIONS, SerialExecutor(), overwrite=True)
    if function != 'mkdir':
        with (pytest.raises(OSError, match='s.arrow could not be written .Read-only'),
              StoreWriter(out, dict(rules=[]))):
            pass
    monkeypatch.undo()
    assert out.read_bytes() == whole and not list(tmp_path.rglob('*.partial'))


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
    source, out = open_source(many_photos), tmp_path / 's.arrow'
    who = f'process {os.getpid()} on {socket.gethostname()}'
    with ChunkFolder(out) as folder:
        folder.begin(describe_run(source.names(), source, OPTIONS))
        for overwrite in (False, True):
            with pytest.raises(ValueError, match=rf'another run is writing .*s.arrow \({who}\)'):
                generate(source, out, OPTIONS, SerialExecutor(), overwrite=overwrite)
        assert (folder.path / 'run.json').exists()
    with ChunkFolder(out) as folder:  # the first run has ended, so the next may begin
        folder.remove()
    assert not list(tmp_path.iterdir())


def test_a_run_that_waited_for_the_lock_takes_what_the_first_has_made(tmp_path, many_photos, whole,
                                                                      monkeypatch):
    source, out = open_source(many_photos), tmp_path / 's.arrow'
    wanted = journal._take_lock

    def first_ends_just_now(*args):
        out.write_bytes(whole)
        return wanted(*args)

    monkeypatch.setattr(journal, '_take_lock', first_ends_just_now)
    assert generate(source, out, OPTIONS, SerialExecutor()).reused == 40
    assert [path.name for path in tmp_path.iterdir()] == ['s.arrow']


def test_a_cluster_that_does_not_answer():
    pytest.importorskip('distributed')
    with pytest.raises(ConnectionError, match='tcp://127.0.0.1:9 did not answer within 1 s'):
        DaskExecutor('tcp://127.0.0.1:9', timeout=1)


@pytest.fixture
def cluster(tmp_path):
    """Start a scheduler with two workers; yield its address and the workers' processes."""
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
