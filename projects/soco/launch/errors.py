"""Errors that a user can act on, and the exit codes of the tools."""
import errno
import os
import re
import sys
import textwrap
from collections.abc import Callable, Iterator
from types import FrameType

from ..files import NotWrittenError

REFUSED = 2  # something that the user gave is wrong; the paragraph on stderr says what
DIVERGED = 3  # the loss or the weights are no longer finite
STOPPED = 75  # a signal asked for it, and the run can be resumed (EX_TEMPFAIL)
DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class Stopped(SystemExit):
    """Training ended because a signal asked for it; its checkpoint is written."""


def run_tool(main: Callable[[], None]) -> None:
    """Run a tool; an error that the user can act on ends it with one paragraph and an exit code.

    The exit code is `REFUSED`, or `DIVERGED` for numbers that are not finite. `SOCO_TRACEBACK=1` in the
    environment shows the whole traceback instead.
    """
    try:
        main()
        torch = sys.modules.get('torch')  # not imported here: most errors come before its import
        if torch and torch.distributed.is_initialized():
            # Otherwise a thread of the group may outlive the interpreter, which aborts the process.
            torch.distributed.barrier()
            torch.distributed.destroy_process_group()
    except (ValueError, OSError, ArithmeticError, TypeError, LookupError, AttributeError) as error:
        if os.environ.get('SOCO_TRACEBACK') == '1' or not is_for_the_user(error):
            raise
        sys.stdout.flush()
        print(f'\nerror: {error_text(error)}', file=sys.stderr)
        sys.exit(DIVERGED if isinstance(error, FloatingPointError) else REFUSED)


def is_for_the_user(error: BaseException) -> bool:
    """Return whether the user can act on an error; otherwise it is a defect, and has a traceback.

    `ValueError` and `OSError` are the types that checks raise. Other errors count when they are raised
    while an object is built from the config: a key or a value there is then wrong.
    """
    if isinstance(error, (ValueError, OSError, FloatingPointError)):
        return True
    return any(map(_is_registry, _frames(error)))


def error_text(error: BaseException) -> str:
    """Return the paragraph that a user sees for an error.

    Args:
        error (BaseException): An error for which `is_for_the_user` is True.
    """
    text = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
    if 'Original Traceback' in text:  # from a DataLoader worker: its last line is the message
        text = re.sub(r'^(\w+\.)*\w*Error: ', '', text.strip().splitlines()[-1])
    if isinstance(error, OSError) and error.errno in DISK_FULL and not (
            isinstance(error, NotWrittenError) or error.filename):
        text = (f'A file could not be written ({error.strerror}); what was complete before is intact. '
                'Free some disk space, then resume training with --resume.')
    elif any(_is_from(frame, 'mmengine.dataset.base_dataset') and
             frame.f_code.co_name == '_serialize_data' for frame in _frames(error)):
        text = ('No image of a data set is left: none has an object of its classes (metainfo) that is '
                'large enough (filter_cfg). Compare the class list with the annotation.')
    elif not isinstance(error, (ValueError, OSError, FloatingPointError)):
        built = [frame.f_locals['obj_cls'].__name__ for frame in _frames(error)
                 if _is_registry(frame) and 'obj_cls' in frame.f_locals
                 and hasattr(frame.f_locals['obj_cls'], '__name__')]
        if built:
            text = (f'{built[-1]} cannot be built from the config: {text}. A key does not exist, is '
                    'misspelt, or has a value of the wrong type. SOCO_TRACEBACK=1 shows where.')
    # line by line: some messages contain a tree
    return '\n'.join(textwrap.fill(line, width=96, break_long_words=False, break_on_hyphens=False)
                     if len(line) > 96 else line for line in text.split('\n'))


def _frames(error: BaseException) -> list[FrameType]:
    """Return the frames of an error's traceback, the outermost first."""
    def walk() -> Iterator[FrameType]:
        traceback = error.__traceback__
        while traceback is not None:
            yield traceback.tb_frame
            traceback = traceback.tb_next
    return list(walk())


def _is_registry(frame: FrameType) -> bool:
    return _is_from(frame, 'mmengine.registry.build_functions')


def _is_from(frame: FrameType, module: str) -> bool:
    return frame.f_globals.get('__name__') == module
