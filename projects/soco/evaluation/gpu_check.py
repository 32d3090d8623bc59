"""The parts of `tools/gpu_check.sh`: each is a command of the project with a time limit of its own."""
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..files import whole_file

RECIPE = 'configs/soco_r50_fpn_400e.py'
DETECTOR = 'configs/benchmarks/mmdetection/own_photos/faster-rcnn_r50_fpn.py'
TINY_RECIPE = 'configs/soco_r18_fpn_quickstart.py'
TINY_DETECTOR = 'configs/benchmarks/mmdetection/own_photos/faster-rcnn_r18_fpn.py'
TAIL = 2000  # characters of a part's output that are kept
OK, FAILED, LATE, LEFT_OUT = 'ok', 'failed', 'time ran out', 'left out'


class Part(NamedTuple):
    """One part of the check.

    Args:
        name (str): What is checked or measured.
        minutes (float): Its time limit if the whole check has ten minutes.
        commands (list[list[str]]): Arguments of Python, run one after the other.
        read (Callable): Returns the figures that the commands have left.
        reason (str): Why the part is left out; '' if it is not.
    """

    name: str
    minutes: float
    commands: list[list[str]]
    read: Callable[[], dict[str, Any]]
    reason: str = ''


def plan_parts(root: Path, folder: Path, device: str, tiny: bool) -> list[Part]:
    """Return the parts, in their order.

    Args:
        root (Path): The repository.
        folder (Path): An existing folder for photos, runs and figures.
        device (str): 'cuda' or 'cpu'.
        tiny (bool): Whether to use the quickstart's networks with batches of 2 and 4: a rehearsal.

    Returns:
        list[Part]: The parts. Those that train need `make_photos` in the same folder.
    """
    recipe, detector = (TINY_RECIPE, TINY_DETECTOR) if tiny else (RECIPE, DETECTOR)
    batches = (2, 4) if tiny else (128, 256)
    steps = ['--steps', '1', '--warmup', '2'] if tiny else ['--steps', '5', '--warmup', '4']
    parts = [_tests(root, device)]

    def step(name: str, minutes: float, batch: int, *more: str) -> Part:
        out = folder / f'{name.replace(" ", "_").replace(",", "")}.json'
        return Part(name, minutes, [['tools/benchmark_step.py', recipe, '--device', device, '--batch',
                                     str(batch), *steps, *more, '--json', str(out)]],
                    lambda: read_step(out))

    against = [] if tiny else ['--reference']  # there is none for the quickstart's optimiser
    for batch in batches:
        parts.append(step(f'step, batch {batch}', 1.5, batch, *against))
    for name, more in (('without channels_last', ['--channels-last', 'no']),
                       ('compiled', ['--compile', 'yes']), ('bfloat16', ['--amp', 'bf16'])):
        part = step(f'step, batch {batches[0]}, {name}', 1, batches[0], *more)
        late = name == 'compiled' and device == 'cpu'
        parts.append(part._replace(reason='the C++ compiler takes many minutes' if late else ''))

    photos = folder / 'photos'
    data = folder / 'data.json'
    parts.append(Part('data path', 1, [
        ['tools/benchmark_data.py', recipe, '--images', str(photos), '--photos', '4' if tiny else '48',
         '--rounds', '1' if tiny else '3', '--batch', '2' if tiny else '16', '--workers',
         *(['0'] if tiny else ['4']), '--json', str(data)]], lambda: read_data(data)))

    size = batches[0]
    run, again = folder / 'run', folder / 'resumed'
    settings = ['--cfg-options', f'train_dataloader.dataset.data_root={photos}',
                f'train_dataloader.dataset.proposals={folder / "boxes.arrow"}',
                f'train_dataloader.dataset.repeat={10 * size // count_photos(tiny)}',
                f'train_dataloader.batch_size={size}', 'train_cfg.max_epochs=2',
                'default_hooks.checkpoint.interval=1', 'default_hooks.logger.interval=5']
    parts.append(Part('20 iterations, and the last 10 again after a resume', 1.5, [
        ['tools/train.py', recipe, '--work-dir', str(run), *settings],
        ['tools/train.py', recipe, '--work-dir', str(again), '--resume', str(run / 'epoch_1.pth'),
         *settings]], lambda: read_resume(run, again)))

    tuned = folder / 'detector'
    parts.append(Part('detector from these weights, with PreciseBN', 1, [
        ['tools/train.py', detector, '--work-dir', str(tuned), '--pretrained', str(run / 'epoch_2.pth'),
         '--cfg-options', 'train_cfg.max_iters=2', 'train_cfg.val_interval=2',
         'train_dataloader.batch_size=2', 'default_hooks.checkpoint.interval=2',
         'default_hooks.logger.interval=1', 'default_hooks.precise_bn.num_iters=2']],
        lambda: read_detector(tuned)))
    return parts


def _tests(root: Path, device: str) -> Part:
    tests = root / 'tests/test_cuda.py'
    reason = ('no CUDA device is used' if device != 'cuda' else
              '' if tests.is_file() else f'there is no {tests}')
    return Part('tests of what only a GPU shows', 2,
                [['-m', 'pytest', str(tests), '-q', '-n0', '-p', 'no:cacheprovider']], dict, reason)


def count_photos(tiny: bool) -> int:
    """Return the number of made-up photos."""
    return 4 if tiny else 64


def make_photos(folder: Path, count: int) -> None:
    """Draw photos of 500 × 375 pixels, their proposals, and their boxes as a COCO json.

    Args:
        folder (Path): Receives `photos/`, `boxes.arrow` and `boxes.json`.
        count (int): Number of photos.
    """
    import cv2

    from ..proposals.store import StoreWriter
    width, height = 500, 375
    (folder / 'photos').mkdir()
    rng = np.random.default_rng(0)
    images, annotations = [], []
    with StoreWriter(folder / 'boxes.arrow', dict(rules=['made up'])) as writer:
        for i in range(count):
            coarse = rng.integers(0, 256, (12, 16, 3), dtype=np.uint8)
            photo = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
            corner = rng.integers(0, (width // 2, height // 2), (8, 2))
            side = rng.integers(24, (width // 2, height // 2), (8, 2))
            for box, colour in zip(np.hstack([corner, side]).tolist(), rng.integers(0, 256, (8, 3))):
                x, y, w, h = box
                cv2.rectangle(photo, (x, y), (x + w, y + h), colour.tolist(), -1)
                annotations.append(dict(id=len(annotations) + 1, image_id=i + 1, category_id=1,
                                        bbox=box, area=w * h, iscrowd=0))
            name = f'{i:03}.jpg'
            if not cv2.imwrite(str(folder / 'photos' / name), photo):
                raise OSError(f'{folder / "photos" / name} could not be written.')
            writer.add(name, width, height, np.hstack([corner, side]), 'made up')
            images.append(dict(id=i + 1, file_name=name, width=width, height=height))
    content = dict(images=images, annotations=annotations, categories=[dict(id=1, name='rectangle')])
    (folder / 'boxes.json').write_text(json.dumps(content))


def run_parts(parts: list[Part], root: Path, folder: Path, minutes: float, out: Path,
              machine: dict[str, str], tell: Callable[[str], None]) -> list[dict[str, Any]]:
    """Run the parts and write what each has found to a JSON file as soon as it ends.

    Args:
        parts (list[Part]): The parts.
        root (Path): The repository, in which the commands run.
        folder (Path): The folder of `plan_parts`.
        minutes (float): Time of the whole check; the limits of the parts are scaled to it.
        out (Path): The JSON file; an existing one is replaced.
        machine (dict[str, str]): What the machine is, for the file.
        tell (Callable): Called with a line for each part.

    Returns:
        list[dict[str, Any]]: For each part its `name`, `state`, `seconds`, `figures`, and `output`, the
        end of what it printed if it is not `ok`.
    """
    scale, end = minutes / 10, time.monotonic() + 60 * minutes
    environment = {**os.environ, 'SOCO_PHOTOS': str(folder / 'photos'),
                   'SOCO_TRAIN': str(folder / 'boxes.json'), 'SOCO_VAL': str(folder / 'boxes.json'),
                   **({'CUDA_VISIBLE_DEVICES': ''} if machine['device'] == 'cpu' else
                      {'SOCO_TEST_CUDA': '1'})}
    rows: list[dict[str, Any]] = []
    for part in parts:
        row: dict[str, Any] = dict(name=part.name, state=LEFT_OUT, seconds=0.0, figures={},
                                   output=part.reason)
        if not part.reason:
            started = time.monotonic()
            limit = min(60 * scale * part.minutes, end - started)
            row['state'], row['output'] = run_commands(part.commands, root, limit, environment)
            row['seconds'] = round(time.monotonic() - started, 1)
            if row['state'] == OK:
                try:
                    row['figures'] = part.read()
                except (OSError, ValueError, LookupError) as error:  # the other parts are still run
                    row['state'], row['output'] = FAILED, f'{type(error).__name__}: {error}'
        rows.append(row)
        with whole_file(out) as file:
            json.dump(dict(machine, parts=rows), file, indent=1)
        tell(f'{row["state"]}: {part.name}, {row["seconds"]:.0f} s')
    return rows


def run_commands(commands: list[list[str]], root: Path, seconds: float,
                 environment: dict[str, str]) -> tuple[str, str]:
    """Run commands of Python one after the other, and end them at a time limit.

    Args:
        commands (list[list[str]]): Arguments of Python.
        root (Path): Their working directory.
        seconds (float): Time limit of all together.
        environment (dict[str, str]): Their environment.

    Returns:
        tuple[str, str]: `OK`, `FAILED` or `LATE`; and '' or the end of the output.
    """
    end = time.monotonic() + seconds
    for command in commands:
        left = end - time.monotonic()
        if left <= 0:
            return LATE, 'There was no time left for: ' + ' '.join(command)
        # A session of its own, so that its workers are ended with it.
        process = subprocess.Popen([sys.executable, *command], cwd=root, env=environment, text=True,
                                   stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                                   start_new_session=True)
        try:
            output, _ = process.communicate(timeout=left)
        except BaseException as error:  # Ctrl-C does not reach another session
            os.killpg(process.pid, signal.SIGKILL)
            output, _ = process.communicate()
            if not isinstance(error, subprocess.TimeoutExpired):
                raise
            return LATE, output[-TAIL:]
        if process.returncode:
            return FAILED, f'exit code {process.returncode}\n{output[-TAIL:]}'
    return OK, ''


def read_step(path: Path) -> dict[str, Any]:
    """Return the figures of `benchmark_step.py` that decide, ours and the reference's."""
    found = json.loads(path.read_text())
    peak, batch = found['matrix_flops'], found['batch']
    (_, ours), *others = found['found'].items()
    figures = {
        'images/s': round(1000 * batch / ours['step'], 1), 'ms per step': round(ours['step'], 1),
        'GiB': round(ours['memory'] / 2**30, 2), 'host waits': ours['syncs'],
        'ms LARS and EMA': round(ours['stages']['optimiser'] + ours['stages']['EMA'], 2),
        'ms by stage': {name or 'the rest': round(ms, 1) for name, ms in ours['stages'].items()}}
    if peak:
        figures['% of matrix peak'] = round(100 * ours['gflop'] * 1e12 * batch / ours['step'] / peak, 1)
    for _, reference in others:
        figures['times the reference'] = round(reference['step'] / ours['step'], 2)
    return figures


def read_data(path: Path) -> dict[str, Any]:
    """Return the rates of `benchmark_data.py`."""
    found = json.loads(path.read_text())
    return {**{f'images/s per core, {name}': round(row['rate'], 1)
               for name, row in found['contenders'].items()},
            **{f'images/s, {count} workers': round(rate, 1)
               for count, rate in found['workers'].items()}}


def read_resume(run: Path, again: Path) -> dict[str, Any]:
    """Return the losses after 20 iterations, in one go and resumed."""
    from ..weights.read import read_checkpoint
    records = [[json.loads(line) for path in sorted(folder.glob('*/vis_data/scalars.json'))
                for line in path.read_text().splitlines()] for folder in (run, again)]
    losses = [[record['loss'] for record in part if 'loss' in record][-1] for part in records]
    states = [read_checkpoint(folder / 'epoch_2.pth') for folder in (run, again)]
    gap = max(float((b.double() - a.double()).norm() / a.double().norm().clamp_min(1e-12))
              for a, b in zip(states[0]['state_dict'].values(), states[1]['state_dict'].values())
              if a.is_floating_point())
    return {'iterations': states[1]['meta']['iter'], 'loss': losses[0], 'loss, resumed': losses[1],
            'largest relative difference of a tensor': gap}


def read_detector(folder: Path) -> dict[str, Any]:
    """Return the last loss and the box AP of a detector's training."""
    records = [json.loads(line) for path in sorted(folder.glob('*/vis_data/scalars.json'))
               for line in path.read_text().splitlines()]
    return {'loss': [record['loss'] for record in records if 'loss' in record][-1],
            'box AP': [value for record in records for key, value in record.items()
                       if key.endswith('bbox_mAP')][-1]}
