"""Check that a run can start, before any of its processes is launched."""
import argparse

import torch

from .checks import check_devices, check_family, check_inputs, default_work_dir
from .configs import add_config_arguments, add_train_arguments, load_config, set_pretrained
from .errors import run_tool


def main() -> None:
    """Check that a run can start; arguments: CONFIG GPUS [arguments of train.py]."""
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
    cfg.work_dir = default_work_dir(args.config, args.work_dir, cfg, args.pretrained)
    check_inputs(cfg)


if __name__ == '__main__':
    run_tool(main)
