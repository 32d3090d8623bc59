"""What is installed on this machine, beside the versions that were seen to work."""
import os
import platform
import shutil
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

from packaging.requirements import Requirement

EXTRAS = {'openmmlab': 'frozen', 'onedl': 'onedl'}  # the extra that lists a host's packages
# On no extra's list: MMCV is one of two, and onedl-mmdetection is installed without its dependencies.
MORE = {'openmmlab': ('mmcv', 'mmcv-lite'), 'onedl': ('onedl-mmdetection', )}
SHARED_MEMORY = Path('/dev/shm')
DRIVER = Path('/proc/driver/nvidia/version')


def tested_ranges(host: str) -> dict[str, str]:
    """Return what the installed package requires, by distribution.

    Args:
        host (str): 'openmmlab' or 'onedl', see `compat.host`.

    Returns:
        dict[str, str]: Version specifiers, such as '<2.16,>=2.11', of all packages that it needs; those
        of the other host are not among them.

    Raises:
        ValueError: If the package is not installed.
    """
    try:
        lines = requires('mmsoco') or []
    except PackageNotFoundError:
        raise ValueError('The package mmsoco is not installed in this environment, so the versions '
                         'that it was tested with are unknown. Install it from the checkout: '
                         'pip install --no-deps -e .') from None
    ranges = {}
    for needed in map(Requirement, lines):
        if needed.marker is None or needed.marker.evaluate({'extra': EXTRAS[host]}):
            ranges[needed.name] = str(needed.specifier)
    return ranges


def package_rows(host: str) -> Iterator[tuple[str, str, str, bool]]:
    """Yield name, installed version, tested range, and whether the version is within the range.

    Args:
        host (str): 'openmmlab' or 'onedl'.
    """
    ranges = {**tested_ranges(host), **dict.fromkeys(MORE[host], '')}
    for name, tested in ranges.items():
        try:
            found = version(name)
        except PackageNotFoundError:
            if tested:
                yield name, 'not installed', tested, False
            continue
        yield name, found, tested, Requirement(f'{name}{tested}').specifier.contains(found, True)


def machine_rows(host: str) -> list[tuple[str, str]]:
    """Describe Python, host, operators, GPU, disk and shared memory; imports torch.

    Args:
        host (str): 'openmmlab' or 'onedl'.

    Returns:
        list[tuple[str, str]]: Names and values.
    """
    import torch

    from ..compat.ops import ops_backend
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    device = f'{count} x {torch.cuda.get_device_name(0)}' if count else \
        f'CPU, {torch.get_num_threads()} threads (torch finds no CUDA device)'
    driver = 'no NVIDIA driver'
    if DRIVER.is_file():
        driver = ' '.join(DRIVER.read_text().splitlines()[0].split()).removeprefix('NVRM version: ')
    backend = {'mmcv': 'mmcv (compiled, all ops)',
               'torchvision': 'torchvision (nms, RoIAlign, deformable convolution, sigmoid focal loss)'}
    names = {'openmmlab': "OpenMMLab's own releases", 'onedl': 'the maintained forks (onedl)'}
    rows = [('environment', sys.prefix), ('python', platform.python_version()), ('host', names[host]),
            ('ops backend', backend[ops_backend()]), ('device', device),
            ('CUDA of torch', torch.version.cuda or 'none'), ('driver', driver),
            ('free disk here', _gigabytes(shutil.disk_usage(os.getcwd()).free))]
    if SHARED_MEMORY.is_dir():
        rows.append(('free in /dev/shm', _gigabytes(shutil.disk_usage(SHARED_MEMORY).free)))
    return rows


def _gigabytes(count: int) -> str:
    return f'{count / 2**30:.1f} GiB'


def describe_installation() -> tuple[str, list[str]]:
    """Describe this machine's installation.

    Returns:
        tuple[str, list[str]]: A table, and what is outside the tested versions.

    Raises:
        ValueError: If nothing can work: two hosts in one environment, a torch without its torchvision.
    """
    from ..compat.host import host_name
    host = host_name()
    rows = [(name, value, '') for name, value in machine_rows(host)]
    outside = []
    for name, found, tested, within in package_rows(host):
        mark = '' if within else 'outside: '
        rows.append((name, found, f'{mark}{tested}' if tested else ''))
        if not within:
            outside.append(f'{name} {found} (tested: {tested})')
    if not (3, 11) <= sys.version_info[:2] <= (3, 13):
        outside.append(f'Python {platform.python_version()} (tested: 3.11 to 3.13)')
    lines = [f'{name:<18} {value:<18} {tested}'.rstrip() for name, value, tested in rows]
    return '\n'.join(lines), outside


def refuse_untested(outside: list[str]) -> None:
    """Refuse versions outside the tested ranges.

    Args:
        outside (list[str]): The second value of `describe_installation`.

    Raises:
        ValueError: If it is not empty.
    """
    if outside:
        raise ValueError(
            f'Outside the versions that were seen to work: {"; ".join(outside)}. The project may work '
            'or fail with them. Install versions within the ranges, or the exact set that is tested: '
            'bash tools/setup_env.sh')
