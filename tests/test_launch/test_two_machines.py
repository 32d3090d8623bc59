"""Groups between two machines: network namespaces whose host name has Debian's address, 127.0.1.1."""
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Generator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SUM = """
import datetime
import torch
from torch import distributed
from projects.soco.compat.network import choose_gloo_interface
choose_gloo_interface()
distributed.init_process_group('gloo', timeout=datetime.timedelta(seconds=30))
total = torch.ones(1)
distributed.all_reduce(total)
print('sum', int(total))
"""


def ip(*words: str) -> None:
    subprocess.run(['ip', *words], check=True, capture_output=True)


@pytest.fixture
def machines() -> Generator:
    names = [f'soco-{os.getpid()}-{rank}' for rank in range(2)]
    devices = [f'soco{os.getpid() % 100000}{rank}' for rank in 'ab']
    if not (shutil.which('ip') and shutil.which('unshare')) or os.geteuid():
        pytest.skip('network namespaces need root, iproute2 and unshare')
    try:
        for name in names:
            ip('netns', 'add', name)
        ip('link', 'add', devices[0], 'netns', names[0], 'type', 'veth',
           'peer', 'name', devices[1], 'netns', names[1])
        for rank, (name, device) in enumerate(zip(names, devices, strict=True)):
            ip('-n', name, 'addr', 'add', f'10.99.0.{rank + 1}/24', 'dev', device)
            for link in ('lo', device):
                ip('-n', name, 'link', 'set', link, 'up')
        yield names
    except subprocess.CalledProcessError as error:
        pytest.skip(f'no network namespaces here: {error.stderr.decode().strip()}')
    finally:
        for name in names:
            subprocess.run(['ip', 'netns', 'del', name], capture_output=True)


@pytest.mark.slow(15)
def test_a_group_of_two_machines_whose_names_are_local(machines: list[str], tmp_path: Path):
    hosts = tmp_path / 'hosts'
    hosts.write_text(f'127.0.0.1 localhost\n127.0.1.1 {socket.gethostname()}\n')
    run = f'mount --bind {hosts} /etc/hosts && exec {sys.executable} -c "$0"'
    environment = {key: value for key, value in os.environ.items() if not key.startswith('GLOO')}
    environment |= dict(WORLD_SIZE='2', LOCAL_WORLD_SIZE='1', LOCAL_RANK='0', MASTER_ADDR='10.99.0.1',
                        MASTER_PORT='29511', PYTHONPATH=str(ROOT))
    processes = [subprocess.Popen(
        ['ip', 'netns', 'exec', name, 'unshare', '--mount', 'sh', '-c', run, SUM],
        env={**environment, 'RANK': str(rank)}, text=True, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT) for rank, name in enumerate(machines)]
    try:
        for process in processes:
            out, _ = process.communicate(timeout=90)
            assert 'sum 2' in out, out
    finally:
        for process in processes:
            process.kill()
