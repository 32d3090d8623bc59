"""Time training steps on 1, 2, ... processes of this machine: efficiency, communication, data path.

    python tools/benchmark_scaling.py configs/soco_r50_fpn_400e.py --ranks 1 2 --images PHOTOS

The work per process is constant. Rounds of all numbers of processes are interleaved, and medians are
reported. Each process uses one CUDA device, or the CPU if there is none.
"""
import argparse
import json
import multiprocessing
import os
import socket
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import track
from rich.table import Table

from projects.soco.launch.arguments import hide_devices
from projects.soco.launch.errors import run_tool


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('config', help='pretraining config')
    parser.add_argument('--ranks', type=int, nargs='+', default=[1, 2], help='numbers of processes')
    parser.add_argument('--batch', type=int, default=8, help='images per process and step')
    parser.add_argument('--steps', type=int, default=5, help='timed steps per round')
    parser.add_argument('--rounds', type=int, default=3, help='rounds of all numbers of processes')
    parser.add_argument('--threads', type=int, default=1, help='BLAS threads per process (CPU)')
    parser.add_argument('--images', help='photos (folder, zip or tar), to also measure with the data '
                        'path')
    parser.add_argument('--proposals', help='proposal store of the photos; required with --images')
    parser.add_argument('--workers', type=int, default=0, help='data workers per process')
    parser.add_argument('--device', choices=['cpu', 'cuda'], help='default: cuda if available')
    parser.add_argument('--json', type=Path, help='also write all figures to this file')
    args = parser.parse_args()
    if args.device == 'cpu':
        hide_devices()
    if bool(args.images) != bool(args.proposals):
        parser.error('--images and --proposals belong together. To make the store: python '
                     'tools/generate_proposals.py IMAGES STORE.arrow')
    if min(args.ranks) < 1 or args.steps < 1 or args.rounds < 1 or args.batch < 2:
        parser.error('--ranks, --steps and --rounds must be at least 1, --batch at least 2')
    return args


class Trainer:
    """The model, optimiser and training step of one process.

    Args:
        args (argparse.Namespace): Arguments of the tool.
        world (int): Number of processes.
    """

    def __init__(self, args: argparse.Namespace, world: int) -> None:
        import torch
        from mmengine.model import MMDistributedDataParallel
        from mmengine.optim import build_optim_wrapper
        from mmengine.registry import MODELS, init_default_scope

        import projects.soco.compat  # noqa: F401  (before anything of OpenMMLab)
        from projects.soco.launch.configs import load_config
        self.args, self.world = args, world
        self.cfg = load_config(args.config, {}, cpu=args.device == 'cpu')
        init_default_scope(self.cfg.default_scope)
        torch.manual_seed(0)
        self.model = MODELS.build(self.cfg.model).to(args.device).train()
        self.momentum_update = self.model.momentum_update
        self.wrapper = build_optim_wrapper(self.model, self.cfg.optim_wrapper)
        if world > 1:  # without device ids, as in training: the boxes stay on the CPU, nothing waits
            self.model = MMDistributedDataParallel(
                self.model, device_ids=None, broadcast_buffers=False)

    def step(self, batch: dict, synchronise: bool = True) -> None:
        """Run one step: target update, preprocessor, forward, backward, all-reduce, optimiser.

        Args:
            batch (dict): A collated batch.
            synchronise (bool): Whether to average gradients over processes. Defaults to True.
        """
        self.momentum_update(0.99)
        alone = self.world == 1 or synchronise
        with nullcontext() if alone else self.model.no_sync():
            self.model.train_step(batch, optim_wrapper=self.wrapper)
        if self.args.device == 'cuda':
            import torch
            torch.cuda.synchronize()

    def made_up(self) -> Iterator[dict]:
        """Yield the same batch of noise endlessly, in the format of the data path."""
        from projects.soco.evaluation.step import made_up_data
        batch = made_up_data(self.cfg, self.args.batch)
        while True:
            yield batch

    def loaded(self) -> Iterator[dict]:
        """Yield batches of the data path endlessly."""
        from mmengine.runner import Runner
        loader_cfg = self.cfg.train_dataloader
        loader_cfg.dataset.update(data_root=self.args.images, proposals=self.args.proposals)
        loader_cfg.update(batch_size=self.args.batch, num_workers=self.args.workers,
                          persistent_workers=self.args.workers > 0,
                          pin_memory=self.args.device == 'cuda')
        loader_cfg.batch_sampler = dict(type='ResumableBatchSampler')
        loader = Runner.build_dataloader(loader_cfg, seed=0)
        while True:
            yield from loader


def time_steps(trainer: Trainer, batches: Iterator[dict], steps: int, **kwargs: Any) -> list[float]:
    """Measure the seconds of each step, including the wait for data, after two warm-up steps."""
    seconds = []
    for _ in range(steps + 2):
        if trainer.world > 1:
            from torch import distributed
            distributed.barrier()
        start = time.perf_counter()
        trainer.step(next(batches), **kwargs)
        seconds.append(time.perf_counter() - start)
    return seconds[2:]


def work(rank: int, world: int, args: argparse.Namespace, port: int, out: str) -> None:
    """Time the steps in one process; the first process writes the medians."""
    import torch
    from torch import distributed
    torch.set_num_threads(args.threads)
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(world),
                      MASTER_ADDR='127.0.0.1', MASTER_PORT=str(port))
    if args.device == 'cuda':
        torch.cuda.set_device(rank)
    if world > 1:
        distributed.init_process_group('nccl' if args.device == 'cuda' else 'gloo')
    trainer = Trainer(args, world)
    modes: dict[str, Callable] = dict(
        step=lambda: time_steps(trainer, trainer.made_up(), args.steps),
        alone=lambda: time_steps(trainer, trainer.made_up(), args.steps, synchronise=False))
    if args.images:
        modes['data'] = lambda: time_steps(trainer, trainer.loaded(), args.steps)
    medians = {name: statistics.median(run()) for name, run in modes.items()}
    if rank == 0:
        Path(out).write_text(json.dumps(medians))
    if world > 1:
        distributed.destroy_process_group()


def run_round(args: argparse.Namespace, world: int) -> dict[str, float]:
    """Return the median seconds per step of each mode, measured in new processes."""
    with socket.socket() as sock:
        sock.bind(('127.0.0.1', 0))
        port = sock.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        out = f'{folder}/medians.json'
        from torch.multiprocessing import start_processes
        # A fork server imports everything once; on a GPU, the imports would spoil CUDA for its forks.
        start_processes(work, (world, args, port, out), nprocs=world,
                        start_method='spawn' if args.device == 'cuda' else 'forkserver')
        return json.loads(Path(out).read_text())


def main() -> None:
    args = parse_args()
    from projects.soco.launch.configs import load_config
    load_config(args.config, {}, register=False)  # refuses what cannot be read
    import torch
    args.device = args.device or ('cuda' if torch.cuda.is_available() else 'cpu')
    if args.device == 'cuda' and max(args.ranks) > torch.cuda.device_count():
        raise ValueError(f'--ranks {max(args.ranks)}: found {torch.cuda.device_count()} CUDA devices.')
    multiprocessing.set_forkserver_preload(['__main__', 'projects.soco.evaluation.step'])
    console = Console(markup=False)
    rounds: dict[int, list[dict[str, float]]] = {world: [] for world in sorted({1, *args.ranks})}
    for _ in track(range(args.rounds), 'rounds', console=console, transient=True):
        for world in rounds:
            rounds[world].append(run_round(args, world))
    seconds = {world: {mode: statistics.median(r[mode] for r in results) for mode in results[0]}
               for world, results in rounds.items()}
    table = Table(title=f'{args.config}, {args.device}, batch {args.batch} per process, '
                  f'{args.threads} threads, medians of {args.rounds} × {args.steps} steps', box=None)
    for column in ('processes', 'images/s', 'efficiency', 'communication', 'with data, images/s',
                   'efficiency'):
        table.add_column(column, justify='right')
    figures = []
    for world, taken in seconds.items():
        # The time of a step without gradient averaging is the process's own work.
        communication = max(0., taken['step'] - taken['alone']) if world > 1 else 0.
        row = dict(processes=world, seconds=taken, communication=communication / taken['step'])
        for mode in ('step', 'data'):
            if mode in taken:
                row[f'{mode}_rate'] = world * args.batch / taken[mode]
                row[f'{mode}_efficiency'] = seconds[1][mode] / taken[mode]
        figures.append(row)
        table.add_row(
            str(world), f'{row["step_rate"]:.2f}', f'{row["step_efficiency"]:.0%}',
            f'{1000 * communication:.0f} ms, {row["communication"]:.0%}',
            *((f'{row["data_rate"]:.2f}', f'{row["data_efficiency"]:.0%}') if args.images else ()))
    console.print(table)
    if args.json:
        args.json.write_text(json.dumps(dict(arguments={k: str(v) for k, v in vars(args).items()},
                                             figures=figures), indent=2))
        console.print(f'All figures are in {args.json}')


if __name__ == '__main__':
    run_tool(main)
