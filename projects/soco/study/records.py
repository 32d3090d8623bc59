"""The records of a study's results: one JSON file, rewritten after each job."""
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
    """The records of a study's jobs by key, with the scores under draws of photos in files beside it.

    A lock allows one process at a time. Trainings inherit the lock, so that one that outlives a killed
    study blocks the next study, which would write into the same folder.

    Args:
        path (str | Path): The JSON. It is created with the first record.
        about (dict): Values that identify the study. A file with other values is refused.

    Raises:
        ValueError: If the file is invalid, belongs to another study, or is locked by another process.
    """

    def __init__(self, path: str | Path, about: dict) -> None:
        self.path = Path(path)
        self._lock = threading.Lock()
        self._file = open(self.path.parent / 'lock', 'a')  # noqa: SIM115, the lock needs an open file
        self.lock = self._file.fileno()  # trainings inherit it
        try:
            fcntl.flock(self.lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ValueError(f'Another study writes into {self.path.parent}, or a training that it '
                             'started. Wait for it, or stop it (ps aux | grep tools/train.py).'
                             ) from error
        self.content: dict[str, Any] = dict(version=VERSION, **about, records={})
        if self.path.is_file():
            self.content = read_records(self.path)
            differs = [key for key, value in about.items()
                       if json.loads(json.dumps(value)) != self.content.get(key)]
            if differs:
                raise ValueError(
                    f'{self.path} is of a study with another {", ".join(differs)}; records of the two '
                    'would mix. Use another --work-dir, or remove that folder to start again.')

    def __contains__(self, key: str) -> bool:
        return key in self.content['records']

    def __getitem__(self, key: str) -> dict:
        return self.content['records'][key]

    def add(self, key: str, record: Mapping[str, Any],
            samples: Mapping[str, np.ndarray] | None = None) -> None:
        """Write a record.

        Args:
            key (str): Key of the job.
            record (Mapping[str, Any]): The record.
            samples (Mapping[str, np.ndarray], optional): Scores under draws of photos, (R,) by name;
                they are written before the record. Defaults to None.
        """
        if samples:
            path = self._samples(key)
            path.parent.mkdir(parents=True, exist_ok=True)
            with whole_file(path, 'wb') as file:
                np.savez(file, **samples)
        with self._lock:
            self.content['records'][key] = dict(record)
            self._write()

    def samples(self, key: str) -> dict[str, np.ndarray]:
        """Read a record's scores under draws of photos, (R,) by name."""
        with np.load(self._samples(key), allow_pickle=False) as content:
            return dict(content)

    def set(self, key: str, value: Any) -> None:
        """Write a value that is derived from the records."""
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

    Args:
        path (str | Path): The JSON.

    Returns:
        dict[str, Any]: Its content.

    Raises:
        FileNotFoundError: If the file does not exist.
        ValueError: If it does not contain the results of a study.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f'There are no results at {path}: '
                                'run tools/benchmarks/transfer_study.py.')
    try:
        content = json.loads(Path(path).read_text())
        if content['version'] != VERSION or not isinstance(content['records'], dict):
            raise ValueError('another version')
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f'{path} does not contain the results of a study ({type(error).__name__}: '
                         f'{error}). Move it away; the study then starts again.') from error
    return content
