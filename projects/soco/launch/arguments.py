"""Command-line arguments that tools share. Only the standard library is imported.

A tool defines its arguments at the top and imports torch, OpenMMLab and whatever imports them inside
functions, after the arguments were parsed and as many inputs as possible were checked: importing them
takes 2 to 7 CPU seconds, for which nobody should wait to read `--help` or that a flag is misspelt.
"""
import argparse
import os
import sys
from collections.abc import Sequence
from typing import Any


class KeyValueAction(argparse.Action):
    """Collect KEY=VALUE words in a dict; each value stays the text that the user wrote.

    `launch.options` converts the values when the config is known. If a key is repeated, the last value
    counts, and one line says so.
    """

    def __call__(self, parser: argparse.ArgumentParser, namespace: argparse.Namespace,
                 values: str | Sequence[str] | None, option_string: str | None = None) -> None:
        """Add the words of one occurrence of the option."""
        options = dict(getattr(namespace, self.dest) or {})
        for word in values or ():
            key, equals, value = word.partition('=')
            if not equals or not key:
                parser.error(f'{option_string} {word}: each word must be KEY=VALUE. Put a value that '
                             'contains spaces in quotes, no spaces around =, and other arguments of '
                             f'the tool before {option_string}')
            if options.get(key, value) != value:
                print(f'{option_string} {key} is given twice: {value} is used, not {options[key]}.',
                      file=sys.stderr)
            options.pop(key, None)  # options apply in the order of their last values
            options[key] = value
        setattr(namespace, self.dest, options)


def hide_devices() -> None:
    """Hide all CUDA devices from this process and those that it starts.

    Call it before torch or OpenMMLab is imported: MMEngine looks for a device at its import, keeps what
    it found, and moves the models there.
    """
    os.environ['CUDA_VISIBLE_DEVICES'] = ''


class CpuAction(argparse.Action):
    """Set a flag to True and hide the CUDA devices at once, before anything looks for them."""

    def __init__(self, option_strings: Sequence[str], dest: str, **kwargs: Any) -> None:
        super().__init__(option_strings, dest, nargs=0, default=False, **kwargs)

    def __call__(self, parser: argparse.ArgumentParser, namespace: argparse.Namespace,
                 values: str | Sequence[str] | None, option_string: str | None = None) -> None:
        """Handle one occurrence of the option."""
        setattr(namespace, self.dest, True)
        hide_devices()


def add_options_argument(parser: argparse.ArgumentParser, example: str) -> None:
    """Add `--cfg-options KEY=VALUE ...`.

    Args:
        parser (argparse.ArgumentParser): The parser of a tool.
        example (str): Options for the help text.
    """
    parser.add_argument('--cfg-options', nargs='+', action=KeyValueAction, default={},
                        metavar='KEY=VALUE', help=f'override keys of the config, such as {example}; '
                        'a value gets the type of the value that it replaces (docs/recipes.md)')


def add_config_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that train.py and test.py share."""
    parser.add_argument('config', help='config file')
    parser.add_argument('--work-dir', help='folder for logs and checkpoints (default: '
                        'work_dirs/<name of the config>)')
    add_options_argument(parser, 'train_dataloader.batch_size=128')
    parser.add_argument('--cpu', action=CpuAction, help='run a config that was made for GPUs on '
                        'the CPU: BN instead of SyncBN, full precision')
    parser.add_argument('--launcher', choices=['none', 'pytorch', 'slurm', 'mpi'], default='none',
                        help='set by dist_train.sh and slurm_train.sh')
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0,
                        help=argparse.SUPPRESS)


def add_train_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of train.py on initial weights."""
    parser.add_argument('--pretrained', metavar='SOURCE', help='initial weights: a SoCo checkpoint, '
                        'weights of another library or method (docs/weights.md), supervised:FILE (only '
                        'its backbone is needed) or random')
