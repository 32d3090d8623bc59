"""Run the project's shell scripts, on this machine and on a cluster made of it."""
import os
import socket
import subprocess
from pathlib import Path

SCRIPTS = Path(__file__).parents[1] / 'tools/benchmarks'
# An environment whose python needs no time for imports: see warm_python.py.
WARM = Path(os.environ['SOCO_WARM_PYTHON'])
PYTHON = str(WARM / 'bin/python')


def run_script(name: str, *args: str, cwd: Path | None = None,
               path: Path = Path('/')) -> tuple[int, str]:
    env = {**os.environ, 'SOCO_VENV': str(WARM), 'PATH': f'{path}:{os.environ["PATH"]}',
           'GPUS': '2', 'OMP_NUM_THREADS': '1', 'PORT': str(free_port()),
           'MASTER_PORT': str(free_port())}
    script = next(SCRIPTS.rglob(name))
    done = subprocess.run(['bash', str(script), *args], cwd=cwd, text=True, capture_output=True,
                          env=env)
    return done.returncode, ' '.join((done.stdout + done.stderr).split())


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(('127.0.0.1', 0))
        return sock.getsockname()[1]


def write_fake_srun(folder: Path) -> None:
    """A cluster of one machine: `srun` starts the last words in two processes."""
    folder.mkdir()
    (folder / 'srun').write_text(
        '#!/usr/bin/env bash\n'
        'while [[ "$1" == -* ]]; do if [[ "$1" == -p ]]; then shift; fi; shift; done\n'
        'export SLURM_NTASKS=2 SLURM_NODELIST=localhost\n'
        'SLURM_PROCID=1 SLURM_LOCALID=1 "$@" & other=$!\n'
        'SLURM_PROCID=0 SLURM_LOCALID=0 "$@"; code=$?\n'
        'wait $other && exit $code\n')
    (folder / 'scontrol').write_text('#!/bin/sh\necho "$3"\n')
    for name in ('srun', 'scontrol'):
        (folder / name).chmod(0o755)
