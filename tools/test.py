"""Evaluate a detector."""
import argparse

from projects.soco.launch.arguments import add_config_arguments
from projects.soco.launch.errors import run_tool


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    add_config_arguments(parser)
    parser.add_argument('checkpoint', help='weights of the detector')
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    from projects.soco.launch.annotations import TESTING, follow_checkpoint
    from projects.soco.launch.checks import check_inputs, default_work_dir, prepare_processes
    from projects.soco.launch.configs import load_config, register_modules, use_our_loading
    from projects.soco.launch.data_files import check_layout
    cfg = load_config(args.config, args.cfg_options, register=False, cpu=args.cpu)
    if 'test_dataloader' not in cfg:
        raise ValueError(f"{args.config} has no test_dataloader: it is not a detector's config. "
                         'Use one of those in configs/benchmarks/.')
    check_layout(cfg)  # first: missing files are told without the import of torch
    from projects.soco.weights.read import load_content
    cfg.work_dir = default_work_dir(args.config, args.work_dir, cfg)
    follow_checkpoint(cfg, load_content(args.checkpoint), args.checkpoint)
    check_inputs(cfg, TESTING)
    cfg.load_from = args.checkpoint
    use_our_loading(cfg)

    import projects.soco.compat  # noqa: F401  (before any import of OpenMMLab)
    from projects.soco.engine.runner import SummaryRunner
    register_modules(cfg)
    prepare_processes(cfg, args.launcher)
    SummaryRunner.from_cfg(cfg).test()


if __name__ == '__main__':
    run_tool(main)
