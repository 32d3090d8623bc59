"""What a run keeps beside its output until it is complete, and the table of skipped images."""
import csv
import fcntl
import json
import os
import shutil
from pathlib import Path
from typing import NamedTuple

import numpy as np

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


class ChunkFolder:
    """The finished chunks of a run, beside its output.

    Args:
        out (Path): The output.
        metadata (dict): Metadata of the run.
        box_dtype (str): Type of the box columns.

    Raises:
        ValueError: If the folder is that of a run with other parameters, or in use.
    """

    def __init__(self, out: Path, metadata: dict, box_dtype: str = 'uint16') -> None:
        self.path = out.with_name(out.name + '.parts')
        self.metadata = metadata
        self.box_dtype = box_dtype
        self.path.mkdir(exist_ok=True)
        self._lock = open(self.path / 'run.json', 'a+', encoding='utf-8')
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise ValueError(f'another run is writing {out}: wait for it, or stop it.') from error
        self._lock.seek(0)
        text = self._lock.read()
        if not text:
            self._lock.write(json.dumps(metadata, sort_keys=True))
            self._lock.flush()
            return
        changed = self._changes(text)
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
            return ProposalStore.open(self._file(index))
        except (FileNotFoundError, ValueError):
            return None

    def remove(self) -> None:
        """Remove the folder."""
        self._lock.close()
        shutil.rmtree(self.path)


def skipped_path(out: str | Path) -> Path:
    """Where the table of skipped images of a store lies."""
    return Path(f'{out}.skipped.csv')


def write_skipped(path: Path, skipped: list[Skipped]) -> None:
    """Write the table of skipped images; without any, remove an old one."""
    if not skipped:
        path.unlink(missing_ok=True)
        return
    partial = path.with_name(path.name + '.partial')
    with open(partial, 'w', newline='', encoding='utf-8') as file:
        writer = csv.writer(file)
        writer.writerow(Skipped._fields)
        writer.writerows(skipped)
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, path)


def read_skipped(path: Path) -> list[Skipped]:
    """Read the table of skipped images; a missing one is empty."""
    if not path.exists():
        return []
    with open(path, newline='', encoding='utf-8') as file:
        return [Skipped(*row) for row in list(csv.reader(file))[1:]]
