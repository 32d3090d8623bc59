"""Training on a CPU with configs that were made for GPUs."""
import copy
import os
import subprocess
from collections.abc import Iterator
from typing import Any

import torch
from mmengine.config import Config

from .network import choose_gloo_interface


def init_cpu_process_group() -> None:
    """Join the gloo process group that the launcher's environment describes.

    Without a CUDA device, call this before mmengine's Runner is built: the Runner's own initialisation
    needs a device, and is skipped if a group exists. A second call does nothing. Under Slurm, srun's
    variables replace the launcher's.

    Raises:
        ValueError: If `RANK`, `WORLD_SIZE`, `MASTER_ADDR` or `MASTER_PORT` is not set.
    """
    if torch.distributed.is_initialized():
        return
    if 'SLURM_PROCID' in os.environ and 'RANK' not in os.environ:
        os.environ.update(RANK=os.environ['SLURM_PROCID'], WORLD_SIZE=os.environ['SLURM_NTASKS'],
                          LOCAL_RANK=os.environ['SLURM_LOCALID'])
        os.environ.setdefault('MASTER_PORT', '29500')  # mmengine's default
        if 'MASTER_ADDR' not in os.environ:
            nodes = subprocess.run(['scontrol', 'show', 'hostnames', os.environ['SLURM_NODELIST']],
                                   check=True, capture_output=True, text=True).stdout.split()
            os.environ['MASTER_ADDR'] = nodes[0]
    missing = [name for name in ('RANK', 'WORLD_SIZE', 'MASTER_ADDR', 'MASTER_PORT')
               if name not in os.environ]
    if missing:
        raise ValueError(
            f'Cannot join a process group: {", ".join(missing)} not set in the environment. '
            'Start the processes with torchrun, for example: bash tools/dist_train.sh CONFIG 2')
    choose_gloo_interface()
    torch.distributed.init_process_group('gloo')


# Necks that normalise (N, C) inputs, which plain BN rejects and SyncBN accepts.
_VECTOR_NECKS = ('NonLinearNeck', 'ODCNeck', 'SwAVNeck')


def _type_name(node: dict) -> str:
    """Return the type of a config node without registry scope or module path, or '' without a type."""
    kind = node.get('type', '')
    name = kind if isinstance(kind, str) else getattr(kind, '__name__', '')
    return name.rsplit('.', 1)[-1]


def _is_sync_bn(node: dict) -> bool:
    return _type_name(node) in ('SyncBN', 'MMSyncBN', 'SyncBatchNorm', 'NaiveSyncBN')


def _uses_sync_bn(node: dict) -> bool:
    """Return whether the node is SyncBN, or a neck that builds SyncBN because it has no `norm_cfg`."""
    return _is_sync_bn(node) or (_type_name(node) in _VECTOR_NECKS and 'norm_cfg' not in node)


def _is_amp(node: dict) -> bool:
    return _type_name(node) == 'AmpOptimWrapper'


def _walk(node: Any, path: str = '') -> Iterator[tuple[str, dict]]:
    """Yield every dict in `node` that has a type, with its dotted path, outermost first."""
    if isinstance(node, dict):
        if 'type' in node:
            yield path, node
        items = list(node.items())
    elif isinstance(node, (list, tuple)):
        items = list(enumerate(node))
    else:
        return
    for key, value in items:
        yield from _walk(value, f'{path}.{key}' if path else str(key))


def needs_cuda(cfg: Config) -> list[str]:
    """List the reasons why a config can be trained in parallel only on CUDA devices.

    Args:
        cfg (Config): Any OpenMMLab config.

    Returns:
        list[str]: One entry per reason, such as 'SyncBN (model.backbone.norm_cfg and 3 more places)';
        empty for a config that was made for a CPU.
    """
    nodes = list(_walk(cfg._cfg_dict.to_dict()))
    reasons = []
    for label, uses in (('SyncBN', _uses_sync_bn), ('AmpOptimWrapper', _is_amp)):
        paths = [path for path, node in nodes if uses(node)]
        if paths:
            more = f' and {len(paths) - 1} more places' if len(paths) > 1 else ''
            reasons.append(f'{label} ({paths[0]}{more})')
    return reasons


def cpu_config(cfg: Config) -> Config:
    """Return a copy of a config that trains on a CPU, with the same model and data.

    SyncBN becomes BN (BN1d in necks over vectors), AmpOptimWrapper becomes OptimWrapper in full
    precision, and the wrapper for several processes gets no device ids.

    Args:
        cfg (Config): Any OpenMMLab config; it is not changed.

    Returns:
        Config: A config for which `needs_cuda` is empty.
    """
    cfg = copy.deepcopy(cfg)
    for _, node in _walk(cfg._cfg_dict):
        if _type_name(node) in _VECTOR_NECKS:
            if 'norm_cfg' not in node:
                node['norm_cfg'] = dict(type='BN1d')
            elif _is_sync_bn(node['norm_cfg']):
                node['norm_cfg']['type'] = 'BN1d'
        elif _is_sync_bn(node):
            node['type'] = 'BN'
        elif _is_amp(node):
            node['type'] = 'OptimWrapper'
            for key in ('loss_scale', 'dtype', 'use_fsdp'):
                node.pop(key, None)
    wrapper = dict(type='MMDistributedDataParallel', broadcast_buffers=False)
    cfg.model_wrapper_cfg = {**wrapper, **(cfg.get('model_wrapper_cfg') or {}), 'device_ids': None}
    return cfg
