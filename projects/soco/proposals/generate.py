"""Images to a proposal store: parallel, resumable, the same bytes whatever the number of workers.

The sorted names are cut into chunks. The result of each chunk is a small store in a folder beside
the output, written whole or not at all; a run that is started again does the missing chunks only.
At the end the chunks are joined in order, and the folder goes.
"""
import csv
import fcntl
import hashlib
import json
import math
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from .filters import NOTHING, BoxFilter, get_filter
from .images import MAX_PIXELS, ImageError, decode_image
from .sources import FolderSource
from .store import ProposalStore, StoreWriter

BYTES_PER_IMAGE = 1024
CHUNK_IMAGES = 128
CHUNKS = 256


@dataclass(frozen=True)
class GenerateOptions:
    """What determines the content of a store, apart from the images.

    Args:
        setting (str): Name of a setting of selective search.
        box_filter (BoxFilter): Which regions are kept.
        max_pixels (int): Larger images are skipped.
    """

    setting: str = 'soco'
    box_filter: BoxFilter = field(default_factory=lambda: get_filter('ratio3size0308post'))
    max_pixels: int = MAX_PIXELS


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


class Chunk(NamedTuple):
    """A task for a worker."""

    source: FolderSource
    names: list[str]
    options: GenerateOptions


@dataclass
class Summary:
    """What a run did.

    Args:
        path (Path): The store.
        images (int): Images in the store.
        boxes (np.ndarray): (images,) boxes of each image.
        rules (dict[str, int]): Images per rule of the filter.
        skipped (list[Skipped]): Images that could not be used.
        reused (int): Images whose result was there from an earlier run.
    """

    path: Path
    images: int
    boxes: np.ndarray
    rules: dict[str, int]
    skipped: list[Skipped]
    reused: int


def propose(source: FolderSource, name: str, options: GenerateOptions) -> Row | Skipped:
    """Make the proposals of one image.

    Args:
        source (FolderSource): Where the image is.
        name (str): Its name there.
        options (GenerateOptions): Setting and filter.

    Returns:
        Row | Skipped: The proposals, or why there are none.
    """
    from .selective_search import selective_search
    if not name.isprintable():
        shown = name.encode('utf-8', 'backslashreplace').decode()
        return Skipped(shown, 'the name cannot be written as text')
    try:
        image = decode_image(source.read_bytes(name), options.max_pixels)
        regions = selective_search(image, options.setting)
    except ImageError as error:
        return Skipped(name, str(error))
    except OSError as error:
        return Skipped(name, f'unreadable: {error.strerror or error}')
    except ValueError as error:
        return Skipped(name, f'too large: {error}')
    height, width = image.shape[:2]
    kept, rule = options.box_filter(regions, width, height)
    return Row(name, width, height, kept.astype(np.uint16), rule)


def propose_chunk(chunk: Chunk) -> list[Row | Skipped]:
    """Make the proposals of a chunk of images, in a worker."""
    return [propose(chunk.source, name, chunk.options) for name in chunk.names]


def describe_run(names: list[str], source: FolderSource, options: GenerateOptions) -> dict:
    """The metadata of a store: everything that determines its content.

    Args:
        names (list[str]): Sorted names of the images.
        source (FolderSource): Where they are.
        options (GenerateOptions): Setting and filter.

    Returns:
        dict: JSON values.
    """
    from . import selective_search
    digest = hashlib.sha256('\n'.join(names).encode('utf-8', 'surrogateescape')).hexdigest()
    return dict(
        box_format='xywh',
        generator=dict(name='selective_search', version=selective_search.VERSION,
                       setting=options.setting,
                       parameters=asdict(selective_search.SETTINGS[options.setting])),
        filter=options.box_filter.describe(),
        rules=[rule.name for rule in options.box_filter.rules] + [NOTHING],
        source=dict(kind=source.kind, images=len(names), names_sha256=digest),
        max_pixels=options.max_pixels)


def differences(old: dict, new: dict, prefix: str = '') -> list[str]:
    """Name the leaves in which two metadata differ.

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
        if isinstance(a, dict) and isinstance(b, dict):
            found += differences(a, b, f'{prefix}{key}.')
        elif a != b and key != 'format_version':
            found.append(f'{prefix}{key}: {a}, now {b}')
    return found


class ChunkFolder:
    """The finished chunks of a run, beside its output.

    Args:
        out (Path): The output.
        metadata (dict): Metadata of the run.

    Raises:
        ValueError: If the folder is that of a run with other parameters, or in use.
    """

    def __init__(self, out: Path, metadata: dict) -> None:
        self.path = out.with_name(out.name + '.parts')
        self.metadata = metadata
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
        with StoreWriter(self._file(index), metadata) as writer:
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


def _copy_rows(store: ProposalStore, writer: StoreWriter) -> None:
    for index in range(len(store)):
        width, height = store.size(index)
        writer.add(store.name(index), width, height, store.regions(index), store.rule(index))


def _write_skipped(path: Path, skipped: list[Skipped]) -> None:
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


def skipped_path(out: str | Path) -> Path:
    """Where the table of skipped images of a store lies."""
    return Path(f'{out}.skipped.csv')


def _check_disk(out: Path, images: int) -> None:
    free = shutil.disk_usage(out.parent).free
    needed = 2 * BYTES_PER_IMAGE * images + 2**20
    if free < needed:
        raise OSError(f'too little disk space for {out}: about {needed / 2**20:.0f} MiB are '
                      f'needed for {images} images and their intermediate results, '
                      f'{free / 2**20:.0f} MiB are free in {out.parent}.')


def _check_output(out: Path, metadata: dict, overwrite: bool) -> bool:
    """Return whether the output is there already, complete and made as asked."""
    if not out.parent.is_dir():
        raise FileNotFoundError(f'the folder {out.parent} of the output does not exist: make it '
                                f'first.')
    parts = out.with_name(out.name + '.parts')
    if overwrite:
        shutil.rmtree(parts, ignore_errors=True)
        return False
    if not out.exists():
        return False
    changed = differences(ProposalStore.open(out).metadata, metadata)
    if changed:
        raise ValueError(f'{out} was made with other parameters ({"; ".join(changed)}): choose '
                         f'another output, or --overwrite to replace it.')
    return True


def _summarise(out: Path, skipped: list[Skipped], reused: int) -> Summary:
    store = ProposalStore.open(out)
    rules = Counter(store.rule(index) for index in range(len(store)))
    return Summary(out, len(store), store.box_counts(), dict(rules), skipped, reused)


def _read_skipped(path: Path) -> list[Skipped]:
    if not path.exists():
        return []
    with open(path, newline='', encoding='utf-8') as file:
        return [Skipped(*row) for row in list(csv.reader(file))[1:]]


def _cut(names: list[str]) -> list[list[str]]:
    size = min(CHUNK_IMAGES, math.ceil(len(names) / CHUNKS))
    return [names[start:start + size] for start in range(0, len(names), size)]


def _results(folder: ChunkFolder, chunks: list[Chunk], executor: Any,
             strict: bool) -> Iterator[tuple[int, int, bool]]:
    """Do what is missing; yield images, skipped images and whether they were there before."""
    missing = []
    for index, chunk in enumerate(chunks):
        store = folder.load(index)
        if store is None:
            missing.append(index)
        else:
            yield len(chunk.names), len(store.metadata['skipped']), True
    for position, results in executor.run(propose_chunk, [chunks[i] for i in missing]):
        skipped = [result for result in results if isinstance(result, Skipped)]
        if strict and skipped:
            raise ValueError(f'{skipped[0].image}: {skipped[0].reason}. Repair or remove the '
                             f'image, or run without --strict to skip such images.')
        folder.save(missing[position], results)
        yield len(results), len(skipped), False


def generate(source: FolderSource, out: str | Path, options: GenerateOptions, executor: Any, *,
             overwrite: bool = False, strict: bool = False,
             report: Callable[[int, int, bool], None] = lambda *_: None) -> Summary:
    """Make the proposal store of all images of a source.

    The file depends on the images and the options only. A run that was killed goes on where it
    was when it is started again with the same arguments, and gives the same file.

    Args:
        source (FolderSource): The images.
        out (str | Path): The store to be written.
        options (GenerateOptions): Setting and filter.
        executor (SerialExecutor | ProcessExecutor): Where the work is done.
        overwrite (bool): Whether to start anew, replacing what is there.
        strict (bool): Whether to stop at an image that cannot be used instead of skipping it.
        report (Callable): Called with a number of images done, how many of them were skipped,
            and whether their result was there from an earlier run.

    Returns:
        Summary: What was done.

    Raises:
        FileNotFoundError: If the folder of the output does not exist.
        OSError: If there is too little disk space.
        ValueError: If there are no images, none can be used, the output was made with other
            parameters, or, with ``strict``, an image cannot be used.
    """
    out = Path(out)
    names = source.names()
    if not names:
        raise ValueError(f'there are no images in {source.root}.')
    metadata = describe_run(names, source, options)
    if _check_output(out, metadata, overwrite):
        shutil.rmtree(out.with_name(out.name + '.parts'), ignore_errors=True)
        report(len(names), 0, True)
        return _summarise(out, _read_skipped(skipped_path(out)), len(names))
    _check_disk(out, len(names))
    folder = ChunkFolder(out, metadata)
    chunks = [Chunk(source, part, options) for part in _cut(names)]
    reused = 0
    for images, bad, before in _results(folder, chunks, executor, strict):
        reused += images * before
        report(images, bad, before)
    skipped = []
    parts = [folder.load(index) for index in range(len(chunks))]
    for part in parts:
        skipped += [Skipped(*row) for row in part.metadata['skipped']]
    if len(skipped) == len(names):
        folder.remove()
        raise ValueError(f'none of the {len(names)} images can be used; the first, '
                         f'{skipped[0].image}: {skipped[0].reason}.')
    _write_skipped(skipped_path(out), skipped)
    with StoreWriter(out, metadata) as writer:
        for part in parts:
            _copy_rows(part, writer)
    folder.remove()
    return _summarise(out, skipped, reused)
