"""Functions that load configs and apply the command-line options of the tools."""
import argparse
import difflib
import inspect
import os
import threading
from pathlib import Path
from typing import Any

from mmengine.config import Config, ConfigDict, DictAction
from mmengine.runner import Runner
from mmengine.utils import import_modules_from_strings

from ..compat.cpu import cpu_config

SCOPES = ('mmengine', 'mmcv', 'mmdet', 'mmcls', 'mmselfsup')
# Keys that a Runner accepts although the configs do not list them.
RUNNER_KEYS = {*inspect.signature(Runner.__init__).parameters, 'activation_checkpointing',
               'compile', 'efficient_conv_bn_eval', 'find_unused_parameters', 'model_wrapper_cfg'}
# MMEngine reloads pkg_resources while it reads a config: two threads that read at once fail.
_READING = threading.Lock()


def add_config_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that train.py and test.py share."""
    parser.add_argument('config', help='config file')
    parser.add_argument('--work-dir', help='folder for logs and checkpoints (default: '
                        'work_dirs/<name of the config>)')
    parser.add_argument('--cfg-options', nargs='+', action=DictAction, default={},
                        metavar='KEY=VALUE', help='override keys of the config, such as '
                        'train_dataloader.batch_size=128')
    parser.add_argument('--cpu', action='store_true', help='run a config that was made for GPUs on '
                        'the CPU: BN instead of SyncBN, full precision')
    parser.add_argument('--launcher', choices=['none', 'pytorch', 'slurm', 'mpi'], default='none',
                        help='set by dist_train.sh and slurm_train.sh')
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0,
                        help=argparse.SUPPRESS)


def add_train_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that train.py and the check before it share."""
    parser.add_argument('--pretrained', metavar='SOURCE', help='initial weights of a detector or '
                        'classifier: a SoCo checkpoint, supervised:FILE (a ResNet trained to '
                        'classify) or random')
    parser.add_argument('--family', choices=['fpn', 'c4'], help='fail if the detector is of the other '
                        'family; set by the scripts of tools/benchmarks/mmdetection')


def load_config(path: str, options: dict[str, Any], register: bool = True,
                cpu: bool = False) -> Config:
    """Load a config and override some of its keys.

    Args:
        path (str): The config file.
        options (dict[str, Any]): Values by dotted key.
        register (bool): Whether to import the config's `custom_imports`. Defaults to True.
        cpu (bool): Whether to convert it to a config for the CPU (`cpu_config`) and hide this process's
            CUDA devices. Defaults to False.

    Returns:
        Config: The config.

    Raises:
        FileNotFoundError: If there is no such config.
        ValueError: If the config cannot be read, or an option names a key that does not exist.
    """
    if not Path(path).is_file():
        near = difflib.get_close_matches(path, [str(p) for p in Path('configs').rglob('*.py')], 1)
        hint = f' Did you mean {near[0]}?' if near else ' The configs are in configs/.'
        raise FileNotFoundError(f'There is no config at {path}.{hint}')
    try:
        with _READING:
            cfg = Config.fromfile(path, import_custom_modules=False)
            update_config(cfg)
            if register and cfg.get('custom_imports'):
                import_modules_from_strings(**cfg.custom_imports)
    except (KeyError, AttributeError, IndexError, SyntaxError) as error:
        raise ValueError(f'{path} cannot be read as a config: {type(error).__name__}: {error}. '
                         'Check the line that it names, and the keys of its _base_ files.'
                         ) from error
    for key, value in options.items():
        check_key(cfg, key)
        check_type_name(key, value)
    cfg.merge_from_dict(options)
    if cpu:
        os.environ['CUDA_VISIBLE_DEVICES'] = ''
        cfg = cpu_config(cfg)
    return cfg


def update_config(cfg: Config) -> None:
    """Update a config that an earlier version of the project wrote to a work directory.

    That version described a view in three lists, which are merged, and some classes had other names.

    Args:
        cfg (Config): Any config; it is changed in place. A config of this version does not change.
    """
    names = {'Bf16OptimWrapper': 'AutocastOptimWrapper'}
    wrapper = cfg.get('optim_wrapper') or {}
    if wrapper.get('type') in names:
        wrapper.type = names[wrapper.type]
    if cfg.get('custom_imports'):
        modules = [{'projects.soco.evaluation.old_metrics': 'projects.soco.compat.metrics'}.get(m, m)
                   for m in cfg.custom_imports.imports]
        if 'projects.soco.engine' in modules and find_hook(cfg, 'ObjectScoreHook'):
            modules.append('projects.soco.evaluation')
        cfg.custom_imports.imports = list(dict.fromkeys(modules))
    model = cfg.get('model', {})
    colours = (model.get('data_preprocessor') or {}).pop('views', [])
    finest = model.pop('finest_levels', None) or []
    pipeline = cfg.get('train_dataloader', {}).get('dataset', {}).get('pipeline') or []
    for transform in pipeline:
        if transform.get('type') == 'ProposalViews':
            for view, settings in zip(transform.views, colours):
                view.update(settings)
            for view, level in zip(transform.views, finest):
                view.finest_level = level


def find_hook(cfg: Config, kind: str) -> ConfigDict | None:
    """Return the config of a hook from `default_hooks` or `custom_hooks`, or None.

    Args:
        cfg (Config): Any config.
        kind (str): The hook's `type`.

    Returns:
        ConfigDict | None: The config of the first such hook, None if there is none.
    """
    hooks = [*(cfg.get('default_hooks') or {}).values(), *(cfg.get('custom_hooks') or [])]
    return next((hook for hook in hooks if hook and hook.get('type') == kind), None)


def set_length(cfg: Config, epochs: int | None, iters: int | None) -> None:
    """Set the length of a run.

    Args:
        cfg (Config): The config; it is changed in place.
        epochs (int | None): Number of epochs, or None.
        iters (int | None): Number of iterations, or None.

    Raises:
        ValueError: If the number is not positive, or the config's loop counts the other unit.
    """
    given = [(key, value) for key, value in (('epochs', epochs), ('iters', iters)) if value is not None]
    for key, value in given:
        if value < 1:
            raise ValueError(f'--{key} must be at least 1, not {value}.')
        if f'max_{key}' not in cfg.train_cfg:
            other = 'iters' if key == 'epochs' else 'epochs'
            raise ValueError(f'--{key} {value}: this config counts its length in {other} '
                             f'(train_cfg.max_{other} is {cfg.train_cfg.get(f"max_{other}")}). Use '
                             f'--{other}.')
        cfg.train_cfg[f'max_{key}'] = value


def set_pretrained(cfg: Config, source: str) -> None:
    """Set the initial weights of a config's model.

    Args:
        cfg (Config): A config with a `PretrainedWeightsHook`; the hook and `load_from` are changed.
        source (str): A SoCo checkpoint; 'supervised:' and a file; or 'random'.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the config has no such hook.
    """
    hook = find_hook(cfg, 'PretrainedWeightsHook')
    if hook is None:
        raise ValueError('--pretrained is for detectors and classifiers (configs/benchmarks/): this '
                         'config has no PretrainedWeightsHook. To start SoCo itself from weights, use '
                         '--cfg-options load_from=FILE')
    kind, colon, path = source.partition(':')
    if kind not in ('supervised', 'random') or (kind == 'supervised' and not colon):
        kind, path = 'soco', source
    if kind != 'random' and not Path(path).is_file():
        raise FileNotFoundError(
            f'There is no checkpoint at {path}. --pretrained takes a file that tools/train.py wrote '
            'for a SoCo config, such as work_dirs/soco_r50_fpn_400e/epoch_400.pth; supervised:FILE, a '
            'ResNet with the names of torchvision or MMClassification; or random.')
    hook.source = kind
    cfg.load_from = None if kind == 'random' else os.path.abspath(path)


def check_key(cfg: Config, key: str) -> None:
    """Check that setting a dotted key has an effect.

    A new key is allowed in a dict with a `type`, whose class checks it, among the arguments of a data
    loader, and at the top level if the Runner accepts it.

    Args:
        cfg (Config): Any config.
        key (str): Such as 'train_dataloader.batch_size'.

    Raises:
        ValueError: If the config has no such key; the message suggests a similar one.
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
    """Reject a `type` that MMEngine would import from any package, such as `subprocess.Popen`.

    Args:
        key (str): A dotted key; only those that end in `type` are checked.
        value (Any): Its value.

    Raises:
        ValueError: If it is neither a registered name nor one with its scope, such as `mmdet.ResNet`.
    """
    scope, dot, name = str(value).partition('.')
    if key.split('.')[-1] == 'type' and dot and (scope not in SCOPES or '.' in name):
        raise ValueError(f'--cfg-options {key}: {value} is not the name of a registered class. Options '
                         'can only set values; name other classes in a config file, which is code.')
