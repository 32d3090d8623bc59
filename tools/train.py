"""Train any config of the project: SoCo pretraining, or a detector that starts from it."""
import argparse
from typing import TYPE_CHECKING

from projects.soco.launch.arguments import add_config_arguments, add_train_arguments
from projects.soco.launch.errors import run_tool

if TYPE_CHECKING:
    from mmengine.config import Config


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    add_config_arguments(parser)
    add_train_arguments(parser)
    parser.add_argument('--resume', nargs='?', const='newest', metavar='PATH',
                        help='resume from a checkpoint; without PATH, from the complete one in '
                        'the work directory that was trained longest')
    length = parser.add_mutually_exclusive_group()
    length.add_argument('--epochs', type=int, metavar='N', help='length of the run, for configs that '
                        'count epochs')
    length.add_argument('--iters', type=int, metavar='N', help='length of the run, for configs that '
                        'count iterations')
    parser.add_argument('--amp', action='store_true', help='mixed precision')
    parser.add_argument('--auto-scale-lr', action='store_true',
                        help='scale the learning rate with the total batch')
    return parser.parse_args()


def apply_arguments(cfg: 'Config', args: argparse.Namespace) -> None:
    """Apply the arguments to the config."""
    from projects.soco.launch.checks import default_work_dir
    from projects.soco.launch.configs import set_length, set_pretrained
    cfg.work_dir = default_work_dir(args.config, args.work_dir, cfg, args.pretrained)
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


def read_start(cfg: 'Config', args: argparse.Namespace) -> dict | None:
    """Read the checkpoint to resume from, which is returned, or the weights to start from."""
    if not (args.resume or cfg.load_from):
        return None
    from projects.soco.launch.configs import is_first_process, use_our_loading
    from projects.soco.weights.read import find_newest_checkpoint, read_checkpoint, read_weights
    path = None
    if args.resume:
        path = args.resume if args.resume != 'newest' else find_newest_checkpoint(cfg.work_dir)
        if path is None and is_first_process():
            print(f'--resume: {cfg.work_dir} contains no complete checkpoint; starting from '
                  f'{cfg.load_from or "scratch"}.')
    if path:
        cfg.resume, cfg.load_from = True, str(path)
        return read_checkpoint(path)
    if cfg.load_from:
        use_our_loading(cfg)
        read_weights(cfg.load_from)
    return None


def check_resumed(cfg: 'Config', checkpoint: dict) -> None:
    """Check that the config can resume a checkpoint, and say what it changes."""
    from projects.soco.launch.configs import is_first_process
    from projects.soco.runs.resume import check_resume
    changes = check_resume(cfg.load_from, checkpoint, cfg)
    if is_first_process():
        print(f'Resuming from {cfg.load_from}', *([changes] if changes else []), sep='\n')


def main() -> None:
    args = parse_args()
    from projects.soco.launch.checks import (
        check_inputs,
        check_shared_memory,
        check_unused,
        check_work_dir,
        prepare_processes,
    )
    from projects.soco.launch.configs import load_config, register_modules
    from projects.soco.launch.schedule_check import schedule_warning
    cfg = load_config(args.config, args.cfg_options, register=False, cpu=args.cpu)
    apply_arguments(cfg, args)
    if not (args.resume or cfg.get('resume')):
        check_unused(cfg.work_dir)
    checkpoint = read_start(cfg, args)
    check_inputs(cfg)
    check_shared_memory(cfg)
    warning = schedule_warning(cfg)
    if checkpoint is not None:
        check_resumed(cfg, checkpoint)
    check_work_dir(cfg.work_dir)

    from mmengine.dist import is_main_process

    import projects.soco.compat  # noqa: F401  (before any import of OpenMMLab)
    from projects.soco.engine.runner import SummaryRunner
    from projects.soco.runs.record import recorded
    register_modules(cfg)
    prepare_processes(cfg, args.launcher)
    runner = SummaryRunner.from_cfg(cfg)
    if warning:
        runner.logger.warning(warning)
    with recorded(runner, args.config):
        runner.train()
    if is_main_process():
        print(f'\nDone. Checkpoints, log and curves are in {cfg.work_dir}')


if __name__ == '__main__':
    run_tool(main)
