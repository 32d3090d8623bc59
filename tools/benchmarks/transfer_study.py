"""Compare pretraining methods with the same photos, budget and detector, over several seeds.

    python tools/benchmarks/transfer_study.py configs/benchmarks/transfer_study/study_cpu.py --data DIR

Each result is written as soon as it is available. To resume a study that was stopped, run the same
command again. At the end, tables and a picture are written. See docs/results/transfer_study.md.
"""
from __future__ import annotations

import argparse
import hashlib
import math
import signal
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from projects.soco.launch.errors import STOPPED, run_tool

if TYPE_CHECKING:
    from projects.soco.study.plan import Study
    from projects.soco.study.records import Records

console = Console(highlight=False)


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('study', help='config of a study, see configs/benchmarks/transfer_study')
    parser.add_argument('--data', metavar='DIR', help="folder that the study's paths are relative to; "
                        'it contains photos, and COCO annotations with their photos')
    parser.add_argument('--weights', metavar='FILE', help='weights that methods and arms with '
                        'weights=True start from (tools/benchmarks/imagenet_lite0.py)')
    parser.add_argument('--work-dir', metavar='DIR', help='folder for runs and results (default: '
                        'work_dirs/<name of the study>)')
    parser.add_argument('--minutes', type=float, metavar='M', help='stop after M minutes with a '
                        'checkpoint of each running job and exit code 75 (default: no limit)')
    parser.add_argument('--plan', action='store_true', help='list all jobs, mark the finished ones, '
                        'and exit')
    parser.add_argument('--tables', action='store_true', help='write tables and picture of the '
                        'available results, and exit')
    return parser.parse_args()


def hash_of(path: str) -> str:
    """Return a hash of 12 hex digits of a file."""
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()[:12]


def summarise(study: Study, records: Records, folder: Path) -> None:
    """Compare the arms, and write tables and picture."""
    from projects.soco.study.summary import compare, draw, write_tables
    records.set('arms', {name: asdict(arm) for name, arm in study.arms.items()})
    records.set('comparisons', compare(study, records))
    tables = write_tables(records.content, folder / 'tables.md')
    picture = draw(records.content, folder / 'transfer_study.png')
    console.print(tables.read_text(), soft_wrap=True)
    for what, path in (('results', records.path), ('tables', tables), ('picture', picture)):
        if path:
            console.print(f'{what:8} {path}', soft_wrap=True)


def main() -> None:
    args = parse_args()
    if args.minutes is not None and args.minutes <= 0:
        raise ValueError(f'--minutes must be more than 0, not {args.minutes}.')
    deadline = time.monotonic() + 60 * (args.minutes or math.inf)
    from projects.soco.launch.checks import check_work_dir
    from projects.soco.study.plan import read_study
    from projects.soco.study.records import Records, read_records
    study = read_study(args.study)
    folder = Path(args.work_dir or f'work_dirs/{study.name}')
    if args.plan:
        path = folder / 'results.json'
        done = read_records(path)['records'] if path.is_file() else {}
        for job in study.jobs():
            console.print(f'{"done" if job.key in done else "    "} {job.key}')
        return
    if args.tables:
        read_records(folder / 'results.json')
        return summarise(study, Records(folder / 'results.json', {}), folder)
    if not args.data:
        raise ValueError("A study needs its data. Set --data DIR to the folder that the study's paths "
                         'are relative to.')
    if study.needs_weights and not args.weights:
        raise ValueError(f'{args.study} has arms that start from weights. Set --weights FILE.')
    check_work_dir(folder)

    from projects.soco.study.data import StudyData
    data = StudyData(study, args.data, folder / 'data')
    data.prepare()

    from projects.soco.runs.record import describe_hardware
    from projects.soco.study.run import StudyRun
    records = Records(folder / 'results.json', dict(
        study=study.name, seeds=list(study.seeds), epochs=study.epochs, settings=study.fingerprint(),
        data=data.fingerprint(), **({'weights': hash_of(args.weights)} if args.weights else {})))
    data.generate_stores()
    records.set('machine', describe_hardware())
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        whole = StudyRun(study, data, records, folder, console, args.weights).run(deadline)
    except KeyboardInterrupt:
        console.print('Stopped; running jobs wrote a checkpoint. Run the same command to continue.')
        sys.exit(130)
    if not whole:
        console.print('Stopped after --minutes. Run the same command to continue.')
        sys.exit(STOPPED)
    summarise(study, records, folder)


if __name__ == '__main__':
    run_tool(main)
