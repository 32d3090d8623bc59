"""What the tools share: configs from the command line, devices, errors for people."""
import argparse
import difflib
import errno
import inspect
import os
import re
import sys
import textwrap
from pathlib import Path
from typing import Any, Callable

import torch
from mmengine.config import Config, DictAction
from mmengine.runner import Runner

from . import compat
from .layout import check_layout
from .proposals.fit import check_store_fits
from .proposals.sources import open_source
from .proposals.store import ProposalStore

SCOPES = ('mmengine', 'mmcv', 'mmdet', 'mmcls', 'mmselfsup')
# Keys that a Runner understands although the configs do not spell them out.
RUNNER_KEYS = {*inspect.signature(Runner.__init__).parameters, 'activation_checkpointing',
               'compile', 'efficient_conv_bn_eval', 'find_unused_parameters', 'model_wrapper_cfg'}


def add_config_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what train.py and test.py have in common."""
    parser.add_argument('config', help='config file')
    parser.add_argument('--work-dir', help='where logs and checkpoints go (default: '
                        'work_dirs/<name of the config>)')
    parser.add_argument('--cfg-options', nargs='+', action=DictAction, default={},
                        metavar='KEY=VALUE', help='change keys of the config, such as '
                        'train_dataloader.batch_size=128')
    parser.add_argument('--cpu', action='store_true', help='run a config that was made for GPUs on '
                        'the CPU: BN in place of SyncBN, full precision')
    parser.add_argument('--launcher', choices=['none', 'pytorch', 'slurm', 'mpi'], default='none',
                        help='set by dist_train.sh and slurm_train.sh')
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0,
                        help=argparse.SUPPRESS)


def add_train_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what train.py and the check before it have in common."""
    parser.add_argument('--pretrained', metavar='SOURCE', help='what a detector or classifier starts '
                        'from: a SoCo checkpoint, supervised:FILE (a ResNet trained to classify) or '
                        'random')
    parser.add_argument('--family', choices=['fpn', 'c4'], help='refuse a detector of the other '
                        'family; set by the scripts of tools/benchmarks/mmdetection')


def load_config(path: str, options: dict[str, Any], register: bool = True,
                cpu: bool = False) -> Config:
    """Read a config and change some of its keys.

    Args:
        path (str): The config file.
        options (dict): Dotted key to value.
        register (bool): Import what the config's `custom_imports` name. Defaults to True.
        cpu (bool): Turn it into one for a CPU (`compat.cpu_config`) and hide this process's CUDA
            devices. Defaults to False.

    Raises:
        FileNotFoundError: No such config.
        ValueError: The config cannot be read, or an option names a key that does not exist.
    """
    if not Path(path).is_file():
        near = difflib.get_close_matches(path, [str(p) for p in Path('configs').rglob('*.py')], 1)
        hint = f' Did you mean {near[0]}?' if near else ' Configs lie in configs/.'
        raise FileNotFoundError(f'There is no config at {path}.{hint}')
    try:
        cfg = Config.fromfile(path, import_custom_modules=register)
    except (KeyError, AttributeError, IndexError, SyntaxError) as error:
        raise ValueError(f'{path} cannot be read as a config: {type(error).__name__}: {error}. '
                         'Look at the line that it names, and at the keys of its _base_ files.'
                         ) from error
    for key, value in options.items():
        check_key(cfg, key)
        check_type_name(key, value)
    cfg.merge_from_dict(options)
    if cpu:
        os.environ['CUDA_VISIBLE_DEVICES'] = ''
        cfg = compat.cpu_config(cfg)
    return cfg


def set_pretrained(cfg: Config, source: str) -> None:
    """Write into a config what its model starts from.

    Args:
        cfg (Config): A config with a `PretrainedWeightsHook`; its hook and `load_from` are changed.
        source (str): A SoCo checkpoint; 'supervised:' and a file; or 'random'.

    Raises:
        FileNotFoundError: No such file.
        ValueError: The config has no such hook.
    """
    hooks = [hook for hook in cfg.get('custom_hooks') or ()
             if hook['type'] == 'PretrainedWeightsHook']
    if not hooks:
        raise ValueError('--pretrained is for detectors and classifiers (configs/benchmarks/): this '
                         'config has no PretrainedWeightsHook. SoCo itself starts from weights by '
                         '--cfg-options load_from=FILE')
    kind, colon, path = source.partition(':')
    if kind not in ('supervised', 'random') or (kind == 'supervised' and not colon):
        kind, path = 'soco', source
    if kind != 'random' and not Path(path).is_file():
        raise FileNotFoundError(
            f'There is no checkpoint at {path}. --pretrained takes a file that tools/train.py wrote '
            'for a SoCo config, such as work_dirs/soco_r50_fpn_400e/epoch_400.pth; supervised:FILE, a '
            'ResNet in the names of torchvision or MMClassification; or random.')
    hooks[0].source = kind
    cfg.load_from = None if kind == 'random' else os.path.abspath(path)


def check_key(cfg: Config, key: str) -> None:
    """Refuse a dotted key that would change nothing.

    A new key is fine in a dict with a `type`, whose class then checks it, among a data loader's
    arguments, and at the top where the Runner knows it.
    """
    node, done = cfg._cfg_dict, []
    parts = key.split('.')
    for i, part in enumerate(parts):
        last = i == len(parts) - 1
        if isinstance(node, (list, tuple)):
            known = [str(n) for n in range(len(node))]
        elif isinstance(node, dict):
            known = [str(name) for name in node]
            if last and 'type' in node:
                return
            if last and done and done[-1].endswith('_dataloader'):
                from torch.utils.data import DataLoader
                known += inspect.signature(DataLoader.__init__).parameters
            if last and not done:
                known += RUNNER_KEYS
        else:
            known = []
        if part not in known:
            where = '.'.join(done) or 'the config'
            near = difflib.get_close_matches(part, known, 1)
            hint = f' Did you mean {".".join([*done, near[0]])}?' if near else ''
            raise ValueError(f'--cfg-options {key}: {where} has no key {part!r}.{hint} Its keys are: '
                             f'{", ".join(known[:30]) or "none"}.')
        if not last:
            node = node[int(part)] if isinstance(node, (list, tuple)) else node[part]
        done.append(part)


def check_type_name(key: str, value: Any) -> None:
    """Refuse a `type` that MMEngine would import from anywhere, such as `subprocess.Popen`.

    Raises:
        ValueError: It is neither a registered name nor one with its scope, such as `mmdet.ResNet`.
    """
    scope, dot, name = str(value).partition('.')
    if key.split('.')[-1] == 'type' and dot and (scope not in SCOPES or '.' in name):
        raise ValueError(f'--cfg-options {key}: {value} is not the name of a registered class. Options '
                         'are values; a class from elsewhere is named in a config, which is code.')


if __name__ == '__main__':
    run_tool(main)
