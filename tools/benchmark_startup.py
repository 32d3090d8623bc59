"""Time the start of tools: --help of the generator, and training up to its first iteration.

python tools/benchmark_startup.py
"""
import argparse
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).resolve().parents[1]


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--rounds', type=int, default=5, help='runs of each tool (default 5)')
    return parser.parse_args()


def help_seconds() -> float:
    start = time.perf_counter()
    subprocess.run([sys.executable, 'tools/generate_proposals.py', '--help'], check=True, cwd=ROOT,
                   stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


def first_iteration_seconds(folder: Path) -> float:
    """Measure the seconds from the start of train.py to the log line of the first iteration."""
    start = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, 'tools/train.py', 'configs/soco_r18_fpn_quickstart.py', '--work-dir',
         f'{folder}/work', '--cfg-options', f'train_dataloader.dataset.data_root={folder}/photos',
         f'train_dataloader.dataset.proposals={folder}/proposals.arrow',
         'default_hooks.logger.interval=1'],
        cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        env={**os.environ, 'PYTHONPATH': str(ROOT)})
    try:
        for line in process.stdout:
            if re.search(r'Epoch\(train\)\s+\[1\]\[\s*1/', line):
                return time.perf_counter() - start
    finally:
        process.kill()
    raise ValueError('Training ended before its first iteration.')


def make_data(folder: Path) -> None:
    """Write eight photos of noise and their proposals."""
    import numpy as np
    from PIL import Image
    (folder / 'photos').mkdir()
    rng = np.random.default_rng(0)
    for i in range(8):
        coarse = Image.fromarray(rng.integers(0, 255, (8, 10, 3), dtype=np.uint8))
        coarse.resize((320, 256)).save(folder / f'photos/{i}.jpg')
    subprocess.run([sys.executable, 'tools/generate_proposals.py', f'{folder}/photos',
                    f'{folder}/proposals.arrow'], check=True, cwd=ROOT, stdout=subprocess.DEVNULL)


def main() -> None:
    args = parse_args()
    table = Table('tool', 'median (s)', 'min', 'max', box=None)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_data(folder)
        for what, measure in (
                ('tools/generate_proposals.py --help', help_seconds),
                ('tools/train.py to the first iteration, quickstart config',
                 lambda: first_iteration_seconds(folder))):
            seconds = [measure() for _ in range(args.rounds)]
            table.add_row(what, *(f'{f(seconds):.2f}' for f in (statistics.median, min, max)))
    Console().print(table)


if __name__ == '__main__':
    main()
