"""Checks of devices, data and folders before a run starts."""
import os
import tempfile
from pathlib import Path

import torch
from mmengine.config import Config

from ..compat.cpu import cpu_config, init_cpu_process_group, needs_cuda
from ..proposals.sources import open_source
from ..proposals.store import ProposalStore
from ..proposals.store_check import check_store_fits
from .data_files import check_layout


def check_work_dir(path: str | Path) -> None:
    """Make a work directory, and refuse one that cannot be written to before anything is built.

    Raises:
        OSError: No file can be made there; the message says why and what to do.
    """
    try:
        Path(path).mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=str(path)).close()
    except OSError as error:
        raise OSError(error.errno, f'The work directory {path} cannot be written to '
                      f'({error.strerror}). Give another place by --work-dir.') from error


def check_devices(cfg: Config, asked: int, found: int) -> None:
    """Refuse to start with fewer GPUs than asked for.

    Without any GPU, a config that was made for a CPU may run that many processes.

    Args:
        cfg (Config): What would be trained.
        asked (int): Processes wanted on this machine.
        found (int): CUDA devices of this machine.

    Raises:
        ValueError: What was asked, what was found, what to do.
    """
    if asked < 1:
        raise ValueError(f'GPUS must be at least 1, not {asked}.')
    if found >= asked:
        return
    if found:
        raise ValueError(
            f'Asked for {asked} GPUs, found {found}. Start with {found} instead and keep the total '
            'batch: raise optim_wrapper.accumulative_counts, or lower it and add --auto-scale-lr.')
    reasons = needs_cuda(cfg)
    if reasons:
        raise ValueError(
            f'Asked for {asked} GPUs, found no CUDA device, and this config needs one: it uses '
            f'{"; ".join(reasons)}. Run it on a machine with {asked} GPUs (nvidia-smi should list '
            'them, and `python -c "import torch; print(torch.cuda.device_count())"` should say so '
            'too). To see the whole way on a CPU: bash tools/dist_train.sh '
            'configs/soco_r18_fpn_quickstart.py 2')


def check_inputs(cfg: Config) -> None:
    """Look at the files that a run starts from, so that what is missing is told once and early.

    Args:
        cfg (Config): What would be trained or evaluated.

    Raises:
        FileNotFoundError: No proposal store, no photos, no data set.
        ValueError: The store cannot be read, or is of other images than `data_root` holds.
    """
    dataset = cfg.get('train_dataloader', {}).get('dataset', {})
    if dataset.get('type', '').endswith('SoCoDataset'):
        store = ProposalStore.open(dataset.proposals)
        images = open_source(dataset.data_root, follow_links=dataset.get('follow_links', False))
        check_store_fits(store, images)
    else:
        check_layout(cfg)


def check_family(cfg: Config, family: str) -> None:
    """Refuse a detector of the other family than a script is for.

    Args:
        cfg (Config): A detector.
        family (str): 'fpn' or 'c4'.

    Raises:
        ValueError: It is of the other family.
    """
    found = 'fpn' if cfg.get('model', {}).get('neck') else 'c4'
    if found != family:
        raise ValueError(f'This script is for detectors of the family {family}, and the config is of '
                         f'{found} (it has {"a" if found == "fpn" else "no"} neck). Use the script '
                         f'with {found} in its name, and weights of that family.')


def prepare_processes(cfg: Config, launcher: str) -> None:
    """Make a config run with a launcher where there is no CUDA device.

    Raises:
        ValueError: The config needs CUDA devices.
    """
    cfg.launcher = launcher
    if torch.cuda.is_available():
        return
    check_devices(cfg, asked=int(os.environ.get('LOCAL_WORLD_SIZE', 1)), found=0)
    if launcher != 'none':
        init_cpu_process_group()
        cfg.model_wrapper_cfg = cpu_config(cfg).model_wrapper_cfg
