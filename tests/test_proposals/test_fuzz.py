"""Fuzzing of damaged stores: each is reported, or read exactly as written; no crash, hang or wrong box.

SOCO_FUZZ sets the number of damaged stores (default 2000; docs/reliability.md has a longer run).
"""
import contextlib
import os
import random
import resource
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from projects.soco.proposals import ProposalStore, StoreWriter, store

ROOT = Path(__file__).parents[2]
INPUTS = int(os.environ.get('SOCO_FUZZ', 2000))
METADATA = dict(generator=dict(name='hand', version=1), filter=dict(name='all'), rules=['all', 'none'])


def write(path: Path, box_dtype: str) -> None:
    """Write a store of five rows in three batches, about as small as a store can be."""
    rng = np.random.default_rng(0)
    rows, store.BATCH_ROWS = store.BATCH_ROWS, 2
    with StoreWriter(path, METADATA, box_dtype) as writer:
        for i in range(5):
            boxes = rng.integers(1, 200, (i % 3 * 2, 4)) + (box_dtype != 'uint16') / 4
            writer.add(f'folder/ü{i}.jpg', 500 + i, 375, boxes, METADATA['rules'][i % 2])
    store.BATCH_ROWS = rows


def everything(path: Path | str) -> list:
    """Return all that can be read from a store, by every method."""
    opened = ProposalStore.open(path)
    names = [opened.name(row) for row in range(len(opened))]
    return [opened.metadata, opened.box_dtype, opened.box_counts().tolist(), names,
            [opened.size(row) for row in range(len(opened))],
            [opened.rule(row) for row in range(len(opened))],
            [opened.regions(row).tolist() for row in range(len(opened))],
            [row.boxes.tolist() for row in opened], [opened.index(name) for name in names]]


def damage(content: bytes, number: int) -> bytes:
    """Return damaged content: first truncated at every byte, then changed at random, by `number`."""
    if number < len(content):
        return content[:number]
    rng = random.Random(number)
    data = bytearray(content)
    start, other = rng.randrange(len(data)), rng.randrange(len(data))
    length = rng.choice((1, 4, 8, 64, 512))
    kind = rng.randrange(8)
    if kind == 0:  # one bit, as in a transmission error
        data[start] ^= 1 << rng.randrange(8)
    elif kind == 1:
        data[start] = rng.randrange(256)
    elif kind == 2:
        for _ in range(rng.randint(2, 20)):
            data[rng.randrange(len(data))] = rng.randrange(256)
    elif kind == 3:  # a number of 4 bytes
        data[start:start + 4] = rng.choice((0, 1, 2**31 - 1, 2**32 - 1, 2**20)).to_bytes(4, 'little')
    elif kind == 4:  # a block that was never written
        data[start:start + length] = bytes(len(data[start:start + length]))
    elif kind == 5:  # two blocks exchanged
        one, two = bytes(data[start:start + length]), bytes(data[other:other + length])
        data[start:start + len(two)], data[other:other + len(one)] = two, one
    elif kind == 6:  # bytes added at the end, or in between
        data[rng.choice((start, len(data))):start] = rng.randbytes(length)
    else:  # bytes lost
        del data[start:start + length]
    return bytes(data)


def fuzz(folder: str, first: str, inputs: str) -> None:
    """Read a number of damaged stores; the file `now` contains the number of the current input."""
    resource.setrlimit(resource.RLIMIT_AS, (2**33, 2**33))
    originals = [Path(folder) / 'uint16.arrow', Path(folder) / 'float32.arrow']
    written = [(original.read_bytes(), everything(original)) for original in originals]
    now = os.open(Path(folder) / 'now', os.O_WRONLY | os.O_CREAT)
    told = same = 0
    for number in range(int(first), int(first) + int(inputs)):
        content, wanted = written[number % 2]
        os.pwrite(now, f'{number:09}'.encode(), 0)
        file = os.memfd_create('damaged')  # in memory: creating a file takes longer than reading it
        os.write(file, damage(content, number // 2))
        path = f'/proc/self/fd/{file}'
        signal.alarm(20)  # ends the process: a hang is a failure, as a crash is
        try:
            found = everything(path)
        except ValueError as error:
            assert path in str(error), f'input {number}: {error!r}'
            told += 1
        else:
            assert found == wanted, f'input {number} is read as something else'
            same += 1
        signal.alarm(0)
        os.close(file)
    print(f'{told} told, {same} read as they were written')


@pytest.fixture(scope='module')
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp('fuzz')
    for box_dtype in ('uint16', 'float32'):
        write(folder / f'{box_dtype}.arrow', box_dtype)
    return folder


def test_damaged_stores(folder):
    code = 'import sys; from test_proposals.test_fuzz import fuzz; fuzz(*sys.argv[1:])'
    # in a short run, one half of the inputs is truncated, the other half is changed
    first = max(0, 2 * (folder / 'uint16.arrow').stat().st_size - INPUTS // 2)
    done = subprocess.run([sys.executable, '-c', code, str(folder), str(first), str(INPUTS)],
                          env=dict(os.environ, PYTHONPATH=f'{ROOT}:{ROOT / "tests"}'),
                          capture_output=True, text=True)
    now = (folder / 'now').read_text()
    assert done.returncode == 0, f'exit code {done.returncode} at input {now}: {done.stderr[-2000:]}'
    told, same = (int(word) for word in done.stdout.split() if word.isdigit())
    assert told + same == INPUTS and told > INPUTS // 2
    print(f'{INPUTS} damaged stores: {done.stdout.strip()}, 0 failures')


def test_a_wrong_box_would_be_seen(folder, monkeypatch):
    """Without the check of checksums, the same inputs give wrong boxes."""
    content = (folder / 'uint16.arrow').read_bytes()
    wanted = everything(folder / 'uint16.arrow')
    monkeypatch.setattr(ProposalStore, '_open_batch', unchecked)
    wrong = 0
    for number in range(len(content), len(content) + 400):
        (folder / 'wrong.arrow').write_bytes(damage(content, number))
        with contextlib.suppress(ValueError, IndexError, KeyError):
            wrong += everything(folder / 'wrong.arrow') != wanted
    assert wrong > 0


def unchecked(self: ProposalStore, number: int) -> store.Columns:
    self._columns[number] = store.Columns(self._sealed[number][0], self.box_dtype)
    return self._columns[number]
