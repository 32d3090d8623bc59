"""Evaluate a detector."""
import argparse

from mmengine.runner import Runner

import projects.soco.compat  # noqa: F401  (before any import of OpenMMLab)
from projects.soco.launch.annotations import TESTING, follow_checkpoint
from projects.soco.launch.checks import check_inputs, default_work_dir, prepare_processes
from projects.soco.launch.configs import add_config_arguments, load_config
from projects.soco.launch.errors import run_tool
from projects.soco.weights.read import read_checkpoint


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    add_config_arguments(parser)
    parser.add_argument('checkpoint', help='weights of the detector')
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    cfg = load_config(args.config, args.cfg_options, cpu=args.cpu)
    if 'test_dataloader' not in cfg:
        raise ValueError(f"{args.config} has no test_dataloader: it is not a detector's config. "
                         'Use one of those in configs/benchmarks/.')
    cfg.work_dir = default_work_dir(args.config, args.work_dir, cfg)
    follow_checkpoint(cfg, read_checkpoint(args.checkpoint), args.checkpoint)
    check_inputs(cfg, TESTING)
    cfg.load_from = args.checkpoint
    prepare_processes(cfg, args.launcher)
    Runner.from_cfg(cfg).test()


if __name__ == '__main__':
    run_tool(main)
