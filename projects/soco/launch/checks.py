"""Checks of devices, data and folders before a run starts."""
import importlib.util
import os
import tempfile
from pathlib import Path

from mmengine.config import Config

from ..files import run_checkpoints
from ..proposals.sources import open_source
from ..proposals.store import ProposalStore
from ..proposals.store_check import check_has_boxes, check_store_fits
from .annotations import TRAINING, settle_annotations
from .data_files import check_layout
from .driver import why_no_device

# The package that a backend of MMEngine's visualizer imports when the run starts.
_LOGGERS = {
    'TensorboardVisBackend': 'tensorboard', 'WandbVisBackend': 'wandb', 'MLflowVisBackend': 'mlflow',
    'ClearMLVisBackend': 'clearml', 'NeptuneVisBackend': 'neptune', 'DVCLiveVisBackend': 'dvclive',
    'AimVisBackend': 'aim'}


def check_work_dir(path: str | Path) -> None:
    """Create a work directory, and check that it is writable before anything is built.

    Args:
        path (str | Path): The work directory.

    Raises:
        OSError: If no file can be created there; the message says why and what to do.
    """
    try:
        Path(path).mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=str(path)).close()
    except OSError as error:
        raise OSError(error.errno, f'The work directory {path} cannot be written to '
                      f'({error.strerror}). Choose another folder with --work-dir.') from error


def check_unused(work_dir: str | Path) -> None:
    """Check that a work directory has no checkpoints of an earlier run.

    A new run would overwrite those that have the same names and leave the others, and `--resume` would
    then continue the earlier run, which was trained longer.

    Args:
        work_dir (str | Path): The work directory of a run that is not resumed.

    Raises:
        ValueError: If there are any; the message names the newest.
    """
    found = run_checkpoints(work_dir)
    if found:
        newest = max(found, key=lambda path: path.stat().st_mtime)
        raise ValueError(
            f'The work directory {work_dir} has checkpoints of an earlier run, the newest '
            f'{newest.name}. Add --resume to continue that run. To start anew, choose another folder '
            'with --work-dir, or remove this one.')


def check_devices(cfg: Config, asked: int, found: int) -> None:
    """Check that there are as many GPUs as requested.

    Without any GPU, a config that was made for the CPU may run that many processes.

    Args:
        cfg (Config): The config to train.
        asked (int): Processes requested on this machine.
        found (int): CUDA devices of this machine.

    Raises:
        ValueError: If there are too few; the message has both numbers and says what to do.
    """
    if asked < 1:
        raise ValueError(f'GPUS must be at least 1, not {asked}.')
    if found >= asked:
        return
    if found:
        raise ValueError(
            f'Asked for {asked} GPUs, found {found}. Start with {found} instead: keep the total '
            'batch by raising optim_wrapper.accumulative_counts, or lower it and add --auto-scale-lr.')
    from ..compat.cpu import needs_cuda
    reasons = needs_cuda(cfg)
    if reasons:
        import torch
        raise ValueError(
            f'Asked for {asked} GPUs, found no CUDA device, and this config needs one: it uses '
            f'{"; ".join(reasons)}. {why_no_device(torch.version.cuda)} Run it on a machine with '
            f'{asked} GPUs. To try all steps on a CPU: bash tools/dist_train.sh '
            'configs/soco_r18_fpn_quickstart.py 2')


SHARED = '/dev/shm'  # where torch's data workers put their batches


def check_shared_memory(cfg: Config, processes: int | None = None) -> None:
    """Check that the batches which the data workers of a pretraining run prefetch fit into /dev/shm.

    Otherwise a worker is killed by the bus error of its first batch, after minutes of start-up. Only
    batches of views are counted: those of detectors have no fixed size, and are small.

    Args:
        cfg (Config): The config to train.
        processes (int, optional): Processes of the run on this machine. Defaults to the number that the
            launcher has set; then only the first of them checks, before any has workers, as these start
            when the processes have found each other.

    Raises:
        ValueError: If they do not fit; the message has both sizes, and the number of workers that fits.
    """
    if processes is None:
        if os.environ.get('LOCAL_RANK', os.environ.get('SLURM_LOCALID', '0')) != '0':
            return
        processes = int(os.environ.get('LOCAL_WORLD_SIZE',
                                       os.environ.get('SLURM_NTASKS_PER_NODE', 1)))
    loader = cfg.get('train_dataloader') or {}
    workers = loader.get('num_workers', 0)
    pipeline = (loader.get('dataset') or {}).get('pipeline') or []
    views = next((transform['views'] for transform in pipeline
                  if transform.get('type') == 'ProposalViews'), None)
    if not (workers and views and os.path.isdir(SHARED)):
        return
    batch = loader['batch_size'] * sum(3 * view['size']**2 for view in views)  # bytes: pixels are uint8
    each = processes * batch * (loader.get('prefetch_factor') or 2)  # per worker of every process
    state = os.statvfs(SHARED)
    free = state.f_bavail * state.f_frsize
    if each * workers > free:
        fitting = int(free // each)
        raise ValueError(
            f'The data workers need up to {each * workers / 2**30:.1f} GiB of shared memory '
            f'({processes} processes × {workers} workers × {each // (processes * batch)} batches of '
            f'{batch / 2**20:.0f} MiB), but {SHARED} has {free / 2**30:.1f} GiB free. In a container, '
            'start it with more: docker run --ipc=host, or --shm-size with that size. Or use fewer '
            f'workers: --cfg-options train_dataloader.num_workers={fitting}'
            + ('' if fitting else ' train_dataloader.persistent_workers=False') + '.')


def check_inputs(cfg: Config, loaders: tuple[str, ...] = TRAINING) -> None:
    """Check the input files of a run, so that a missing one is reported once and early.

    Annotations are judged, and replaced by mended copies in the work directory where they need it.

    Args:
        cfg (Config): The config to train or evaluate, with its `work_dir`; its `ann_file`s may change.
        loaders (tuple[str, ...]): The loaders of detectors whose annotations are judged. Defaults to
            those of training.

    Raises:
        FileNotFoundError: If there is no proposal store, no photos or no data set.
        ValueError: If the store cannot be read, has no box or is for other images than those in
            `data_root`; if something in the annotations is refused; or if the package of a logger is
            not installed.
    """
    _check_loggers(cfg)
    dataset = cfg.get('train_dataloader', {}).get('dataset', {})
    if dataset.get('type', '').endswith('SoCoDataset'):
        store = ProposalStore.open(dataset.proposals)
        images = open_source(dataset.data_root, follow_links=dataset.get('follow_links', False))
        check_store_fits(store, images)
        if _compares_boxes(dataset.pipeline):
            check_has_boxes(store, images)
    else:
        check_layout(cfg)
        settle_annotations(cfg, loaders)


def _compares_boxes(pipeline: list[dict]) -> bool:
    """Return whether the objects of a pipeline are boxes, not the whole views only."""
    steps = {transform['type'].split('.')[-1]: transform for transform in pipeline}
    return (steps.get('LoadProposals', {}).get('max_proposals') != 0
            and steps.get('ProposalViews', {}).get('min_shared') != 0)


def _check_loggers(cfg: Config) -> None:
    for backend in (cfg.get('visualizer') or {}).get('vis_backends') or ():
        package = _LOGGERS.get(str(backend.get('type')).split('.')[-1])
        if package and importlib.util.find_spec(package) is None:
            raise ValueError(f'visualizer.vis_backends has {backend["type"]}, which needs the package '
                             f'{package}. Install it (pip install {package}), or remove the entry.')


def default_work_dir(config: str, given: str | None, cfg: Config, pretrained: str | None = None) -> str:
    """Return the work directory of a run.

    Args:
        config (str): Path of the config.
        given (str | None): The value of --work-dir.
        cfg (Config): The config.
        pretrained (str, optional): The value of --pretrained. Defaults to None.

    Returns:
        str: The folder; runs of a detector from other initial weights get other folders.
    """
    kind = (pretrained or '').partition(':')[0]
    name = Path(config).stem + (f'_{kind}' if kind in ('supervised', 'random') else '')
    return given or cfg.get('work_dir') or f'work_dirs/{name}'


def prepare_processes(cfg: Config, launcher: str) -> None:
    """Set a config's launcher, and adapt the config to it if there is no CUDA device.

    Args:
        cfg (Config): The config; it is changed in place.
        launcher (str): 'none', or the name of one of MMEngine's launchers.

    Raises:
        ValueError: If there is no CUDA device, and the config needs one.
    """
    import torch

    from ..compat.cpu import cpu_config, init_cpu_process_group
    cfg.launcher = launcher
    if torch.cuda.is_available():
        return
    check_devices(cfg, asked=int(os.environ.get('LOCAL_WORLD_SIZE', 1)), found=0)
    if launcher != 'none':
        init_cpu_process_group()
        cfg.model_wrapper_cfg = cpu_config(cfg).model_wrapper_cfg
