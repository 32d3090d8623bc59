"""Functions that the tests run in other processes, which import them from this module."""
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from projects.soco.proposals.executors import ProcessExecutor, SerialExecutor
from projects.soco.proposals.filters import get_filter
from projects.soco.proposals.generate import GenerateOptions, generate
from projects.soco.proposals.generators import SearchBoxes
from projects.soco.proposals.sources import open_source


def die_once(task: tuple[str, int]) -> int:
    """Multiply by ten; the first process that gets a 3 dies."""
    flag, value = task
    if value == 3 and not os.path.exists(flag):
        Path(flag).touch()
        os._exit(9)
    return 10 * value


def die(_: Any) -> None:
    """End the process."""
    os._exit(9)


def read_width(store: Any, row: int) -> tuple[int, str]:
    """Return the width of the image in a row of a store, and the path of the store."""
    return store[row].width, store.path


@dataclass(frozen=True)
class LoggedSearch(SearchBoxes):
    """Selective search that writes the name of every finished image to a file."""

    log: str = ''

    def parameters(self) -> dict:
        return json.loads(json.dumps(asdict(self.setting)))

    def boxes(self, source: Any, name: str, max_pixels: int) -> tuple:
        result = super().boxes(source, name, max_pixels)
        with open(self.log, 'a') as file:
            file.write(f'{name}\n')
        return result


def generate_logged(images: str, out: str, log: str, workers: str) -> None:
    """Make a store, keeping every box, and write the names of the finished images to `log`."""
    executor = ProcessExecutor(int(workers)) if int(workers) > 1 else SerialExecutor()
    options = GenerateOptions(LoggedSearch(log=log), get_filter('all'))
    generate(open_source(images), out, options, executor)
