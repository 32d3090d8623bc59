"""Intermediate results of a run, stored next to its output, and the table of skipped images."""
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
from .pixel_values import EARLIER
from .store import ProposalStore, StoreWriter


class Row(NamedTuple):
    """Proposals of one image, before they are written to the store."""

    image: str
    width: int
    height: int
    regions: np.ndarray
    rule: str
    remark: str = ''


class Skipped(NamedTuple):
    """Image that could not be used, or that is suspicious, and the reason."""

    image: str
    reason: str


def differences(old: dict, new: dict, prefix: str = '') -> list[str]:
    """List the values in which two metadata differ.

    For two dicts with different `name` entries, only the names are listed.

    Args:
        old (dict): JSON values.
        new (dict): JSON values.
        prefix (str): Position of the two in the metadata. Defaults to ''.

    Returns:
        list[str]: One `key: old value, now new value` for each difference.
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


def determining(metadata: dict) -> dict:
    """Return the metadata of a store without what does not determine its rows.

    Args:
        metadata (dict): Metadata of a store.

    Returns:
        dict: The metadata without the accounts of files that are not photos and of suspicious photos,
        and with the way in which pixels were read, which stores of earlier versions lack.
    """
    source = {key: value for key, value in metadata.get('source', {}).items()
              if key not in ('passed_over', 'looks_wrong')}
    return {'decoding': EARLIER, **metadata, 'source': source}


def parts_folder(out: Path) -> Path:
    """Return the folder that contains the finished chunks of an unfinished output."""
    return out.with_name(out.name + '.parts')


def _take_lock(folder: Path, out: Path) -> TextIO:
    """Lock a folder until the returned file is closed or this process ends.

    Raises:
        ValueError: If another run holds the lock; the message names that run.
    """
    while True:
        folder.mkdir(exist_ok=True)
        try:
            lock = open(folder / 'lock', 'a+', encoding='utf-8')  # noqa: SIM115 (open while locked)
        except FileNotFoundError:  # a run that has just ended removed the folder
            continue
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            lock.seek(0)
            with lock:
                raise ValueError(f'another run is writing {out} ({lock.read() or "it just began"}): '
                                 f'wait for it or stop it.') from error
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
    """Folder with the finished chunks of a run, next to its output and locked by the run.

    Args:
        out (Path): The output.

    Raises:
        ValueError: If another run is writing this output; the message names that run.
        OSError: If the folder cannot be written.
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
        """Begin or resume a run.

        Args:
            metadata (dict): Metadata of the run.
            box_dtype (str): Type of the box columns. Defaults to 'uint16'.
            anew (bool): Whether to delete the results of an earlier run. Defaults to False.

        Raises:
            ValueError: If the folder contains an unfinished run with other parameters.
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
            raise ValueError(f'{self.path} contains an unfinished run with other parameters '
                             f'({"; ".join(changed)}): use the old parameters to resume it, or '
                             f'--overwrite to start again.')

    def _changes(self, text: str) -> list[str]:
        try:
            return differences(determining(json.loads(text)), determining(self.metadata))
        except (ValueError, AttributeError):
            return ['run.json cannot be read']

    def _file(self, index: int) -> Path:
        return self.path / f'{index:06d}.arrow'

    def save(self, index: int, results: list[Row | Skipped]) -> None:
        """Write the result of a chunk."""
        skipped = [result for result in results if isinstance(result, Skipped)]
        remarks = [Skipped(result.image, result.remark) for result in results
                   if isinstance(result, Row) and result.remark]
        metadata = dict(self.metadata, skipped=skipped, remarks=remarks)
        with StoreWriter(self._file(index), metadata, self.box_dtype) as writer:
            for result in results:
                if isinstance(result, Row):
                    writer.add(*result[:5])

    def load(self, index: int) -> ProposalStore | None:
        """Open the result of a chunk, or return None if it is missing or damaged."""
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
        """Remove the folder so that the next run can begin."""
        self._clear()
        (self.path / 'lock').unlink()
        with contextlib.suppress(OSError):  # the next run may already use the folder
            self.path.rmdir()
        self._lock.close()


def skipped_path(out: str | Path) -> Path:
    """Return the path of a store's table of skipped images."""
    return Path(f'{out}.skipped.csv')


def remarks_path(out: str | Path) -> Path:
    """Return the path of a store's table of images that are in it but look wrong."""
    return Path(f'{out}.remarks.csv')


def write_table(path: Path, rows: list[Skipped]) -> None:
    """Write a table of images and reasons; if there are none, remove an old table."""
    if not rows:
        path.unlink(missing_ok=True)
        return
    with whole_file(path) as file:
        writer = csv.writer(file)
        writer.writerow(Skipped._fields)
        writer.writerows(rows)


def read_table(path: Path) -> list[Skipped]:
    """Read a table of images and reasons; return an empty list if there is no table."""
    if not path.exists():
        return []
    with open(path, newline='', encoding='utf-8') as file:
        return [Skipped(*row) for row in list(csv.reader(file))[1:]]
