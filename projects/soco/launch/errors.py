"""Errors that a user can act on, and the exit codes of the tools."""
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
