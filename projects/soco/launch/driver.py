"""What the NVIDIA driver and the cards of this machine allow. Only the standard library is imported.

Set-up runs this file before torch is installed: python projects/soco/launch/driver.py
"""
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from typing import NamedTuple

PINNED_CUDA = '13.0'  # of the wheels of requirements/
_OLDEST_DRIVER = {12: 525, 13: 580}  # by the major version of CUDA
# Compute capabilities of the wheels of torch 2.11, by their CUDA (RELEASE.md of PyTorch).
_CAPABILITIES = {'12.6': (5.0, 9.0), '12.8': (7.5, 12.0), '13.0': (7.5, 12.1)}
OTHER_WHEELS = ('Update the driver, or use the wheels of CUDA 12.6 for the same torch: '
                'SOCO_TORCH_INDEX=ADDRESS bash tools/setup_env.sh (docs/install.md, One GPU)')


class Driver(NamedTuple):
    """What `nvidia-smi` says.

    Args:
        version (str | None): Version of the driver, such as '580.65.06'; None if `problem` is set.
        cards (tuple[tuple[str, float | None], ...]): Name and compute capability of each card; None
            where the driver is too old to tell.
        problem (str | None): The answer of an `nvidia-smi` that failed.
    """
    version: str | None
    cards: tuple[tuple[str, float | None], ...] = ()
    problem: str | None = None


def read_driver() -> Driver | None:
    """Ask `nvidia-smi` for the driver and the cards; return None if the machine has no such program."""
    program = shutil.which('nvidia-smi')
    if program is None:
        return None
    problem = ''
    for fields in ('driver_version,name,compute_cap', 'driver_version,name'):  # old ones lack the last
        try:
            done = subprocess.run([program, f'--query-gpu={fields}', '--format=csv,noheader'],
                                  capture_output=True, text=True, timeout=60)
        except (OSError, subprocess.TimeoutExpired) as error:
            return Driver(None, problem=f'{type(error).__name__}: {error}')
        rows = [[cell.strip() for cell in line.split(', ')] for line in done.stdout.splitlines()]
        if done.returncode == 0 and rows and all(len(row) == fields.count(',') + 1 for row in rows):
            return Driver(rows[0][0], tuple((row[1], _number(row[2:])) for row in rows))
        problem = problem or (done.stdout + done.stderr).strip() or f'exit code {done.returncode}'
    return Driver(None, problem=' '.join(problem.split()))


def _number(cells: Sequence[str]) -> float | None:
    """Return the number in the only cell; None if it is missing or something else, such as '[N/A]'."""
    return float(cells[0]) if cells and re.fullmatch(r'\d+\.\d+', cells[0]) else None


def describe(driver: Driver | None, cuda: str = PINNED_CUDA) -> tuple[bool, str]:
    """Say what a driver and its cards mean for wheels of a CUDA version.

    Args:
        driver (Driver | None): What `read_driver` returned.
        cuda (str): Version of CUDA that torch is built with. Defaults to that of the pinned wheels.

    Returns:
        tuple[bool, str]: Whether all cards can be used, and one or more sentences.
    """
    if driver is None:
        return False, 'No NVIDIA driver was found (there is no nvidia-smi): everything runs on the CPU.'
    if driver.version is None:
        return False, (f'nvidia-smi is there, but it fails: {driver.problem} The driver does not work, '
                       'or this container was started without its GPUs (docker run --gpus all).')
    names = [name for name, _ in driver.cards]
    found = ', '.join(f'{names.count(name)} × {name}' for name in dict.fromkeys(names))
    found = f'{found}, driver {driver.version}'
    major = int(cuda.split('.')[0])
    oldest, (low, high) = _OLDEST_DRIVER.get(major), _CAPABILITIES.get(cuda, (0., 99.))
    number = re.match(r'\d+', driver.version)
    if oldest and number and int(number[0]) < oldest:
        return False, (f'{found}: too old for the wheels of CUDA {cuda}, which need driver {oldest} or '
                       f'newer, so torch finds no device. {OTHER_WHEELS}.')
    unfit = [f'{name} (compute capability {card})' for name, card in driver.cards
             if card is not None and not low <= card <= high]
    if unfit:
        way = ('Use the wheels of CUDA 12.6 for the same torch: SOCO_TORCH_INDEX=ADDRESS bash '
               'tools/setup_env.sh (docs/install.md, One GPU)' if major > 12 else
               'Use the wheels that set-up installs without SOCO_TORCH_INDEX')
        return False, (f'{found}: the wheels of CUDA {cuda} have no kernels for '
                       f'{", ".join(dict.fromkeys(unfit))}, but for {low} to {high}. {way}.')
    return True, f'{found}: fits the wheels of CUDA {cuda}.'


def why_no_device(cuda: str | None) -> str:
    """Say why torch finds no CUDA device.

    Args:
        cuda (str | None): `torch.version.cuda`; None for a torch that is built without CUDA.

    Returns:
        str: One or more sentences.
    """
    visible = os.environ.get('CUDA_VISIBLE_DEVICES')
    if visible is not None and visible.strip() in ('', '-1', 'NoDevFiles'):
        return f'The environment variable CUDA_VISIBLE_DEVICES={visible!r} hides all devices.'
    driver = read_driver()
    if cuda is None and driver is not None:
        return 'This torch is built without CUDA. Set up the environment again: bash tools/setup_env.sh'
    fits, told = describe(driver, cuda or PINNED_CUDA)
    return f'{told} torch finds no device nevertheless.' if fits else told


def cuda_of_index(address: str) -> str:
    """Return the CUDA version in the address of an index of wheels, such as 12.6 for one with cu126."""
    found = re.search(r'cu(\d+)(\d)(?!\w)', address)
    return f'{found[1]}.{found[2]}' if found else PINNED_CUDA


def main(arguments: Sequence[str]) -> None:
    """Print what the driver means for the pinned wheels, or for those of the index that is given."""
    print(describe(read_driver(), cuda_of_index(''.join(arguments)))[1])


if __name__ == '__main__':
    main(sys.argv[1:])
