"""What a study has found so far: one JSON, written whole after each job."""
import fcntl
import json
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..files import whole_file

VERSION = 1


class Records:
    """The records of a study's jobs by their keys, and their draws of photos beside them.

    One process has them at a time. Trainings keep its lock open: one that outlives a killed study
    holds off the next, which would write into the same folder.

    Args:
        path (str | Path): The JSON; made when the first record comes.
        about (dict): What is being run; a file of another study is refused.

    Raises:
        ValueError: The file is no such JSON, is of another study, or another process has it.
    """

    def __init__(self, path: str | Path, about: dict) -> None:
        self.path = Path(path)
        self._lock = threading.Lock()
        self._file = open(self.path.parent / 'lock', 'a')
        self.lock = self._file.fileno()  # what trainings keep open
        try:
            fcntl.flock(self.lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ValueError(f'Another study writes into {self.path.parent}, or a training that it '
                             'has started: wait for it, or stop it (ps aux | grep tools/train.py).'
                             ) from error
        self.content: dict[str, Any] = dict(version=VERSION, **about, records={})
        if self.path.is_file():
            self.content = read_records(self.path)
            differs = [key for key, value in about.items()
                       if json.loads(json.dumps(value)) != self.content.get(key)]
            if differs:
                raise ValueError(
                    f'{self.path} is of a study with another {", ".join(differs)}; records of the two '
                    'would mix. Give another --work-dir, or remove that folder to start anew.')

    def __contains__(self, key: str) -> bool:
        return key in self.content['records']

    def __getitem__(self, key: str) -> dict:
        return self.content['records'][key]

    def add(self, key: str, record: Mapping[str, Any],
            samples: Mapping[str, np.ndarray] | None = None) -> None:
        """Write a record, after its draws."""
        if samples:
            path = self._samples(key)
            path.parent.mkdir(parents=True, exist_ok=True)
            with whole_file(path, 'wb') as file:
                np.savez(file, **samples)
        with self._lock:
            self.content['records'][key] = dict(record)
            self._write()

    def samples(self, key: str) -> dict[str, np.ndarray]:
        """Read the draws of a record."""
        with np.load(self._samples(key), allow_pickle=False) as content:
            return dict(content)

    def set(self, key: str, value: Any) -> None:
        """Write something that is made of the records."""
        with self._lock:
            self.content[key] = value
            self._write()

    def _samples(self, key: str) -> Path:
        return self.path.parent / 'samples' / f'{key}.npz'

    def _write(self) -> None:
        with whole_file(self.path) as file:
            json.dump(self.content, file, indent=1)


def read_records(path: str | Path) -> dict[str, Any]:
    """Read the JSON of a study.

    Raises:
        FileNotFoundError: There is none.
        ValueError: It is no such JSON.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f'There are no results at {path}: '
                                'run tools/benchmarks/transfer_study.py.')
    try:
        content = json.loads(Path(path).read_text())
        if content['version'] != VERSION or not isinstance(content['records'], dict):
            raise ValueError('another version')
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f'{path} does not hold the results of a study ({type(error).__name__}: '
                         f'{error}). Move it away; the study then begins anew.') from error
    return content
