"""What a run keeps beside its output until it is complete, and the table of skipped images."""
import contextlib
import csv
import fcntl
import json
import os
import socket
from pathlib import Path
from typing import Any, NamedTuple, TextIO

import numpy as np

from ..files import naming_file, whole_file
from .store import ProposalStore, StoreWriter


class Row(NamedTuple):
    """The proposals of one image on their way to the store."""

    image: str
    width: int
    height: int
    regions: np.ndarray
    rule: str


class Skipped(NamedTuple):
    """An image that could not be used, and why."""

    image: str
    reason: str


def differences(old: dict, new: dict, prefix: str = '') -> list[str]:
    """Name the leaves in which two metadata differ; of two dicts of other names, the names only.

    Args:
        old (dict): JSON values.
        new (dict): JSON values.
        prefix (str): Where in the metadata the two are.

    Returns:
        list[str]: One ``key: old value, now new value`` each.
    """
    found = []
    for key in sorted(set(old) | set(new)):
        a, b = old.get(key), new.get(key)
        if isinstance(a, dict) and isinstance(b, dict) and a.get('name') != b.get('name'):
            found.append(f'{prefix}{key}.name: {a.get("name")}, now {b.get("name")}')
        elif isinstance(a, dict) and isinstance(b, dict):
            found += differences(a, b, f'{prefix}{key}.')
        elif a != b and key != 'format_version':
            found.append(f'{prefix}{key}: {a}, now {b}')
    return found


def parts_folder(out: Path) -> Path:
    """Where the finished chunks of an unfinished output lie."""
    return out.with_name(out.name + '.parts')


def _take_lock(folder: Path, out: Path) -> TextIO:
    """Lock a folder until the file that is returned is closed, or this process ends.

    Raises:
        ValueError: If another run holds it; the message says which.
    """
    while True:
        folder.mkdir(exist_ok=True)
        try:
            lock = open(folder / 'lock', 'a+', encoding='utf-8')
        except FileNotFoundError:  # a run that has just ended removes the folder
            continue
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            lock.seek(0)
            with lock:
                raise ValueError(f'another run is writing {out} ({lock.read() or "it just began"}): '
                                 f'wait for it, or stop it.') from error
        try:
            same = os.path.samestat(os.fstat(lock.fileno()), os.stat(folder / 'lock'))
        except FileNotFoundError:
            same = False
        if same:
            lock.truncate(0)
            lock.write(f'process {os.getpid()} on {socket.gethostname()}')
            lock.flush()
            return lock
        lock.close()


class ChunkFolder:
    """The finished chunks of a run, beside its output, locked by the run.

    Args:
        out (Path): The output.

    Raises:
        ValueError: If another run is writing this output; the message says which.
        OSError: If nothing can be written there.
    """

    def __init__(self, out: Path) -> None:
        self.out = out
        self.path = parts_folder(out)
        with naming_file(self.path):
            self._lock = _take_lock(self.path, out)

    def __enter__(self) -> 'ChunkFolder':
        return self

    def __exit__(self, *raised: Any) -> None:
        self._lock.close()

    def begin(self, metadata: dict, box_dtype: str = 'uint16', anew: bool = False) -> None:
        """Begin a run, or go on with it.

        Args:
            metadata (dict): Metadata of the run.
            box_dtype (str): Type of the box columns.
            anew (bool): Whether to drop what an earlier run has left.

        Raises:
            ValueError: If the folder holds the beginning of a run with other parameters.
        """
        self.metadata = metadata
        self.box_dtype = box_dtype
        run = self.path / 'run.json'
        if anew:
            self._clear()
        if not run.exists():
            with whole_file(run) as file:
                json.dump(metadata, file, sort_keys=True)
            return
        changed = self._changes(run.read_text(encoding='utf-8'))
        if changed:
            raise ValueError(f'{self.path} holds the beginning of a run with other parameters '
                             f'({"; ".join(changed)}): use those again to go on, or --overwrite '
                             f'to start anew.')

    def _changes(self, text: str) -> list[str]:
        try:
            return differences(json.loads(text), self.metadata)
        except ValueError:
            return ['run.json cannot be read']

    def _file(self, index: int) -> Path:
        return self.path / f'{index:06d}.arrow'

    def save(self, index: int, results: list[Row | Skipped]) -> None:
        """Write the result of a chunk."""
        skipped = [result for result in results if isinstance(result, Skipped)]
        metadata = dict(self.metadata, skipped=skipped)
        with StoreWriter(self._file(index), metadata, self.box_dtype) as writer:
            for result in results:
                if isinstance(result, Row):
                    writer.add(*result)

    def load(self, index: int) -> ProposalStore | None:
        """Open the result of a chunk, or return None where it is missing or damaged."""
        try:
            store = self.open(index)
            store.verify()
        except (FileNotFoundError, ValueError):
            return None
        return store

    def open(self, index: int) -> ProposalStore:
        """Open the result of a chunk.

        Raises:
            FileNotFoundError: If it is missing.
            ValueError: If it is damaged.
        """
        return ProposalStore.open(self._file(index))

    def _clear(self) -> None:
        for path in self.path.iterdir():
            if path.name != 'lock':
                path.unlink()

    def remove(self) -> None:
        """Remove the folder, and let the next run begin."""
        self._clear()
        (self.path / 'lock').unlink()
        with contextlib.suppress(OSError):  # unless the next one is in it already
            self.path.rmdir()
        self._lock.close()


def skipped_path(out: str | Path) -> Path:
    """Where the table of skipped images of a store lies."""
    return Path(f'{out}.skipped.csv')


def write_skipped(path: Path, skipped: list[Skipped]) -> None:
    """Write the table of skipped images; without any, remove an old one."""
    if not skipped:
        path.unlink(missing_ok=True)
        return
    with whole_file(path) as file:
        writer = csv.writer(file)
        writer.writerow(Skipped._fields)
        writer.writerows(skipped)


def read_skipped(path: Path) -> list[Skipped]:
    """Read the table of skipped images; a missing one is empty."""
    if not path.exists():
        return []
    with open(path, newline='', encoding='utf-8') as file:
        return [Skipped(*row) for row in list(csv.reader(file))[1:]]
