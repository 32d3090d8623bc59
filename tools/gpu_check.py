"""Check what this machine's GPU does with the project, and measure it, in a few minutes.

bash tools/gpu_check.sh --minutes 10
"""
from __future__ import annotations

import argparse
import platform
import signal
import sys
import tempfile
import time
from pathlib import Path

from projects.soco.launch.errors import run_tool

ROOT = Path(__file__).resolve().parents[1]


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog='gpu_check.sh', description=__doc__.splitlines()[0])
    parser.add_argument('--minutes', type=float, help='time of the whole check; each part has its '
                        'share as a limit (default 10, on a CPU 30)')
    parser.add_argument('--device', choices=['cuda', 'cpu'], default='cuda', help='default: cuda')
    parser.add_argument('--tiny', action='store_true', help="use the quickstart's networks and batches "
                        'of 2 and 4, to try the check itself')
    parser.add_argument('--out', type=Path, default=Path('gpu_check.json'), metavar='FILE',
                        help='file of the figures, written after each part (default gpu_check.json)')
    args = parser.parse_args()
    if args.minutes is None:
        args.minutes = 10 if args.device == 'cuda' else 30
    if args.minutes <= 0:
        parser.error('--minutes must be positive')
    return args


def describe_machine(device: str) -> dict[str, str]:
    """Return what the machine is, or raise an error if it has no such device."""
    import torch
    if device == 'cuda' and not torch.cuda.is_available():
        raise ValueError('There is no CUDA device here that this torch can use. To try the check '
                         'without one: bash tools/gpu_check.sh --device cpu --tiny')
    return dict(device=device, name=torch.cuda.get_device_name() if device == 'cuda' else
                platform.processor() or 'CPU', torch=torch.__version__, date=time.strftime('%Y-%m-%d'))


def main() -> None:
    args = parse_args()
    machine = describe_machine(args.device)

    from rich.console import Console
    from rich.table import Table

    from projects.soco.evaluation.gpu_check import (
        FAILED,
        LATE,
        count_photos,
        make_photos,
        plan_parts,
        run_parts,
    )
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends the part that runs, as Ctrl-C does
    console = Console(markup=False)
    console.print(f'{machine["name"]}, torch {machine["torch"]}; figures: {args.out}')
    with tempfile.TemporaryDirectory(prefix='soco_gpu_check_') as folder:
        make_photos(Path(folder), count_photos(args.tiny))
        parts = plan_parts(ROOT, Path(folder), args.device, args.tiny)
        try:
            rows = run_parts(parts, ROOT, Path(folder), args.minutes, args.out.resolve(), machine,
                             console.print)
        except KeyboardInterrupt:
            console.print(f'Stopped; {args.out} has the parts before this one.')
            sys.exit(130)
    table = Table(box=None)
    for name in ('part', 'state', 's', 'found'):
        table.add_column(name, overflow='fold')
    for row in rows:
        found = ', '.join(f'{key}: {value}' for key, value in row['figures'].items()
                          if not isinstance(value, dict))
        table.add_row(row['name'], row['state'], f'{row["seconds"]:.0f}', found or row['output'])
    console.print(table)
    bad = [row['name'] for row in rows if row['state'] in (FAILED, LATE)]
    if bad:
        raise ValueError(f'{len(bad)} of {len(rows)} parts did not end well: {"; ".join(bad)}. The '
                         f'ends of their outputs are in {args.out}.')


if __name__ == '__main__':
    run_tool(main)
