"""Check, before any process starts, that a run can start."""
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
