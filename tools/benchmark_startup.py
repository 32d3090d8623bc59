"""Time the start of tools: --help of the generator, and training up to its first iteration.

python tools/benchmark_startup.py
python tools/benchmark_startup.py --annotations 118000 860000

The second command times the check of a made-up COCO json of that many photos and boxes instead.
"""
import argparse
import os
import re
import signal
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
    parser.add_argument('--annotations', nargs=2, type=int, metavar=('PHOTOS', 'BOXES'), help='time '
                        'the check of a made-up COCO json instead: train2017 has 118000 and 860000')
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


def write_annotations(path: Path, photos: int, boxes: int, mended: bool) -> None:
    """Write a COCO json of random boxes; without `iscrowd` and `area`, it has to be mended."""
    import json

    import numpy as np
    rng = np.random.default_rng(0)
    corners, sizes = rng.uniform(0, 300, (boxes, 2)), rng.uniform(2, 170, (boxes, 2))
    columns = zip(np.concatenate([corners, sizes], 1).round(2).tolist(),
                  rng.integers(1, photos + 1, boxes).tolist(), rng.integers(1, 81, boxes).tolist())
    annotations = [
        dict(id=i, image_id=image, category_id=category, bbox=box,
             **({} if mended else dict(area=box[2] * box[3], iscrowd=0)))
        for i, (box, image, category) in enumerate(columns, 1)]
    images = [dict(id=i, file_name=f'{i:012}.jpg', width=640, height=480, license=1,
                   date_captured='2013-11-14 11:18:45') for i in range(1, photos + 1)]
    path.write_text(json.dumps(dict(
        info={}, licenses=[], images=images, annotations=annotations,
        categories=[dict(id=i, name=f'class {i}') for i in range(1, 81)])))


CHECK = """import sys, time
start = time.perf_counter(), time.process_time()
from projects.soco.annotations.copies import Use, settle
settle(sys.argv[1], Use(None, tuple(f'class {i}' for i in range(1, 81))), sys.argv[2])
peak = next(line for line in open('/proc/self/status') if line.startswith('VmHWM'))
print(time.perf_counter() - start[0], time.process_time() - start[1], int(peak.split()[1]) / 1e6)"""


def time_annotations(photos: int, boxes: int) -> Table:
    """Time the check of annotations: at first, and from the record by the file's hash."""
    table = Table('annotations', 'MB', '', 'seconds', 'CPU seconds', 'GB at most', box=None)
    with tempfile.TemporaryDirectory() as name:
        for what, mended in (('clean', False), ('without iscrowd and area', True)):
            path = Path(name) / f'{mended}.json'
            write_annotations(path, photos, boxes, mended)
            for turn in ('first', 'again'):
                done = subprocess.run(
                    [sys.executable, '-c', CHECK, str(path), f'{name}/work'], cwd=ROOT, check=True,
                    text=True, capture_output=True, env={**os.environ, 'PYTHONPATH': str(ROOT)})
                table.add_row(what, f'{path.stat().st_size / 1e6:.0f}', turn,
                              *(f'{float(value):.2f}' for value in done.stdout.split()))
    return table


def main() -> None:
    args = parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends what is timed, as Ctrl-C does
    if args.annotations:
        Console(markup=False).print(time_annotations(*args.annotations))
        return
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
    Console(markup=False).print(table)


if __name__ == '__main__':
    main()
