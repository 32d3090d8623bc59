"""Time the data path of a config: images/s per core, by stage, compared with the official style.

    OMP_NUM_THREADS=1 python tools/benchmark_data.py configs/soco_r50_fpn_100e.py --images PHOTOS

All contenders run in this process with one thread, alternating, and medians are reported. The official
style (PIL and torchvision, all in the worker) is tests/official_data.py.
"""
from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from contextlib import ExitStack
from io import BytesIO
from itertools import cycle, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table

from projects.soco.launch.errors import run_tool

if TYPE_CHECKING:
    from mmengine.config import Config

    from projects.soco.datasets import SampleKey, SoCoDataset
    from projects.soco.models import SoCoDataPreprocessor

TESTS = Path(__file__).resolve().parents[1] / 'tests'
OFFICIAL, DEVICE, WORKER = 'official style', 'colours on the device', 'everything in the worker'


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('config', help='pretraining config')
    parser.add_argument('--images', help="photos: folder, zip or tar (default: the config's)")
    parser.add_argument('--proposals', help='proposal store of the photos (default: random boxes with '
                        "--images, else the config's)")
    parser.add_argument('--photos', type=int, default=48, help='photos per round (default 48)')
    parser.add_argument('--rounds', type=int, default=9, help='rounds of all contenders (default 9)')
    parser.add_argument('--batch', type=int, default=16, help='photos per batch (default 16)')
    parser.add_argument('--workers', type=int, nargs='*', default=[], help='also measure data loaders '
                        'with these numbers of worker processes; 0 is this process')
    parser.add_argument('--json', type=Path, metavar='OUT', help='also write all figures to this file')
    args = parser.parse_args()
    if min(args.photos, args.rounds, args.batch) < 1 or min(args.workers, default=0) < 0:
        parser.error('--photos, --rounds and --batch must be at least 1, --workers at least 0')
    return args


def write_random_store(images: str, count: int, path: Path) -> None:
    """Write a store with 35 boxes of 0.3 to 0.8 of each side for `count` evenly spaced photos."""
    from projects.soco.proposals.images import image_size
    from projects.soco.proposals.sources import open_source
    from projects.soco.proposals.store import StoreWriter
    source, rng = open_source(images), np.random.default_rng(0)
    names = source.names()
    if not names:
        raise ValueError(f'There are no photos in {images}.')
    rows = np.unique(np.linspace(0, len(names) - 1, num=count).astype(int))
    with StoreWriter(path, dict(rules=['random'])) as writer:
        for name in (names[row] for row in rows):
            size = np.array(image_size(BytesIO(source.read_bytes(name))))
            side = (rng.uniform(0.3, 0.8, (35, 2)) * size).astype(int)
            corner = (rng.random((35, 2)) * (size - side)).astype(int)
            writer.add(name, *size.tolist(), np.concatenate([corner, side], axis=1), 'random')


def build_official(cfg: Config) -> Any:
    """Build the data set of the same recipe in the official style."""
    if not (TESTS / 'official_data.py').is_file():
        raise FileNotFoundError(f'There is no {TESTS / "official_data.py"}. Run this tool from a '
                                'checkout of the repository.')
    sys.path.insert(0, str(TESTS))
    from official_data import official_data
    return official_data(cfg)


class Stages:
    """Sums of seconds between calls, by name."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self.last = time.perf_counter()

    def end(self, name: str) -> None:
        """Add the seconds since the last call to a stage."""
        now = time.perf_counter()
        self.seconds[name] += now - self.last
        self.last = time.perf_counter()


def run_stages(dataset: SoCoDataset, preprocessor: SoCoDataPreprocessor,
               batches: list[list[SampleKey]]) -> dict[str, float]:
    """Measure the seconds of each stage of the data path."""
    from torch.utils.data import default_collate

    from projects.soco.datasets import ProposalViews
    from projects.soco.datasets.transforms import cut_view
    stages = Stages()
    for batch in batches:
        samples = []
        for key in batch:
            results = dataset.read(key)
            stages.end('read')
            for transform in dataset.pipeline.transforms:
                if isinstance(transform, ProposalViews):
                    windows, flips, results['bboxes'] = transform.choose(results)
                    stages.end('windows and boxes')
                    results.update(views=[], policy=transform.policy,
                                   finest_levels=transform.finest_levels)
                    for v, view in enumerate(transform.views):
                        results['views'].append(cut_view(results['img'], windows[v], view['size'],
                                                         flips[v], results['reduction']))
                        stages.end(f'cut and resize view {v + 1}')
                else:
                    results = transform(results)
                    stages.end(type(transform).__name__)
            samples.append(results)
        data = default_collate(samples)
        stages.end('collate')
        preprocessor(data, training=True)
        stages.end('colours on the CPU')
    return stages.seconds


def make_contenders(official: Any, dataset: SoCoDataset, preprocessor: SoCoDataPreprocessor,
                    batches: list[list[SampleKey]]) -> dict[str, Callable[[], None]]:
    """Return functions that pass over the batches in three ways; only the last one collates."""

    def run_official() -> None:
        for key in sum(batches, []):
            official[key.index]

    def run_device() -> None:
        for key in sum(batches, []):
            dataset[key]

    def run_worker() -> None:
        from torch.utils.data import default_collate
        for batch in batches:
            preprocessor(default_collate([dataset[key] for key in batch]), training=True)

    return {OFFICIAL: run_official, DEVICE: run_device, WORKER: run_worker}


def measure_rates(contenders: dict, photos: int, rounds: int, console: Console) -> dict[str, list]:
    """Measure the images/s of each contender in each round, after one warm-up round."""
    rates: dict[str, list] = {name: [] for name in contenders}
    for turn in track(range(rounds + 1), 'contenders', console=console, transient=True):
        for name, function in contenders.items():
            start = time.perf_counter()
            function()
            if turn:
                rates[name].append(photos / (time.perf_counter() - start))
    return rates


def measure_workers(dataset: SoCoDataset, batches: list[list[SampleKey]], workers: list[int],
                    rounds: int, console: Console) -> dict[int, float]:
    """Measure the images/s of loaders by their number of workers; all exist, one runs at a time."""
    from torch.utils.data import DataLoader
    batches = list(islice(cycle(batches), max(len(batches), 8 * max(workers, default=0))))
    rates: dict[int, list] = {}
    loaders = {count: DataLoader(dataset, batch_sampler=batches, num_workers=count,
                                 persistent_workers=count > 0) for count in workers}
    for turn in track(range(rounds + 1), 'workers', console=console, transient=True):
        for count, loader in loaders.items():
            start = time.perf_counter()
            photos = sum(len(data['bboxes']) for data in loader)
            if turn:
                rates.setdefault(count, []).append(photos / (time.perf_counter() - start))
    return {count: statistics.median(values) for count, values in rates.items()}


def print_figures(console: Console, figures: dict) -> None:
    table = Table(box=None, title=f'{figures["photos"]} photos per round, one thread, medians')
    for column in ('', 'images/s per core', 'times the official style'):
        table.add_column(column, justify='right' if column else 'left')
    for name, row in figures['contenders'].items():
        table.add_row(name, f'{row["rate"]:.0f}', f'{row["ratio"]:.2f}')
    console.print(table)
    table = Table(box=None)
    for column in ('stage', 'ms per image'):
        table.add_column(column, justify='right' if column != 'stage' else 'left')
    for name, value in figures['stages'].items():
        table.add_row(name, f'{value:.3f}')
    console.print(table)
    for count, rate in figures['workers'].items():
        console.print(f'{count} workers: {rate:.0f} images/s')


def main() -> None:
    args = parse_args()
    from projects.soco.launch.configs import load_config, register_modules
    cfg = load_config(args.config, {}, register=False)

    import cv2
    import torch
    from mmengine.registry import init_default_scope
    from mmselfsup.registry import DATASETS, MODELS

    import projects.soco.compat  # noqa: F401  (before anything of OpenMMLab)
    from projects.soco.datasets import SampleKey
    register_modules(cfg)
    torch.set_num_threads(1)
    cv2.setNumThreads(0)
    torch.manual_seed(0)
    console = Console(markup=False)
    init_default_scope(cfg.default_scope)
    settings = cfg.train_dataloader.dataset
    with ExitStack() as stack:
        if args.images:
            settings.data_root = args.images
        if args.proposals:
            settings.proposals = args.proposals
        elif args.images:
            folder = stack.enter_context(tempfile.TemporaryDirectory())
            settings.proposals = os.path.join(folder, 'random.arrow')
            write_random_store(args.images, args.photos, Path(settings.proposals))
        dataset = DATASETS.build(settings)
        preprocessor = MODELS.build(cfg.model.data_preprocessor)
        rows = np.linspace(0, len(dataset.store) - 1, num=min(args.photos, len(dataset.store)))
        keys = [SampleKey(int(row), epoch) for epoch, row in
                enumerate(islice(cycle(rows), args.photos))]
        batches = [keys[i:i + args.batch] for i in range(0, len(keys), args.batch)]
        contenders = make_contenders(build_official(cfg), dataset, preprocessor, batches)
        rates = measure_rates(contenders, len(keys), args.rounds, console)
        stages = [run_stages(dataset, preprocessor, batches) for _ in range(args.rounds)]
        workers = measure_workers(dataset, batches, args.workers, args.rounds, console)
    figures = dict(
        config=args.config, machine=f'{platform.machine()}, {os.cpu_count()} cores',
        date=time.strftime('%Y-%m-%d'), photos=len(keys), rounds=args.rounds,
        contenders={name: dict(
            rate=statistics.median(values), rates=values,
            ratio=statistics.median(a / b for a, b in zip(values, rates[OFFICIAL])))
            for name, values in rates.items()},
        stages={name: 1000 * statistics.median(run[name] for run in stages) / len(keys)
                for name in stages[0]},
        workers=workers)
    print_figures(console, figures)
    if args.json:
        args.json.write_text(json.dumps(figures, indent=2))
        console.print(f'All figures are in {args.json}')


if __name__ == '__main__':
    run_tool(main)
