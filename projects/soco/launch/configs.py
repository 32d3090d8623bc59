"""Functions that load configs and apply the command-line options of the tools."""
import difflib
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mmengine.config import Config, ConfigDict
from mmengine.utils import import_modules_from_strings

from ..files import project_folder
from .options import MISSING, read_value, set_value

CONFIGS = project_folder() / 'configs'
# Loops that resume at the right data, in place of mmengine's.
OUR_LOOPS = {'IterBasedTrainLoop': 'ResumableIterLoop',
             'EpochBasedTrainLoop': 'ResumableDetectorEpochLoop'}
SCOPES = ('mmengine', 'mmcv', 'mmdet', 'mmcls', 'mmselfsup', 'mmpretrain')
# Keys that a Runner accepts although the configs do not list them; `Runner.__init__` cannot be asked
# without the import of torch.
RUNNER_KEYS = {
    'activation_checkpointing', 'auto_scale_lr', 'cfg', 'compile', 'custom_hooks', 'data_preprocessor',
    'default_hooks', 'default_scope', 'efficient_conv_bn_eval', 'env_cfg', 'experiment_name',
    'find_unused_parameters', 'launcher', 'load_from', 'log_level', 'log_processor', 'model',
    'model_wrapper_cfg', 'optim_wrapper', 'param_scheduler', 'randomness', 'resume', 'test_cfg',
    'test_dataloader', 'test_evaluator', 'train_cfg', 'train_dataloader', 'val_cfg', 'val_dataloader',
    'val_evaluator', 'visualizer', 'work_dir'}
# The arguments of torch's DataLoader, for the same reason.
LOADER_KEYS = {
    'batch_sampler', 'batch_size', 'collate_fn', 'dataset', 'drop_last', 'generator', 'in_order',
    'multiprocessing_context', 'num_workers', 'persistent_workers', 'pin_memory', 'pin_memory_device',
    'prefetch_factor', 'sampler', 'shuffle', 'timeout', 'worker_init_fn'}
# MMEngine reloads pkg_resources while it reads a config: two threads that read at once fail.
_READING = threading.Lock()


def _similar_config(path: str) -> str | None:
    """Return the path, from the current folder, of the config whose name is the most similar."""
    known = {f'configs/{file.relative_to(CONFIGS).as_posix()}': file for file in CONFIGS.rglob('*.py')}
    known.update((file.as_posix(), file) for file in Path('configs').rglob('*.py'))
    names = {Path(name).name: name for name in known}
    near = difflib.get_close_matches(path, known, 1) or [
        names[name] for name in difflib.get_close_matches(Path(path).name, names, 1)]
    return next((name if Path(name).is_file() else str(known[name]) for name in near), None)


def load_config(path: str, options: dict[str, Any], register: bool = True,
                cpu: bool = False) -> Config:
    """Load a config and override some of its keys.

    Args:
        path (str): The config file.
        options (dict[str, Any]): Values by dotted key. Text takes the type of the value that it
            replaces (`options.read_value`); other values are set as they are.
        register (bool): Whether to import the config's `custom_imports`. Defaults to True. A tool that
            checks its inputs first calls `register_modules` afterwards.
        cpu (bool): Whether to convert it to a config for the CPU (`cpu_config`). Defaults to False. It
            hides no device, as it is too late for that: see `arguments.hide_devices`.

    Returns:
        Config: The config.

    Raises:
        FileNotFoundError: If there is no such config.
        ValueError: If the config cannot be read, or an option names a key that does not exist.
    """
    if not Path(path).is_file():
        near = _similar_config(path)
        hint = f'Did you mean {near}?' if near else f"The project's configs are in {CONFIGS}."
        raise FileNotFoundError(f'There is no config at {path}. {hint}')
    try:
        with _READING:
            cfg = Config.fromfile(path, import_custom_modules=False)
            update_config(cfg)
    except (KeyError, AttributeError, IndexError, SyntaxError) as error:
        raise ValueError(f'{path} cannot be read as a config: {type(error).__name__}: {error}. '
                         'Check the line that it names, and the keys of its _base_ files.'
                         ) from error
    except ModuleNotFoundError as error:
        raise ValueError(f'{path} cannot be read as a config, because a package that it or its _base_ '
                         f'names is missing: {error}. The forks of OpenMMLab have no configs of '
                         "mmcls; create an environment with OpenMMLab's own releases for it: "
                         'bash tools/setup_env.sh --host openmmlab') from error
    if any(key.startswith('default_hooks.pretrained.') for key in options):
        use_our_loading(cfg)
    for key, value in options.items():
        apply_option(cfg, key, value)
    if register:
        with _READING:
            register_modules(cfg)
    if cpu:
        from ..compat.cpu import cpu_config
        cfg = cpu_config(cfg)
    return cfg


def register_modules(cfg: Config) -> None:
    """Import the modules that a config names in `custom_imports`, which register components.

    Args:
        cfg (Config): Any config.
    """
    if cfg.get('custom_imports'):
        import_modules_from_strings(**cfg.custom_imports)


def apply_option(cfg: Config, key: str, value: Any) -> None:
    """Set a key of a config as `--cfg-options` asks.

    Args:
        cfg (Config): Any config; it is changed in place.
        key (str): Dotted key; 'KEY:' allows a value of another type.
        value (Any): Text of the command line, or a value.

    Raises:
        ValueError: If the key does not exist, or the value does not fit.
    """
    name = key.removesuffix(':')
    check_key(cfg, name)
    parts = name.split('.')
    old: Any = cfg._cfg_dict
    for part in parts:
        old = old[int(part)] if isinstance(old, (list, tuple)) else old.get(part, MISSING)
    if isinstance(value, str):
        value = read_value(key, value, old)
    if isinstance(value, dict) and isinstance(old, dict) and not value.get('_delete_'):
        for inner in value:
            check_key(cfg, f'{name}.{inner}')
    for path, leaf in _leaves(name, value):
        check_type_name(path, leaf)
    cfg[parts[0]] = set_value(cfg.get(parts[0]), parts[1:], value)


def _leaves(path: str, value: Any) -> Iterator[tuple[str, Any]]:
    """Yield the dotted keys and values inside a value, or the value itself."""
    items = value.items() if isinstance(value, dict) else enumerate(value) \
        if isinstance(value, (list, tuple)) else ()
    for key, inner in items:
        yield from _leaves(f'{path}.{key}', inner)
    if not items:
        yield path, value


def update_config(cfg: Config) -> None:
    """Update a config that an earlier version of the project wrote to a work directory.

    That version described a view in three lists, which are merged, counted the warm-up in epochs, had
    no `ResumeHook`, and some classes had other names.

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
    if (cfg.get('train_cfg') or {}).get('type') == 'ResumableEpochLoop' and not find_hook(
            cfg, 'ResumeHook'):
        cfg.setdefault('default_hooks', ConfigDict()).resume = ConfigDict(type='ResumeHook')
    for scheduler in schedulers_of(cfg):
        if scheduler.get('type') == 'WarmupLR' and 'end' in scheduler:
            scheduler.update(by_epoch=False, share=scheduler.pop('end') / cfg.train_cfg.max_epochs)
            for key in ('begin', 'convert_to_iter_based'):
                scheduler.pop(key, None)
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


def is_first_process() -> bool:
    """Return whether this process is the first of a run, before its group is initialised."""
    return os.environ.get('RANK', os.environ.get('SLURM_PROCID', '0')) == '0'


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


def dicts_in(node: Any) -> Iterator[dict]:
    """Yield every dict of a nested config, the outer ones first."""
    if isinstance(node, dict):
        yield node
        node = list(node.values())
    if isinstance(node, (list, tuple)):
        for value in node:
            yield from dicts_in(value)


def drop_weights(part: dict) -> list[str]:
    """Keep a module from loading weights by itself; return where they would come from.

    Args:
        part (dict): Config of a module; it is changed in place.

    Returns:
        list[str]: The sources.
    """
    found = []
    for key in ('pretrained', 'init_cfg', 'teacher_ckpt'):
        if source := pretrained_source(part.get(key)):
            found.append(source)
            part[key] = False if part[key] is True else None
    return found


def pretrained_source(value: Any) -> str | None:
    """Return where a `pretrained` or an `init_cfg` loads weights from, or None if it does not."""
    if value is True:
        return "the model's default"
    if isinstance(value, str):
        return value
    return next((str(rule.get('checkpoint')) for rule in
                 (value if isinstance(value, list) else [value])
                 if isinstance(rule, dict) and rule.get('type') == 'Pretrained'), None)


def imports_of(cfg: Config) -> list[str]:
    """Return the modules of a config's `custom_imports`, which may be a single text."""
    imports = (cfg.get('custom_imports') or {}).get('imports') or []
    return [imports] if isinstance(imports, str) else list(imports)


def schedulers_of(cfg: Config) -> list[ConfigDict]:
    """Return the schedules of a config, which may be a single one."""
    schedulers = cfg.get('param_scheduler') or []
    return [schedulers] if isinstance(schedulers, dict) else list(schedulers)


def use_our_loading(cfg: Config) -> ConfigDict:
    """Make a config of any project load `load_from` as this project does, and return its hook for it.

    The hook converts names, logs what matched and stops if too little did. Where the config has no such
    hook, its checkpoints also become those of this project, which can be resumed.

    Args:
        cfg (Config): Any config; it is changed in place.

    Returns:
        ConfigDict: The config of the `PretrainedWeightsHook`.
    """
    for part in dicts_in(cfg.get('model')):
        for source in drop_weights(part) if part.get('type') else ():
            from mmengine.logging import MMLogger
            MMLogger.get_current_instance().warning(
                f'{part["type"]} would load {source}, which is not used: the weights that this run '
                'starts from replace it.')
    hook = find_hook(cfg, 'PretrainedWeightsHook')
    if hook is None:
        hooks = cfg.setdefault('default_hooks', ConfigDict())
        hooks.pretrained = ConfigDict(type='PretrainedWeightsHook')
        if (hooks.get('checkpoint') or {}).get('type') == 'CheckpointHook':
            hooks.checkpoint.type = 'PlainCheckpointHook'
            hooks.resume = ConfigDict(type='ResumeHook')
            loop = cfg.get('train_cfg') or {}
            if loop.get('type') in OUR_LOOPS:
                loop.type = OUR_LOOPS[loop.type]
        cfg.custom_imports = dict(
            imports=[*imports_of(cfg), 'projects.soco.engine'], allow_failed_imports=False)
        hook = hooks.pretrained
    return hook


def set_pretrained(cfg: Config, source: str) -> None:
    """Set the initial weights of a config's model.

    Args:
        cfg (Config): Any config; its `PretrainedWeightsHook` and `load_from` are changed.
        source (str): A file of weights; 'supervised:' and a file; or 'random'.

    Raises:
        FileNotFoundError: If there is no such file.
    """
    kind, colon, path = source.partition(':')
    if kind not in ('supervised', 'random') or (kind == 'supervised' and not colon):
        kind, path = 'soco', source
    if kind != 'random' and not Path(path).is_file():
        raise FileNotFoundError(
            f'There is no checkpoint at {path}. --pretrained takes a file that tools/train.py wrote '
            'for a SoCo config, such as work_dirs/soco_r50_fpn_400e/epoch_400.pth; supervised:FILE, '
            'of which only the backbone is needed (docs/weights.md lists what is recognised); or '
            'random.')
    use_our_loading(cfg).source = kind
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
    if parts[0] == 'custom_imports':
        raise ValueError(f'--cfg-options {key}: options can only set values. Name modules to import in '
                         'a config file, which is code.')
    for i, part in enumerate(parts):
        last = i == len(parts) - 1
        if isinstance(node, (list, tuple)):
            known = [str(n) for n in range(len(node))]
        elif isinstance(node, dict):
            known = [str(name) for name in node]
            if last and 'type' in node:
                return
            if last and done and done[-1].endswith('_dataloader'):
                known += sorted(LOADER_KEYS - {*known})
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
        key (str): A dotted key; only those that end in `type` or `_scope_` are checked.
        value (Any): Its value.

    Raises:
        ValueError: If it is neither a registered name nor one with its scope, such as `mmdet.ResNet`.
    """
    scope, dot, name = str(value).partition('.')
    last = key.split('.')[-1]
    if (last == 'type' and dot and (scope not in SCOPES or '.' in name)) or (
            last in ('_scope_', 'default_scope') and value not in SCOPES):
        raise ValueError(f'--cfg-options {key}: {value} is not the name of a registered class. Options '
                         'can only set values; name other classes in a config file, which is code.')
