"""Weights of a pretraining as they are given away: light, named by their hash, with a card."""
import contextlib
import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from string import Template
from typing import Any

import torch

from .. import __version__
from ..files import PathLike, write_whole
from ..weights.convert import Conversion, convert, encode_weights
from ..weights.read import read_checkpoint
from .config_changes import read_dumped
from .next_steps import transfer_command
from .read import Run
from .record import RECORD, read_record

CARD = Path(__file__).with_name('model_card.md')
RESULT_KEYS = ('task', 'metric', 'value', 'source')
NOT_KNOWN = 'not recorded'
# Rows of a card without results: what is measured first.
EMPTY_RESULTS = [dict(task='Mask R-CNN 1×, COCO val2017', metric=metric, value='', source='')
                 for metric in ('box AP', 'mask AP')]


@dataclass(frozen=True)
class Published:
    """What was written.

    Attributes:
        weights (list[Path]): The .pth and the .safetensors.
        card (Path): The model card.
        conversion (Conversion): What they hold, and what was left out.
    """

    weights: list[Path]
    card: Path
    conversion: Conversion


def publish(checkpoint: PathLike, out_dir: PathLike, name: str | None = None,
            results: Sequence[dict[str, Any]] = (), overwrite: bool = False) -> Published:
    """Write the weights that detectors take, in both formats, and their model card.

    The same checkpoint gives the same bytes, and so the same names.

    Args:
        checkpoint (PathLike): What tools/train.py wrote for a SoCo config; `run.json` beside it tells
            commit and processes.
        out_dir (PathLike): Folder for the files; made if it is not there.
        name (str, optional): Begins the files' names. Defaults to the config's name.
        results (Sequence[dict]): See `read_results`. Defaults to none: the card's cells stay empty.
        overwrite (bool): Replace files that are there. Defaults to False.

    Raises:
        FileNotFoundError: No such checkpoint.
        ValueError: It is none of a SoCo pretraining, or holds numbers that are not finite.
        FileExistsError: A file is there, and `overwrite` is False.
    """
    content = read_checkpoint(checkpoint)
    run = _read_run(Path(checkpoint), content.get('meta') or {})
    conversion = convert(content['state_dict'], 'mmdet', source='soco')
    _check_finite(conversion, checkpoint)
    about = _describe(run, content['meta'])
    name = name or about['config_name']
    if not re.fullmatch(r'[\w.+-]+', name):
        raise ValueError(f'{name!r} cannot begin a file name: use letters, digits and . _ + - only.')
    files = {}
    for suffix in ('.pth', '.safetensors'):
        data = encode_weights(conversion, suffix, about)
        digest = hashlib.sha256(data).hexdigest()
        files[Path(out_dir) / f'{name}-{digest[:8]}{suffix}'] = (data, digest)
    card = next(iter(files)).with_suffix('.md')
    there = [str(path) for path in (*files, card) if path.exists()]
    if there and not overwrite:
        raise FileExistsError(f'{", ".join(there)}: already there. Choose another folder, or '
                              '--overwrite, which replaces a card that was edited too.')
    for path, (data, _) in files.items():
        write_whole(path, data)
    digests = {path: digest for path, (_, digest) in files.items()}
    text = fill_card(run, conversion, about, digests, results or EMPTY_RESULTS)
    write_whole(card, text.encode())
    return Published(list(files), card, conversion)


def read_results(path: PathLike) -> list[dict[str, Any]]:
    """Read the figures of a model card.

    Args:
        path (PathLike): A json list of objects with the keys task, metric, value, and source: who
            measured it, and how.

    Raises:
        FileNotFoundError: No such file.
        ValueError: Something else is in it; the message names the entry.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f'There is no file of results at {path}.')
    form = '[{"task": "…", "metric": "box AP", "value": 12.3, "source": "who measured it, and how"}]'
    try:
        rows = json.loads(path.read_bytes())
    except ValueError as error:
        raise ValueError(f'{path} is not json ({error}). Expected is {form}') from error
    if not isinstance(rows, list) or not rows:
        raise ValueError(f'{path} holds no list of results. Expected is {form}')
    for i, row in enumerate(rows):
        if not isinstance(row, dict) or set(row) != set(RESULT_KEYS) or not str(row['source']).strip():
            raise ValueError(f'{path}: entry {i} is not a result with the keys '
                             f'{", ".join(RESULT_KEYS)}, none of them empty. Expected is {form}')
    return rows


def fill_card(run: Run, conversion: Conversion, about: dict[str, str], digests: dict[Path, str],
              results: Sequence[dict[str, Any]]) -> str:
    """Fill the model card.

    Args:
        run (Run): What is known of the pretraining.
        conversion (Conversion): The weights.
        about (dict): Their metadata.
        digests (dict): The files with their SHA-256, the .pth first.
        results (Sequence[dict]): Rows of the table of results.
    """
    pth = next(iter(digests))
    counts: dict[str, int] = {}
    for key in conversion.state_dict:
        part = 'RoI head' if key.startswith('roi_head.') else key.split('.')[0]
        counts[part] = counts.get(part, 0) + 1
    run.checkpoint = Path(pth.name)
    transfer = transfer_command(run)
    pixels = run.part('model.data_preprocessor')
    photos = Path(run.part('train_dataloader.dataset').get('data_root', NOT_KNOWN))
    return Template(CARD.read_text(encoding='utf-8')).substitute(
        name=pth.stem, pth=pth.name, config=about['config'],
        parts=', '.join(f'{part} ({count} tensors)' for part, count in counts.items()),
        files='\n'.join(f'| `{path.name}` | SHA-256 `{digest}` |' for path, digest in digests.items()),
        photos='/'.join(photos.parts[-2:]),
        trained=f'{about["epoch"]} epochs, {about["iteration"]} iterations',
        batch=_batch(run), code=f'mmsoco {about["trained_with"]}, commit {about["commit"]}',
        input=f'RGB, mean {pixels.get("mean", NOT_KNOWN)}, std {pixels.get("std", NOT_KNOWN)}',
        use=f'```bash\n{transfer.line}\n```' if transfer.line else transfer.note,
        results='\n'.join('| ' + ' | '.join(_cell(row[key]) for key in RESULT_KEYS) + ' |'
                          for row in results))


def _read_run(path: Path, meta: dict[str, Any]) -> Run:
    run = Run(path.parent)
    try:
        run.config = read_dumped(str(meta.get('cfg') or ''))
    except ValueError:
        run.config = {}
    if not (run.config.get('model') or {}).get('type', '').endswith('SoCo'):
        raise ValueError(f'{path} does not tell that a SoCo config trained it (meta.cfg), so it cannot '
                         'be described. Give a checkpoint that tools/train.py wrote for a pretraining. '
                         'To convert weights without a card: tools/convert_weights.py')
    with contextlib.suppress(FileNotFoundError, ValueError):  # what it tells is then not known
        run.sessions = read_record(path.parent / RECORD)
    return run


def _describe(run: Run, meta: dict[str, Any]) -> dict[str, str]:
    """The metadata of the files, as text, which is all that .safetensors takes."""
    # a run that was resumed after a change of the code names both
    versions, commits = (
        ', '.join(dict.fromkeys(session[key] for session in run.sessions if session[key])) or NOT_KNOWN
        for key in ('version', 'commit'))
    # mmengine names a run by its config and the time of its start
    name = re.sub(r'_\d{8}_\d{6}$', '', str(meta.get('experiment_name') or 'soco'))
    return dict(
        config_name=name, config=f'{name}.py', epoch=str(meta.get('epoch', NOT_KNOWN)),
        iteration=str(meta.get('iter', NOT_KNOWN)), commit=commits,
        trained_with=versions, published_with=__version__,
        mmengine_version=str(meta.get('mmengine_version', NOT_KNOWN)), cfg=str(meta['cfg']))


def _batch(run: Run) -> str:
    size = run.part('train_dataloader').get('batch_size', NOT_KNOWN)
    counts = run.part('optim_wrapper').get('accumulative_counts', 1)
    processes = run.sessions[-1]['processes'] if run.sessions else NOT_KNOWN
    return f'{size} photos a process and iteration; iterations a step: {counts}; processes: {processes}'


def _check_finite(conversion: Conversion, checkpoint: PathLike) -> None:
    for name, value in conversion.state_dict.items():
        if not torch.isfinite(value).all():
            raise ValueError(f'{checkpoint}: {name} holds numbers that are not finite. Publish an '
                             'earlier checkpoint of the run.')


def _cell(value: Any) -> str:
    return ' '.join(str(value).replace('|', r'\|').split())
