"""Checks of a checkpoint to resume from, before anything is built, and what its run changes."""
from pathlib import Path

from mmengine.config import Config

from ..datasets.dataset import data_fingerprint
from ..engine.resume_hook import check_same_data
from ..proposals.store import ProposalStore
from .config_changes import OF_THE_PLACE, Change, changes_between, read_dumped

_SKIPPED = (*OF_THE_PLACE, 'load_from', 'model_wrapper_cfg')
_SHOWN = 12


def check_resume(path: str | Path, checkpoint: dict, cfg: Config) -> str:
    """Check that a config can resume a checkpoint; return what it changes.

    `ResumeHook` checks what only a built model can tell.

    Args:
        path (str | Path): The checkpoint.
        checkpoint (dict): Its content.
        cfg (Config): The config to train.

    Returns:
        str: One line that lists what the config changes, with both values; empty if nothing.

    Raises:
        ValueError: If the file has no state of a training, or is of a longer run, of other data or of
            another optimizer.
    """
    missing = {'optimizer', 'meta', 'message_hub'} - set(checkpoint)
    if missing:
        raise ValueError(f'--resume {path}: it has no {", ".join(sorted(missing))}, so training cannot '
                         'resume from it. To start a new run from its weights, use --pretrained '
                         f'{path}')
    meta = checkpoint['meta']
    position = meta.get('position')
    _check_length(path, meta, cfg)
    dataset = cfg.train_dataloader.dataset
    if position and dataset.get('proposals'):
        store = ProposalStore.open(dataset.proposals)
        check_same_data(path, position['data'], data_fingerprint(store, dataset.get('repeat', 1)))
    try:
        before = read_dumped(str(meta.get('cfg') or ''))
    except ValueError:
        return f'{path} contains no config that can be read: its settings were not compared.'
    changes = [change for change in changes_between(before, cfg._cfg_dict.to_dict())
               if before and change.key.split('.')[0] not in _SKIPPED]
    for change in changes:
        if change.key == 'optim_wrapper.optimizer.type':
            raise ValueError(
                f'{path} cannot be resumed with another optimizer: it was trained with {change.old}, '
                f'and the config has {change.new}. Use the optimizer of that run, or start a new run '
                f'from its weights with --pretrained {path}')
    return _sentence(changes)


def _check_length(path: str | Path, meta: dict, cfg: Config) -> None:
    for key, unit in (('max_epochs', 'epoch'), ('max_iters', 'iter')):
        wanted = cfg.train_cfg.get(key)
        done = (meta.get('position') or meta).get(unit, meta.get(unit, 0))
        if wanted is not None and done > wanted:
            option = key.replace('max_', '--')
            raise ValueError(
                f'{path} cannot be resumed for a shorter run: {done} {unit}s are done, but '
                f'train_cfg.{key} is {wanted}. Set a longer run with {option}, or start a new one in '
                'another work directory.')


def _sentence(changes: list[Change]) -> str:
    if not changes:
        return ''
    told = []
    for key, old, new in changes[:_SHOWN]:
        # The order of the photos depends on the seed, so MMEngine keeps that of the checkpoint.
        kept = f', stays {old}' if key == 'randomness.seed' else ''
        told.append(f'{key} was {old}, is {new}{kept}')
    more = f'; and {len(changes) - _SHOWN} more' if len(changes) > _SHOWN else ''
    return f'Changed since the checkpoint: {"; ".join(told)}{more}.'
