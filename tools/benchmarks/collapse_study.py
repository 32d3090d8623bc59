"""Find out what makes features collapse: short pretraining runs that change one factor at a time.

    python tools/benchmarks/collapse_study.py configs/benchmarks/collapse_study/study_cpu.py --data DIR

Each result is written as soon as it is available; the same command continues a study that was stopped.
At the end, a table and a picture are written. See docs/results/collapse.md.
"""
from __future__ import annotations

import argparse
import json
import shutil
import signal
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor, as_completed
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.console import Console

from projects.soco.files import write_whole
from projects.soco.launch.errors import STOPPED, Stopped, run_tool
from projects.soco.runs.follow import DivergedError, run_training

if TYPE_CHECKING:
    from mmengine.config import Config

    from projects.soco.datasets.dataset import SoCoDataset
    from projects.soco.models.soco import SoCo
    from projects.soco.study.records import Records

POINTS = (150, 300)  # iterations of fine-tuning to report
CURVES = ('obj_rank', 'proj_rank', 'loss', 'obj_std')
console = Console(highlight=False, markup=False)


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('study', help='config of a study, see configs/benchmarks/collapse_study')
    parser.add_argument('--data', type=Path, metavar='DIR',
                        help="folder that the study's paths are relative to")
    parser.add_argument('--weights', type=Path, metavar='FILE', help='ImageNet weights for the runs '
                        'that start from them (tools/benchmarks/imagenet_lite0.py)')
    parser.add_argument('--work-dir', type=Path, metavar='DIR', help='folder for runs and results '
                        '(default: work_dirs/<name of the study>)')
    parser.add_argument('--only', nargs='+', metavar='RUN', help='run these only')
    parser.add_argument('--detectors', nargs='+', type=Path, metavar='RESULTS', help='records of '
                        'detectors, docs/results/collapse_cards.json and collapse_bccd.json: write '
                        'their table and picture, and exit')
    parser.add_argument('--tables', action='store_true', help='write table and picture of the '
                        'available results, and exit')
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    if not Path(args.study).is_file():
        raise FileNotFoundError(f'There is no study at {args.study}. The studies are in '
                                'configs/benchmarks/collapse_study/.')
    from mmengine.config import Config

    from projects.soco.launch.checks import check_work_dir
    from projects.soco.study.records import Records, read_records
    study = Config.fromfile(args.study).study
    folder = (args.work_dir or Path('work_dirs') / study.name).resolve()
    if args.detectors:
        return compare_detectors([read_records(path) for path in args.detectors], folder)
    if args.tables:
        return summarise(read_records(folder / 'results.json'), folder)
    if args.data is None:
        raise ValueError("A study needs its data. Set --data DIR to the folder that the study's paths "
                         'are relative to.')
    unknown = set(args.only or ()) - set(study.runs)
    if unknown:
        raise ValueError(f'{args.study} has no run {", ".join(sorted(unknown))}; it has '
                         f'{", ".join(study.runs)}.')
    check_work_dir(folder)
    records = Records(folder / 'results.json', dict(study=study.name, base=study.base, data=study.data))
    names = [name for name in args.only or study.runs if name not in records]
    without = [name for name in names if study.runs[name].get('weights') and not args.weights]
    if without:
        raise ValueError(f'The runs {", ".join(without)} start from ImageNet weights. Set --weights '
                         'FILE, or name the other runs with --only.')

    import torch

    from projects.soco.runs.record import describe_hardware
    records.set('machine', describe_hardware())
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    torch.set_num_threads(1)  # the trainings have the other cores
    stop, computing = threading.Event(), threading.Lock()
    befores: dict[str, tuple] = {}
    make_store(args.data, study.data, None, folder)
    with ThreadPoolExecutor(study.workers) as pool:
        jobs = {pool.submit(run, study, name, args, folder, records, stop, computing, befores): name
                for name in names}
        try:
            for done, job in enumerate(as_completed(jobs), len(study.runs) - len(names) + 1):
                job.result()
                console.print(f'{done} of {len(study.runs)}  {jobs[job]}: '
                              + in_short(records[jobs[job]]), soft_wrap=True)
        except KeyboardInterrupt:
            console.print('Stopping. Run the same command to continue.')
            sys.exit(130)
        finally:
            stop.set()
            for job in jobs:
                job.cancel()
    summarise(records.content, folder)


def in_short(record: dict) -> str:
    if 'lost' in record:
        return record['lost']
    before, after = record['before']['online object'], record['after']['online object']
    return (f'rank {before["effective_rank"]:.1f} → {after["effective_rank"]:.1f}, found again '
            f'{record["top1"][1]:.1%}, loss {record["curves"]["loss"][-1][1]:.2f}')


def make_store(root: Path, data: str, photos: int | None, folder: Path,
               stop: threading.Event | None = None) -> tuple[Path, Path]:
    """Generate the proposals of a study's photos; return their folder and the store.

    Args:
        root (Path): The folder that `data` is relative to.
        data (str): A folder of photos, or a COCO json beside its images/, whose labels are not used.
        photos (int | None): Number of photos, evenly spread; None for all.
        folder (Path): The work directory.
        stop (threading.Event, optional): See `run_training`. Defaults to None.

    Returns:
        tuple[Path, Path]: Folder of the photos, store.
    """
    from projects.soco.annotations.read import read_json
    from projects.soco.proposals.sources import open_source
    from projects.soco.study.data import generate_store
    place = root / data
    if not place.exists():
        raise FileNotFoundError(f'There is no {place}; set --data to the folder that contains {data}.')
    if place.is_dir():
        images, names = place, list(open_source(place).names())
    else:
        images = place.parent / 'images'
        names = [row['file_name'] for row in read_json(place)['images']]
    if photos:
        names = [names[i] for i in np.linspace(0, len(names) - 1, photos).round().astype(int)]
    store = folder / f'{data.replace("/", "_").removesuffix(".json")}_{photos or "all"}.arrow'
    if not store.is_file():
        listed = store.with_suffix('.txt')
        write_whole(listed, ('\n'.join(names) + '\n').encode())
        generate_store(listed, store, images, stop=stop)
    return images.resolve(), store


def run(study: Config, name: str, args: argparse.Namespace, folder: Path, records: Records,
        stop: threading.Event, computing: threading.Lock, befores: dict[str, tuple]) -> None:
    """Pretrain, measure and record one run."""
    if stop.is_set():
        raise Stopped(STOPPED)
    wanted, started = study.runs[name], time.monotonic()
    with computing:
        import projects.soco.compat  # noqa: F401  (before anything of OpenMMLab)
        from projects.soco.evaluation.loading import build_model, build_start
        from projects.soco.evaluation.objects import held_out_dataset
        from projects.soco.launch.configs import load_config
        from projects.soco.runs.record import code_version
        from projects.soco.weights.read import find_newest_checkpoint
        images, store = make_store(args.data, wanted.get('data', study.data), wanted.get('photos'),
                                   folder, stop)
        judged = make_store(args.data, study.data, None, folder)
        cfg = load_config(wanted.get('config', study.base), {})
    options = {**wanted.get('options', {}), 'train_dataloader.dataset.data_root': str(images),
               'train_dataloader.dataset.proposals': str(store)}
    if wanted.get('weights'):
        options['load_from'] = str(args.weights.resolve())
    cfg.merge_from_dict(options)
    path, work_dir = folder / 'configs' / f'{name}.py', folder / 'runs' / name
    with computing:
        path.parent.mkdir(exist_ok=True)
        cfg.dump(str(path))
    record: dict[str, Any] = dict(
        date=date.today().isoformat(), commit=code_version(), group=wanted['group'],
        options={key: value for key, value in wanted.items() if key != 'group'})
    work_dir.mkdir(parents=True, exist_ok=True)
    try:
        run_training(['tools/train.py', str(path), '--work-dir', str(work_dir), '--resume'],
                     work_dir / 'output.log', name, stop=stop, environment={'OMP_NUM_THREADS': '1'},
                     held=[records.lock])
    except DivergedError:
        records.add(name, {**record, 'lost': 'diverged'})
        return
    with computing:
        record['seconds'] = round(time.monotonic() - started, 1)
        record['curves'] = curves_of(work_dir)
        dataset = held_out_dataset(cfg, *judged)
        # many runs start from the same network and see it in the same views
        start = json.dumps([cfg.model, cfg.randomness.seed, cfg.train_dataloader.dataset.pipeline,
                            cfg.load_from])
        if start not in befores:
            befores[start] = judge(build_start(cfg, cfg.load_from, cfg.randomness.seed), dataset)
        after = judge(build_model(cfg, find_newest_checkpoint(work_dir)), dataset)
        record['before'], record['after'] = befores[start][0], after[0]
        record['top1'] = [befores[start][1], after[1]]
    records.add(name, record)
    shutil.rmtree(work_dir)


def judge(model: SoCo, dataset: SoCoDataset) -> tuple[dict[str, dict], float]:
    """Return the ranks of a model's features, and how often an object is found again."""
    from projects.soco.evaluation.objects import score_objects
    from projects.soco.evaluation.rank import rank_of_model
    ranks = {what: rank._asdict() for what, rank in rank_of_model(model, dataset).items()}
    return ranks, score_objects(model, dataset, repeats=1, features='object').top1


def curves_of(work_dir: Path) -> dict[str, list[tuple[float, float]]]:
    """Return the logged values of `CURVES`, each a list of iteration and value."""
    from projects.soco.runs.log import read_run
    rows = read_run(work_dir)
    return {key: [(row['step'], round(row[key], 4)) for row in rows if key in row] for key in CURVES}


def compare_detectors(contents: list[dict[str, Any]], folder: Path) -> None:
    """Write and print the table of the detectors' AP, and the picture of AP over rank."""
    from projects.soco.pictures.canvas import save_image
    from projects.soco.study.collapse import detector_tables, draw_ranks_and_ap
    text = detector_tables(contents, POINTS)
    folder.mkdir(parents=True, exist_ok=True)
    write_whole(folder / 'detectors.md', f'{text}\n'.encode())
    console.print(text, soft_wrap=True)
    for what, path in (('tables', folder / 'detectors.md'), ('picture', save_image(
            draw_ranks_and_ap(contents, POINTS[0]), folder / 'detectors.png'))):
        console.print(f'{what:8} {path}', soft_wrap=True)


def summarise(content: dict[str, Any], folder: Path) -> None:
    """Write and print table and picture."""
    from projects.soco.pictures.canvas import save_image
    from projects.soco.study.collapse import collapse_tables, draw_collapse
    tables = folder / 'tables.md'
    text = collapse_tables(content)
    write_whole(tables, f'{text}\n'.encode())
    picture = save_image(draw_collapse(content), folder / 'collapse.png')
    console.print(text, soft_wrap=True)
    for what, path in (('results', folder / 'results.json'), ('tables', tables), ('picture', picture)):
        console.print(f'{what:8} {path}', soft_wrap=True)


if __name__ == '__main__':
    run_tool(main)
