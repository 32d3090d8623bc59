"""Configs of detectors: reading, checking, and lifting what keeps modules from being trained."""
import importlib
import inspect
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import mmcls.models  # noqa: F401  (registers its backbones)
from mmdet.models.detectors.base import BaseDetector
from mmdet.registry import MODELS
from mmengine.config import Config, ConfigDict
from mmengine.registry import DefaultScope
from mmengine.utils import get_installed_path

from ..compat.host import host_name
from ..launch.configs import apply_option, dicts_in, drop_weights, imports_of

SCOPE = 'mmdet'
SHIPPED = 'mmdet::'
_HAS_MMPRETRAIN = host_name() == 'onedl'
_EXAMPLE = 'mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py'


def config_path(name: str) -> Path:
    """Return the path of a detector's config.

    Args:
        name (str): A path, or `mmdet::` and the path of a config that mmdet ships.

    Returns:
        Path: The file.

    Raises:
        FileNotFoundError: If there is no such file.
    """
    if not name.startswith(SHIPPED):
        path, where = Path(name), f'or a config that MMDetection ships, such as {_EXAMPLE}'
    else:
        folder = Path(get_installed_path('mmdet')) / '.mim/configs'
        path, where = folder / name.removeprefix(SHIPPED), f'as it is named in {folder}'
    path = path if path.suffix else path.with_suffix('.py')
    if not path.is_file():
        raise FileNotFoundError(f'There is no config at {path}. Give the path of a config, '
                                f'{where}.')
    return path


def read_detector(name: str, options: Mapping[str, Any] | None = None) -> tuple[Config, list[str]]:
    """Read the config of a detector and check that it is one.

    Args:
        name (str): See `config_path`.
        options (Mapping[str, Any], optional): Values of `--cfg-options` by dotted key. Defaults to
            None.

    Returns:
        tuple[Config, list[str]]: The config, whose `model` is plain and names installed classes only;
        and a sentence for each thing that was passed over or replaced.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is not the config of a detector, a package that it needs is missing, or
            an option does not fit.
    """
    path = config_path(name)
    try:
        cfg = Config.fromfile(path, import_custom_modules=False)
    except Exception as error:  # a config is a program, which may raise any error
        raise ValueError(f'{path} cannot be read as a config: {type(error).__name__}: {error}. Check '
                         'the line that it names, and the files in its _base_.') from error
    for key, value in (options or {}).items():
        apply_option(cfg, key, value)
    model = plain(cfg.get('model'))
    _check_kind(model, path)
    notes = _import_modules(cfg, path)
    notes += sorted(set(_serve_mmpretrain(model, path)))
    kind = _find_class(model['type'])
    if kind is None or not issubclass(kind, BaseDetector):
        what = 'is not installed' if kind is None else 'is not a detector of MMDetection'
        raise ValueError(f'{path}: {model["type"]} {what}. Give the config of a detector, such as '
                         f'{_EXAMPLE}; if the class is your own, name its module in custom_imports.')
    cfg._cfg_dict['model'] = ConfigDict(model)
    return cfg, notes


def plain(node: Any) -> Any:
    """Return a config node as plain dicts, lists and tuples, with classes by their full names."""
    if isinstance(node, dict):
        return {key: plain(value) for key, value in node.items()}
    if isinstance(node, (list, tuple)):
        return type(node)(plain(value) for value in node)
    return f'{node.__module__}.{node.__qualname__}' if inspect.isclass(node) else node


def _check_kind(model: Any, path: Path) -> None:
    if not isinstance(model, dict) or 'type' not in model:
        what = 'it has no model'
    elif model['type'] in ('SoCo', 'mmselfsup.SoCo'):
        what = ('it is a pretraining config already: give it to tools/train.py, or give the config of '
                'the detector here')
    elif 'backbone' not in model:
        inner = next((key for key in ('detector', 'student') if key in model), None)
        what = (f'its model, {model["type"]}, contains a detector under model.{inner}: give the '
                'config of that detector' if inner else
                f'its model, {model["type"]}, has no backbone')
    else:
        return
    raise ValueError(f'{path} is not the config of a detector: {what}. An example is {_EXAMPLE}.')


def _import_modules(cfg: Config, path: Path) -> list[str]:
    """Import the modules that the config asks for; remove those of mmpretrain where it is not there."""
    imports, notes = imports_of(cfg), []
    for name in imports:
        if name.split('.')[0] == 'mmpretrain' and not _HAS_MMPRETRAIN:
            notes.append(f'custom_imports of {name} was passed over: MMClassification 1.0 has the '
                         'same backbones.')
            continue
        try:
            importlib.import_module(name)
        except ImportError as error:
            raise ValueError(
                f'{path} imports {name} (custom_imports), and this fails: {error}. Install the package '
                'that it names, put the folder of your own module on PYTHONPATH, or remove the line '
                'if backbone, neck and RoI head do not need it.') from error
    if notes:
        cfg.custom_imports.imports = [name for name in imports if name.split('.')[0] != 'mmpretrain']
    return notes


def _serve_mmpretrain(node: Any, path: Path) -> Iterator[str]:
    """Replace the types of mmpretrain by mmcls's classes of that name, and say so.

    Where MMPretrain is the host, nothing is replaced.
    """
    for part in typed(node):
        scope, dot, name = str(part['type']).partition('.')
        if not dot or scope != 'mmpretrain':
            continue
        if _HAS_MMPRETRAIN:
            if _find_class(part['type']) is None:
                raise ValueError(
                    f'{path} needs {part["type"]}, and the installed MMPretrain has no {name}. Use '
                    'another backbone, such as mmdet.ResNet or mmpretrain.TIMMBackbone, which offers '
                    'those of timm.')
            continue
        if _find_class(f'mmcls.{name}') is None:
            raise ValueError(
                f'{path} needs {part["type"]}, and the package mmpretrain cannot be used: it does not '
                f'work beside MMSelfSup, and MMClassification 1.0, which serves its classes here, has '
                f'no {name}. Use another backbone, such as mmdet.ResNet or mmcls.TIMMBackbone, which '
                'offers those of timm.')
        part['type'] = f'mmcls.{name}'
        yield f'mmpretrain.{name} is served by mmcls.{name}, which has the same parameter names.'


def typed(node: Any) -> Iterator[dict]:
    """Yield every dict inside a plain config node that has a `type`, outermost first."""
    return (part for part in dicts_in(node) if isinstance(part.get('type'), str))


def _find_class(name: str) -> type | None:
    with DefaultScope.overwrite_default_scope(SCOPE):
        try:
            return MODELS.get(name)
        except ImportError:
            return None


def lifted(node: Any, where: str) -> tuple[Any, list[str]]:
    """Copy a part of a detector's config so that the whole part is trained, from no weights.

    Frozen stages and norms, recomputation, which does not go with several views per step, and
    downloads are switched off.

    Args:
        node (Any): Config of a backbone, a neck, a list of necks or a shared head, plain.
        where (str): Name of the part, for the sentences.

    Returns:
        tuple[Any, list[str]]: The config, with the scope to build it in; and a sentence for each
        setting that differs.
    """
    node, notes = plain(node), []
    for part in typed(node):
        name = f'{where}: {part["type"]}'
        notes += [f'{name} has {key}={was} in the detector; here {part[key]}.'
                  for key, was in lift(part, ('frozen_stages', 'norm_eval', 'with_cp'))]
        notes += [f'{name} names initial weights ({source}), which are not loaded: give them with '
                  '--weights.' for source in drop_weights(part)]
    if train_norms(node):
        notes.append(f'{where}: its norms have requires_grad=False in the detector; here True.')
    for part in node if isinstance(node, list) else [node]:
        part['_scope_'] = SCOPE
    return node, list(dict.fromkeys(notes))


def lift(part: dict, keys: Sequence[str]) -> list[tuple[str, Any]]:
    """Switch off settings of a module that keep layers from being trained.

    Args:
        part (dict): Config of a module with its `type`; it is changed in place.
        keys (Sequence[str]): Of 'frozen_stages', 'norm_eval' and 'with_cp'.

    Returns:
        list[tuple[str, Any]]: The settings that were on, and their values.
    """
    known, found = arguments_of(part['type']), []
    for key in keys:
        # each class has its own number for no frozen stage, which is its default
        off = known.get(key) if key == 'frozen_stages' else False
        if key in known and (was := part.get(key, known[key])) != off:
            found.append((key, was))
            part[key] = off
    return found


def train_norms(node: Any) -> bool:
    """Let the norms of a part of a config be trained; return whether some were not."""
    frozen = [norm for part in dicts_in(node) if isinstance(norm := part.get('norm_cfg'), dict)
              and norm.get('requires_grad') is False]
    for norm in frozen:
        norm['requires_grad'] = True
    return bool(frozen)


def arguments_of(name: str) -> dict[str, Any]:
    """Return the arguments of a class, also those that it passes to its parents, with defaults."""
    kind, known = _find_class(name), {}
    for parent in reversed(getattr(kind, '__mro__', ())):
        if '__init__' in vars(parent):
            known.update({key: value.default for key, value in
                          inspect.signature(parent.__init__).parameters.items()
                          if value.default is not inspect.Parameter.empty})
    return known
