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

# How the system says that a disk is full: it names no file.
FULL = [str(OSError(code, os.strerror(code))) for code in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)]
SCOPES = ('mmengine', 'mmcv', 'mmdet', 'mmcls', 'mmselfsup')
# Keys that a Runner understands although the configs do not spell them out.
RUNNER_KEYS = {*inspect.signature(Runner.__init__).parameters, 'activation_checkpointing',
               'compile', 'efficient_conv_bn_eval', 'find_unused_parameters', 'model_wrapper_cfg'}


def run_tool(main: Callable[[], None]) -> None:
    """Run a tool; what a user can get wrong ends as one paragraph and exit code 2.

    Set `SOCO_TRACEBACK=1` to see the whole traceback.
    """
    try:
        main()
        if torch.distributed.is_initialized():
            # Else a thread of the group may outlive the interpreter, which aborts the process.
            torch.distributed.barrier()
            torch.distributed.destroy_process_group()
    except (ValueError, OSError, TypeError, KeyError, FloatingPointError) as error:
        if os.environ.get('SOCO_TRACEBACK') == '1' or not is_for_the_user(error):
            raise
        sys.stdout.flush()
        print(f'\nerror: {error_text(error)}', file=sys.stderr)
        sys.exit(2)


def is_for_the_user(error: BaseException) -> bool:
    """Tell what a user can mend, such as a config's key that no class takes, from our own bugs."""
    if isinstance(error, TypeError):
        return 'got an unexpected keyword argument' in str(error)
    if isinstance(error, KeyError):
        return ' is not in the ' in str(error) and 'registry' in str(error)
    return True


def error_text(error: BaseException) -> str:
    """Return an error's message without what registries and worker processes put around it."""
    text = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
    if isinstance(error, OSError) and text in FULL:
        text = (f'A file could not be written ({error.strerror}); what was complete before is intact. '
                'Free some disk space; training then goes on with --resume.')
    if isinstance(error, TypeError):
        text = f'{text}: the config gives a key that does not exist, or misspells one.'
    if 'Original Traceback' in text:  # from a DataLoader worker: the last line is the message
        text = text.strip().splitlines()[-1]
    if 'need at least one array to concatenate' in text:  # how mmengine says it
        text = ('No image of a data set is left: none has an object of its classes (metainfo) that is '
                'large enough (filter_cfg). Compare the class list with the annotation.')
    text = re.sub(r'class `\w+` in \S+?\.py: ', '', text)
    text = re.sub(r'^(\w+\.)*\w*Error: ', '', text)
    # line by line: some messages show a tree
    return '\n'.join(textwrap.fill(line, width=96, break_long_words=False, break_on_hyphens=False)
                     if len(line) > 96 else line for line in text.split('\n'))


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
    reasons = compat.needs_cuda(cfg)
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
        compat.init_cpu_process_group()
        cfg.model_wrapper_cfg = compat.cpu_config(cfg).model_wrapper_cfg


def main() -> None:
    """Check, before any process starts, that a run can: CONFIG GPUS [arguments of train.py]."""
    parser = argparse.ArgumentParser()
    add_config_arguments(parser)
    add_train_arguments(parser)
    parser.add_argument('gpus', type=int)
    args, _ = parser.parse_known_args()
    cfg = load_config(args.config, args.cfg_options, register=False, cpu=args.cpu)
    if args.family:
        check_family(cfg, args.family)
    if args.pretrained:
        set_pretrained(cfg, args.pretrained)
    check_devices(cfg, args.gpus, torch.cuda.device_count())
    check_inputs(cfg)


if __name__ == '__main__':
    run_tool(main)
