"""Evaluate a detector."""
import argparse
from pathlib import Path

from mmengine.runner import Runner

import projects.soco.compat  # noqa: F401  (before any import of OpenMMLab)
from projects.soco.launch.checks import check_inputs, prepare_processes
from projects.soco.launch.configs import add_config_arguments, load_config, use_our_loading
from projects.soco.launch.errors import run_tool
from projects.soco.weights.read import read_weights


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
    check_inputs(cfg)
    read_weights(args.checkpoint)
    cfg.work_dir = args.work_dir or cfg.get('work_dir') or f'work_dirs/{Path(args.config).stem}'
    cfg.load_from = args.checkpoint
    use_our_loading(cfg)
    prepare_processes(cfg, args.launcher)
    Runner.from_cfg(cfg).test()


if __name__ == '__main__':
    run_tool(main)
