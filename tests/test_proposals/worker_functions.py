"""Functions that the tests run in other processes, which can import them by this module's name."""
import os
from pathlib import Path
from typing import Any


def die_once(task: tuple[str, int]) -> int:
    """Multiply by ten; the process that first sees a 3 dies."""
    flag, value = task
    if value == 3 and not os.path.exists(flag):
        Path(flag).touch()
        os._exit(9)
    return 10 * value


def die(_: Any) -> None:
    """Die."""
    os._exit(9)


def read_width(store: Any, row: int) -> tuple[int, str]:
    """Width of the image in a row of a store, and where the store lies."""
    return store[row].width, store.path
