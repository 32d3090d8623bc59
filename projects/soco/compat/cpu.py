"""Running a config that was made for GPUs on a CPU."""
import copy
import os
import subprocess
from collections.abc import Iterator
from typing import Any

import torch
from mmengine.config import Config


def init_cpu_process_group() -> None:
    """Joins the gloo process group that the launcher's environment describes.

    To be called before mmengine's Runner is built where there is no CUDA device: the Runner's
    own start needs one, and skips itself when a group exists. Does nothing in a second call.
    Under Slurm, srun's variables stand for the launcher's.

    Raises:
        ValueError: when `RANK`, `WORLD_SIZE`, `MASTER_ADDR` or `MASTER_PORT` is not set.
    """
    if torch.distributed.is_initialized():
        return
    if 'SLURM_PROCID' in os.environ and 'RANK' not in os.environ:
        os.environ.update(RANK=os.environ['SLURM_PROCID'], WORLD_SIZE=os.environ['SLURM_NTASKS'],
                          LOCAL_RANK=os.environ['SLURM_LOCALID'])
        os.environ.setdefault('MASTER_PORT', '29500')  # as mmengine's own start has it
        if 'MASTER_ADDR' not in os.environ:
            nodes = subprocess.run(['scontrol', 'show', 'hostnames', os.environ['SLURM_NODELIST']],
                                   check=True, capture_output=True, text=True).stdout.split()
            os.environ['MASTER_ADDR'] = nodes[0]
    missing = [name for name in ('RANK', 'WORLD_SIZE', 'MASTER_ADDR', 'MASTER_PORT')
               if name not in os.environ]
    if missing:
        raise ValueError(
            f'Cannot join a process group: {", ".join(missing)} not set in the environment. '
            'Start the processes through torchrun, as in: bash tools/dist_train.sh CONFIG 2')
    torch.distributed.init_process_group('gloo')


# Normalisation layers over a (N, C) input: plain BN refuses it, SyncBN takes both shapes.
_VECTOR_NECKS = ('NonLinearNeck', 'ODCNeck', 'SwAVNeck')


def _type_name(node: dict) -> str:
    """The type of a config node, without registry scope or module path ('' when it has none)."""
    kind = node.get('type', '')
    name = kind if isinstance(kind, str) else getattr(kind, '__name__', '')
    return name.rsplit('.', 1)[-1]


def _is_sync_bn(node: dict) -> bool:
    return _type_name(node) in ('SyncBN', 'MMSyncBN', 'SyncBatchNorm', 'NaiveSyncBN')


def _uses_sync_bn(node: dict) -> bool:
    """Whether the node is SyncBN, or a neck that builds SyncBN because no norm is written."""
    return _is_sync_bn(node) or (_type_name(node) in _VECTOR_NECKS and 'norm_cfg' not in node)


def _is_amp(node: dict) -> bool:
    return _type_name(node) == 'AmpOptimWrapper'


def _walk(node: Any, path: str = '') -> Iterator[tuple[str, dict]]:
    """Every dict below `node` that has a type, with its dotted path, outermost first."""
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
    """Lists why a config, as it is written, can only be trained in parallel on CUDA devices.

    Args:
        cfg: any OpenMMLab config.

    Returns:
        One reason a line, such as 'SyncBN (model.backbone.norm_cfg and 3 more places)'; empty
        for a config that was made for a CPU.
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
    """Copies a config into one that trains on a CPU: the same model and data, no CUDA-only part.

    SyncBN becomes BN (BN1d in necks over vectors), AmpOptimWrapper becomes OptimWrapper in full
    precision, and the wrapper for several processes works without devices.

    Args:
        cfg: any OpenMMLab config; it is left as it was.

    Returns:
        A config for which `needs_cuda` is empty.
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
