#!/usr/bin/env python
"""Measure the speed of selective search and of the store against other implementations and json.

pip install -r requirements/benchmark.txt
OMP_NUM_THREADS=1 python tools/benchmark_proposals.py IMAGES
"""
import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

BOXES = 35


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description='Compare the speed of selective search with that of other implementations, and '
                    'the store with json.')
    parser.add_argument('images', help='folder of photos (or list, zip, tar)')
    parser.add_argument('--limit', type=int, default=12, help='number of photos (default: 12)')
    parser.add_argument('--repeats', type=int, default=5,
                        help='runs per photo, of which the median is reported (default: 5)')
    parser.add_argument('--scaling-images', type=int, default=400,
                        help='images per run of the scaling measurement (default: 400; 0: none)')
    parser.add_argument('--store-rows', type=int, nargs='*', default=[10_000, 100_000, 1_280_000],
                        help='numbers of rows of the generated stores')
    parser.add_argument('--json-rows', type=int, default=100_000,
                        help='largest number of rows for which a json is made for comparison')
    return parser.parse_args()


def timed(function: Callable, *args: Any) -> float:
    start = time.perf_counter()
    function(*args)
    return 1000 * (time.perf_counter() - start)


def search_functions() -> dict[str, Callable]:
    from projects.soco.proposals.selective_search import selective_search
    functions = dict(ours=selective_search)
    try:
        from skimage.segmentation import felzenszwalb
        functions['scikit-image felzenszwalb alone'] = lambda image: felzenszwalb(
            image / 255., scale=300, sigma=0.9, min_size=100)
    except ImportError:
        print('scikit-image is missing: pip install -r requirements/benchmark.txt')
    try:
        from selectivesearch import selective_search as python_search
        functions['selectivesearch 0.4'] = lambda image: python_search(
            image, scale=300, sigma=0.9, min_size=100)
    except ImportError:
        print('selectivesearch is missing: pip install -r requirements/benchmark.txt')
    return functions


def compare(images: list, repeats: int) -> None:
    functions = search_functions()
    times = {name: [] for name in functions}
    for image in images:
        taken = {name: [] for name in functions}
        for repeat in range(repeats):
            for name, function in functions.items():
                if name == 'ours' or repeat < max(1, repeats // 2):
                    taken[name].append(timed(function, image))
        for name in functions:
            times[name].append(statistics.median(taken[name]))
    ours = statistics.mean(times['ours'])
    print(f'\none core, {len(images)} photos, decoding and compilation excluded:')
    for name, values in times.items():
        mean = statistics.mean(values)
        print(f'  {name:32} {mean:8.1f} ms per photo   {mean / ours:5.1f} × ours')


def stages(images: list, repeats: int) -> None:
    import numpy as np

    from projects.soco.proposals import grouping
    from projects.soco.proposals import segmentation as seg
    taken: dict[str, list[float]] = {}

    def stage(name: str, function: Callable, *args: Any) -> Any:
        runs = []
        for _ in range(repeats):
            start = time.perf_counter()
            result = function(*args)
            runs.append(1000 * (time.perf_counter() - start))
        taken.setdefault(name, []).append(statistics.median(runs))
        return result

    for image in images:
        height, width = image.shape[:2]
        blurred = stage('blur', seg.blur, image, seg.gaussian_weights(0.9))
        costs = stage('edge costs', seg.edge_costs, blurred)
        parents = stage('sort and union-find', seg.grow_forest, costs, blurred, 300. / 255., 100,
                        seg.edge_scratch(height * width))
        labels, count = stage('number labels', seg.number_labels, parents, height, width)
        value = stage('value channel', grouping.brightest_channel, image)
        described = stage('patterns and histograms', grouping.describe_segments, image, value,
                          labels, count)
        pairs = stage('neighbours', grouping.nested_pairs, described[0])
        stage('merging', grouping.group, *described, pairs, grouping.COLOUR_BINS, 2., labels.size)
    print('\nours, stage by stage:')
    for name, values in taken.items():
        print(f'  {name:32} {np.mean(values):8.2f} ms per photo')


def scaling(args: argparse.Namespace) -> None:
    from projects.soco.proposals.executors import ProcessExecutor
    from projects.soco.proposals.generate import Chunk, GenerateOptions, propose_chunk
    from projects.soco.proposals.sources import open_source
    source = open_source(args.images)
    names = source.names()[:args.limit]
    names = (names * (args.scaling_images // len(names) + 1))[:args.scaling_images]
    chunks = [Chunk(source.select(names[i:i + 4]), names[i:i + 4], GenerateOptions())
              for i in range(0, len(names), 4)]
    print(f'\nall steps (read, decode, search, filter), {len(names)} images, median of 5 runs:')
    rates = {}
    everyone = sorted({1, 2, os.cpu_count()})
    runs = {workers: [] for workers in everyone}
    for _ in range(5):
        for workers in everyone:
            executor = ProcessExecutor(workers, ['projects.soco.proposals.generate'])
            results = executor.run(propose_chunk, chunks[:2 * workers] + chunks)
            for _ in range(2 * workers):
                next(results)
            start = time.perf_counter()
            done = sum(len(result) for _, result in results)
            runs[workers].append(done / (time.perf_counter() - start))
    for workers in everyone:
        rates[workers] = statistics.median(runs[workers])
        print(f'  {workers} workers: {rates[workers]:7.1f} images/s, '
              f'{rates[workers] / rates[1]:.2f} × one')


def write_store(path: Path, rows: int) -> None:
    import numpy as np

    from projects.soco.proposals import StoreWriter
    rng = np.random.default_rng(0)
    metadata = dict(generator=dict(name='benchmark', version=1), rules=['random'])
    with StoreWriter(path, metadata) as writer:
        for row in range(rows):
            corners = rng.integers(0, 300, (BOXES, 4), dtype=np.uint16)
            writer.add(f'n{row // 1300:08d}/n{row // 1300:08d}_{row:07d}.JPEG', 500, 375, corners,
                       'random')


MEASURE = """
import json, random, sys, time
def memory():
    with open('/proc/self/smaps_rollup') as file:
        values = dict(line.split()[:2] for line in file if line[0] not in '0123456789abcdef')
    return int(values['Anonymous:']) / 1024, int(values['Rss:']) / 1024
path, n = sys.argv[2], int(sys.argv[3])
rng = random.Random(0)
rows = [rng.randrange(n) for _ in range(100000)]
if sys.argv[1] == 'store':
    from projects.soco.proposals import ProposalStore
else:
    import numpy as np
before = memory()
start = time.perf_counter()
if sys.argv[1] == 'store':
    opened = ProposalStore.open(path)
    seconds = time.perf_counter() - start
else:
    with open(path) as file:
        opened = json.load(file)
    seconds = time.perf_counter() - start
    names = list(opened)
after = memory()
start = time.perf_counter()
if sys.argv[1] == 'store':
    for row in rows:
        opened[row]
else:
    for row in rows:
        np.array(opened[names[row]], dtype=np.float32)
rate = len(rows) / (time.perf_counter() - start)
end = memory()
print(json.dumps(dict(open_s=seconds, anonymous=after[0] - before[0], rate=rate,
                      anonymous_read=end[0] - before[0], rss_read=end[1] - before[1])))
"""


def measure_file(kind: str, path: Path, rows: int) -> None:
    environment = dict(os.environ, PYTHONPATH=str(Path(__file__).resolve().parents[1]))
    done = subprocess.run([sys.executable, '-c', MEASURE, kind, str(path), str(rows)],
                          capture_output=True, text=True, env=environment, check=True)
    values = json.loads(done.stdout)
    print(f'  {rows:9,d} rows, {kind:5}: {path.stat().st_size / 1e6:7.1f} MB, opens in '
          f'{values["open_s"]:8.4f} s, adds {values["anonymous"]:7.1f} MiB of private memory to a '
          f'process ({values["anonymous_read"]:.1f} after the reads, {values["rss_read"]:.1f} '
          f'with shared pages), {values["rate"]:9,.0f} random reads/s')


def files(args: argparse.Namespace) -> None:
    from projects.soco.proposals import ProposalStore
    from projects.soco.proposals.formats import export_official
    print(f'\nstore and official json of the same boxes ({BOXES} per image), '
          f'100,000 random reads in a new process:')
    with tempfile.TemporaryDirectory() as folder:
        for rows in args.store_rows:
            path = Path(folder) / 'store.arrow'
            write_store(path, rows)
            measure_file('store', path, rows)
            if rows <= args.json_rows:
                export_official(ProposalStore.open(path), path.with_suffix('.json'))
                measure_file('json', path.with_suffix('.json'), rows)


def run(args: argparse.Namespace) -> None:
    from projects.soco.proposals.images import decode_image
    from projects.soco.proposals.selective_search import compile_kernels
    from projects.soco.proposals.sources import open_source
    warnings.simplefilter('ignore')
    source = open_source(args.images)
    images = [decode_image(source.read_bytes(name)) for name in source.names()[:args.limit]]
    if not images:
        raise ValueError(f'there are no images in {args.images}.')
    print(f'kernels compiled or loaded from the cache in {compile_kernels():.1f} s')
    compare(images, args.repeats)
    stages(images, args.repeats)
    if args.scaling_images:
        scaling(args)
    if args.store_rows:
        files(args)


def main() -> int:
    args = parse_args()
    try:
        run(args)
    except (ValueError, OSError) as error:
        print(f'error: {error}', file=sys.stderr)
        return 2
    return 0


if __name__ == '__main__':
    sys.exit(main())
