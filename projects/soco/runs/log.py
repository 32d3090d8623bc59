"""Reading of a run's logged values from the visualizer's files."""
import json
import logging
import math
from collections.abc import Iterator, Sequence
from pathlib import Path

from ..pictures.curves import ap_name, iteration_of

logger = logging.getLogger(__name__)


def read_runs(work_dirs: Sequence[str | Path]) -> dict[str, list[dict]]:
    """Read the logs of several runs.

    Args:
        work_dirs (Sequence[str | Path]): Work directories; see `read_run`.

    Returns:
        dict[str, list[dict]]: Name to records; see `read_run`. The names are the last parts of the
        paths, as many as make them unique.

    Raises:
        FileNotFoundError: If one has no log.
        ValueError: If one is given twice, or a log cannot be read.
    """
    parts = [Path(folder).resolve().parts for folder in work_dirs]
    for i, twice in enumerate(parts):
        if twice in parts[:i]:
            raise ValueError(f'{work_dirs[i]} is given twice. Pass each run once.')
    depth = 1
    while len({path[-depth:] for path in parts}) < len(parts):
        depth += 1
    return {'/'.join(path[-depth:]): read_run(folder) for path, folder in zip(parts, work_dirs)}


def read_run(work_dir: str | Path) -> list[dict]:
    """Read all values that a run logged, from all its starts.

    If several starts logged the same iterations, the latest start counts: from its first iteration
    on, the values of earlier starts are left out. Where a start had another batch, the iterations of
    earlier starts are converted to its own (`rescaled`, which `ResumeHook` logs). Validations that were
    logged by epoch are placed at the last logged iteration before them.

    Args:
        work_dir (str | Path): The run's work directory, with one folder for each start.

    Returns:
        list[dict]: The records, in order.

    Raises:
        FileNotFoundError: If there is no log.
        ValueError: If a log cannot be read. The message contains file and line.
    """
    logs = sorted(Path(work_dir).glob('*/vis_data/scalars.json'))
    if not logs:
        raise FileNotFoundError(
            f'{work_dir} contains no log of a run (*/vis_data/scalars.json). Pass the work directory '
            'of a training that logged at least one iteration, such as work_dirs/quickstart/pretrain.')
    joined: list[dict] = []
    for path in logs:
        records = read_scalars(path)
        for factor in (record['rescaled'] for record in records if 'rescaled' in record):
            joined = [_rescale(record, factor) for record in joined]
        first: dict[str, float] = {}
        for record in records:
            for key in record.keys() - {'step', 'iter', 'epoch'}:
                first.setdefault(key, iteration_of(record))
        joined = [{key: value for key, value in record.items()
                   if iteration_of(record) < first.get(key, math.inf)} for record in joined]
        joined += records
    return list(_validations_placed(joined))


def _validations_placed(records: Sequence[dict]) -> Iterator[dict]:
    """Yield the records, those of a detector's validations at an iteration and without their speed."""
    reached = 0.
    for record in records:
        if 'loss' in record:
            reached = iteration_of(record)
        elif any(map(ap_name, record)):
            kept = {key: value for key, value in record.items() if key not in ('time', 'data_time')}
            # LoggerHook gives the epoch as step, unless log_metric_by_epoch=False
            record = {**kept, 'step': max(iteration_of(record), reached)}
        yield record


def _rescale(record: dict, factor: float) -> dict:
    scaled = {key: round(record[key] * factor) for key in ('step', 'iter') if key in record}
    return {**record, **scaled, 'scale': record.get('scale', 1.0) * factor}


def read_scalars(path: str | Path) -> list[dict]:
    """Read the JSON lines that mmengine's visualizer writes, one record per line.

    Args:
        path (str | Path): A `vis_data/scalars.json`.

    Returns:
        list[dict]: The records. An unfinished last line, which a killed run can leave, is skipped
        with a warning.

    Raises:
        FileNotFoundError: If the file does not exist.
        ValueError: If another line is not a JSON object. The message contains file and line.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f'No scalars at {path}. A run writes them to '
                                'WORK_DIR/TIMESTAMP/vis_data/scalars.json. Pass that file.')
    lines = path.read_bytes().splitlines(keepends=True)
    records = []
    for row, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            record = json.loads(line.decode('utf-8'))
            if not isinstance(record, dict):
                raise ValueError('it is JSON, but not an object')
        except ValueError as error:
            if row == len(lines) and not line.endswith(b'\n'):
                logger.warning('%s, line %d is unfinished and was skipped.', path, row)
                continue
            raise ValueError(f'{path}, line {row} is not a record of scalars ({error}). Remove '
                             'that line, or pass the scalars.json of another run.') from error
        records.append(record)
    return records
