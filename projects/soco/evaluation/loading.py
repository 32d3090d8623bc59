"""Loading of models to evaluate: randomly initialised, or with the weights of a checkpoint."""
import logging
import re
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.registry import MODELS, DefaultScope

from ..compat.cpu import cpu_config
from ..models.soco import ONLINE_PARTS, SoCo
from ..weights.convert import convert
from ..weights.match import fit_names, match_weights
from ..weights.read import read_weights

_NOT_NEEDED = {'projection': (), 'object': ('projector', ),
               'backbone': ('neck', 'roi_head', 'projector')}
_CONFIGS = {'FPN': 'configs/soco_r50_fpn_400e.py', 'C4': 'configs/soco_r50_c4_400e.py'}


def build_model(cfg: Config, checkpoint: str | Path | None = None, seed: int = 0,
                features: str = 'projection') -> SoCo:
    """Build the model of a pretraining config on the CPU, for evaluation in one process.

    Args:
        cfg (Config): A pretraining config. SyncBN is replaced with BN.
        checkpoint (str | Path, optional): Weights of the model, with this project's or the official
            parameter names; for the features of the backbone, also of another library or method.
            Defaults to None: random initialisation.
        seed (int): Seed of the random initialisation. Defaults to 0.
        features (str): What is evaluated, and so must be in the checkpoint: 'projection', 'object'
            (no projector) or 'backbone'. Defaults to 'projection'.

    Returns:
        SoCo: The model.

    Raises:
        FileNotFoundError: If the checkpoint does not exist.
        ValueError: If the config is not for pretraining, or the checkpoint does not fit it.
    """
    if cfg.get('model', {}).get('type') != 'SoCo':
        raise ValueError(f'{cfg.filename} is not a pretraining config (its model is '
                         f'{cfg.get("model", {}).get("type", "missing")}). Use the config that the '
                         f'checkpoint was trained with, such as {_CONFIGS["FPN"]}')
    # Keep the caller's random state.
    with DefaultScope.overwrite_default_scope(cfg.default_scope), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = MODELS.build(cpu_config(cfg).model)
        if checkpoint is None:
            _init_quietly(model)
    if checkpoint is not None:
        _load_weights(model, cfg, checkpoint, features)
    return model


def build_start(cfg: Config, weights: str | Path | None = None, seed: int = 0) -> SoCo:
    """Build the network that a pretraining run starts from, on the CPU.

    Args:
        cfg (Config): A pretraining config.
        weights (str | Path, optional): Weights of some of the model's parts, as `load_from` loads
            them; the others are random. Defaults to None: all are random.
        seed (int): Seed of the random initialisation. Defaults to 0.

    Returns:
        SoCo: The model.
    """
    model = build_model(cfg, seed=seed)
    if weights is not None:
        state = read_weights(weights)
        names = fit_names(model.state_dict(), state)
        fitted = {names[key]: value for key, value in state.items()}
        for key in match_weights(model.state_dict(), fitted).misplaced:
            del fitted[key]
        model.load_state_dict(fitted, strict=False)
    return model


def _init_quietly(model: SoCo) -> None:
    """Initialise the weights without mmengine's two log lines per tensor."""
    logger = MMLogger.get_current_instance()
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        model.init_weights()
    finally:
        logger.setLevel(level)


def _load_weights(model: SoCo, cfg: Config, path: str | Path, features: str) -> None:
    """Load a file's weights into a model; fail if a part to evaluate is missing or does not fit."""
    state, family = read_weights(path), ''
    if features == 'backbone':
        names = fit_names(model.state_dict(), state)
        state = {names[key]: value for key, value in state.items()
                 if re.match(r'(target\.)?(backbone|roi_head\.shared_head)\.', names[key])}
    elif not state.keys() <= model.state_dict().keys():  # not of this very network: other names, parts
        try:
            conversion = convert(state, 'soco')
        except ValueError as error:
            raise ValueError(f'{path}: {error}') from error
        state, family = conversion.state_dict, conversion.family
    # Without target weights in the file, the target network is a copy of the online network.
    prefix = 'target.' if any(key.startswith('target.') for key in state) else ''
    needed = tuple(f'{prefix}{part}.' for part in ONLINE_PARTS
                   if part in model.target and part not in _NOT_NEEDED[features])
    report = match_weights(model.state_dict(), state)
    problems = [f'{key} is {list(theirs)} in the checkpoint and {list(ours)} in the model'
                for key, (theirs, ours) in report.mismatched.items()]
    problems += [f'{key} is not in the checkpoint' for key in report.fresh
                 if key.startswith(needed) and not key.endswith('num_batches_tracked')]
    problems += [f'{key} is not in the model' for key in report.unused]
    problems += [f'{key}: {why}' for key, why in report.misplaced.items()]
    if problems:
        wanted = 'C4' if 'C4' in cfg.model.roi_head.type else 'FPN'
        family = family or wanted
        kinds = (f'The checkpoint is of SoCo-{family}, the config of SoCo-{wanted}. '
                 if family != wanted else '')
        only = ('It has no projector, like weights for a detector: evaluate its object features with '
                '--features object. ' if all('projector.' in problem for problem in problems) else '')
        raise ValueError(
            f'{path} does not fit {cfg.filename}: {len(problems)} tensors differ, such as: '
            f'{"; ".join(problems[:3])}. {kinds}{only}Use the config that the checkpoint was trained '
            f'with (for the official SoCo-{family}: {_CONFIGS[family]}).')
    model.load_state_dict(state, strict=False)
