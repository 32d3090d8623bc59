"""Publishing of pretrained weights: reduced files named by their hash, and a model card."""
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
from ..weights.convert import Conversion, convert, for_detector
from ..weights.read import read_checkpoint
from ..weights.write import encode_weights
from .config_changes import read_dumped
from .next_steps import HAND_OVER, transfer_command
from .read import Run
from .record import RECORD, read_record

CARD = Path(__file__).with_name('model_card.md')
RESULT_KEYS = ('task', 'metric', 'value', 'source')
NOT_KNOWN = 'not recorded'
# Rows of a card without results.
EMPTY_RESULTS = [dict(task='Mask R-CNN 1×, COCO val2017', metric=metric, value='', source='')
                 for metric in ('box AP', 'mask AP')]


@dataclass(frozen=True)
class Published:
    """The files that `publish` wrote.

    Attributes:
        weights (list[Path]): The .pth and the .safetensors file.
        card (Path): The model card.
        conversion (Conversion): The weights in the files, and what was left out.
    """

    weights: list[Path]
    card: Path
    conversion: Conversion


def publish(checkpoint: PathLike, out_dir: PathLike, name: str | None = None,
            results: Sequence[dict[str, Any]] = (), overwrite: bool = False) -> Published:
    """Write the weights that detectors use, in both formats, and their model card.

    The same checkpoint results in the same bytes and therefore the same file names.

    Args:
        checkpoint (PathLike): A checkpoint that tools/train.py wrote for a SoCo config. Commit and
            processes are read from the `run.json` beside it.
        out_dir (PathLike): Folder for the files. It is created if it does not exist.
        name (str, optional): Prefix of the file names. Defaults to None: the config's name.
        results (Sequence[dict]): See `read_results`. Defaults to none: the card's cells are empty.
        overwrite (bool): Whether to replace existing files. Defaults to False.

    Returns:
        Published: The files.

    Raises:
        FileNotFoundError: If the checkpoint does not exist.
        ValueError: If it is not of a SoCo pretraining, or contains numbers that are not finite.
        FileExistsError: If a file exists and `overwrite` is False.
    """
    content = read_checkpoint(checkpoint)
    run = _read_run(Path(checkpoint), content.get('meta') or {})
    prefixes = run.part(HAND_OVER)  # of a config that was derived from a detector
    conversion = (for_detector(content['state_dict'], prefixes) if prefixes else
                  convert(content['state_dict'], 'mmdet', source='soco'))
    _check_finite(conversion, checkpoint)
    about = _describe(run, content['meta'])
    name = name or about['config_name']
    if not re.fullmatch(r'[\w.+-]+', name):
        raise ValueError(f'{name!r} is not a valid file name prefix. Use letters, digits and . _ + - '
                         'only.')
    files = {}
    for suffix in ('.pth', '.safetensors'):
        data = encode_weights(conversion, suffix, about)
        digest = hashlib.sha256(data).hexdigest()
        files[Path(out_dir) / f'{name}-{digest[:8]}{suffix}'] = (data, digest)
    card = next(iter(files)).with_suffix('.md')
    there = [str(path) for path in (*files, card) if path.exists()]
    if there and not overwrite:
        raise FileExistsError(f'{", ".join(there)}: already exists. Choose another folder, or use '
                              '--overwrite, which also replaces an edited card.')
    for path, (data, _) in files.items():
        write_whole(path, data)
    digests = {path: digest for path, (_, digest) in files.items()}
    text = fill_card(run, conversion, about, digests, results or EMPTY_RESULTS)
    write_whole(card, text.encode())
    return Published(list(files), card, conversion)


def read_results(path: PathLike) -> list[dict[str, Any]]:
    """Read the results for a model card.

    Args:
        path (PathLike): A json list of objects with the keys task, metric, value and source (who
            measured it, and how).

    Returns:
        list[dict[str, Any]]: The objects.

    Raises:
        FileNotFoundError: If the file does not exist.
        ValueError: If its content is invalid. The message contains the entry.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f'There is no file of results at {path}.')
    form = '[{"task": "…", "metric": "box AP", "value": 12.3, "source": "who measured it, and how"}]'
    try:
        rows = json.loads(path.read_bytes())
    except ValueError as error:
        raise ValueError(f'{path} is not json ({error}). Expected: {form}') from error
    if not isinstance(rows, list) or not rows:
        raise ValueError(f'{path} contains no list of results. Expected: {form}')
    for i, row in enumerate(rows):
        if not isinstance(row, dict) or set(row) != set(RESULT_KEYS) or not str(row['source']).strip():
            raise ValueError(f'{path}: entry {i} is not a result with the keys '
                             f'{", ".join(RESULT_KEYS)} and a non-empty source. Expected: {form}')
    return rows


def fill_card(run: Run, conversion: Conversion, about: dict[str, str], digests: dict[Path, str],
              results: Sequence[dict[str, Any]]) -> str:
    """Fill in the model card.

    Args:
        run (Run): The pretraining run. Its `checkpoint` is set to the published file.
        conversion (Conversion): The weights.
        about (dict[str, str]): Metadata of the files.
        digests (dict[Path, str]): The files with their SHA-256, the .pth first.
        results (Sequence[dict]): Rows of the table of results.

    Returns:
        str: The card in Markdown.
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
        input=f'{"RGB" if pixels.get("bgr_to_rgb", True) else "BGR"}, '
              f'mean {pixels.get("mean", NOT_KNOWN)}, std {pixels.get("std", NOT_KNOWN)}',
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
        raise ValueError(f'{path} does not contain the config of a SoCo pretraining (meta.cfg), which '
                         'the model card needs. Use a checkpoint that tools/train.py wrote for a '
                         'pretraining. To convert weights without a card: tools/convert_weights.py')
    with contextlib.suppress(FileNotFoundError, ValueError):  # its fields become NOT_KNOWN
        run.sessions = read_record(path.parent / RECORD)
    return run


def _describe(run: Run, meta: dict[str, Any]) -> dict[str, str]:
    """Return the metadata of the files as strings, because .safetensors accepts nothing else."""
    # A run that was resumed after a change of the code has several versions and commits.
    versions, commits = (
        ', '.join(dict.fromkeys(session[key] for session in run.sessions if session[key])) or NOT_KNOWN
        for key in ('version', 'commit'))
    # mmengine names a run by its config and start time.
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
    return (f'photos per process and iteration: {size}; iterations per step: {counts}; '
            f'processes: {processes}')


def _check_finite(conversion: Conversion, checkpoint: PathLike) -> None:
    for name, value in conversion.state_dict.items():
        if not torch.isfinite(value).all():
            raise ValueError(f'{checkpoint}: {name} contains numbers that are not finite. Publish an '
                             'earlier checkpoint of the run.')


def _cell(value: Any) -> str:
    return ' '.join(str(value).replace('|', r'\|').split())
