"""Train any config of the project: SoCo pretraining, or a detector that starts from it."""
import argparse
from pathlib import Path

from mmengine.config import Config
from mmengine.dist import is_main_process
from mmengine.runner import Runner

import projects.soco.compat  # noqa: F401  (before any import of OpenMMLab)
from projects.soco.launch.checks import check_family, check_inputs, check_work_dir, prepare_processes
from projects.soco.launch.configs import (
    add_config_arguments,
    add_train_arguments,
    load_config,
    set_length,
    set_pretrained,
)
from projects.soco.launch.errors import run_tool
from projects.soco.runs.record import recorded
from projects.soco.runs.resume import check_resume
from projects.soco.weights.read import find_newest_checkpoint, read_checkpoint


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    add_config_arguments(parser)
    add_train_arguments(parser)
    parser.add_argument('--resume', nargs='?', const='newest', metavar='PATH',
                        help='resume from a checkpoint; without PATH, from the last complete one '
                        'in the work directory')
    length = parser.add_mutually_exclusive_group()
    length.add_argument('--epochs', type=int, metavar='N', help='length of the run, for configs that '
                        'count epochs')
    length.add_argument('--iters', type=int, metavar='N', help='length of the run, for configs that '
                        'count iterations')
    parser.add_argument('--amp', action='store_true', help='mixed precision')
    parser.add_argument('--auto-scale-lr', action='store_true',
                        help='scale the learning rate with the total batch')
    return parser.parse_args()


def apply_arguments(cfg: Config, args: argparse.Namespace) -> None:
    """Apply the arguments to the config."""
    kind = (args.pretrained or '').partition(':')[0]
    # runs of a detector from other initial weights get other folders
    name = Path(args.config).stem + (f'_{kind}' if kind in ('supervised', 'random') else '')
    cfg.work_dir = args.work_dir or cfg.get('work_dir') or f'work_dirs/{name}'
    set_length(cfg, args.epochs, args.iters)
    if args.pretrained:
        set_pretrained(cfg, args.pretrained)
    if args.amp:
        cfg.optim_wrapper.type = 'AmpOptimWrapper'
        cfg.optim_wrapper.setdefault('loss_scale', 'dynamic')
    if args.auto_scale_lr:
        if 'base_batch_size' not in cfg.get('auto_scale_lr', {}):
            raise ValueError(f'--auto-scale-lr: {args.config} has no auto_scale_lr.base_batch_size, '
                             'the total batch that its learning rate is for. Add it to the config.')
        cfg.auto_scale_lr.enable = True
        # mmengine only multiplies processes and batch_size; accumulated iterations count too.
        cfg.auto_scale_lr.base_batch_size /= cfg.optim_wrapper.get('accumulative_counts', 1)
    if args.resume:
        path = args.resume if args.resume != 'newest' else find_newest_checkpoint(cfg.work_dir)
        if path is None:
            print(f'--resume: {cfg.work_dir} contains no complete checkpoint; starting from scratch.')
            return
        changes = check_resume(path, read_checkpoint(path), cfg)
        cfg.resume, cfg.load_from = True, str(path)
        print(f'Resuming from {path}', *([changes] if changes else []), sep='\n')
    elif cfg.load_from:
        read_checkpoint(cfg.load_from)


def main() -> None:
    args = parse_args()
    cfg = load_config(args.config, args.cfg_options, cpu=args.cpu)
    if args.family:
        check_family(cfg, args.family)
    apply_arguments(cfg, args)
    check_inputs(cfg)
    check_work_dir(cfg.work_dir)
    prepare_processes(cfg, args.launcher)
    runner = Runner.from_cfg(cfg)
    with recorded(runner, args.config):
        runner.train()
    if is_main_process():
        print(f'\nDone. Checkpoints, log and curves are in {cfg.work_dir}')


if __name__ == '__main__':
    run_tool(main)
