"""Generation of a proposal store from images: parallel and resumable.

The file is the same, byte for byte, for any number of workers. The sorted names are split into chunks.
The result of each chunk is a small store in a folder next to the output, written completely or not at
all. A run that is started again makes only the missing chunks. At the end the chunks are joined in
order, and the folder is removed.
"""
import hashlib
import math
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

from ..files import naming_file
from .filters import NOTHING, BoxFilter, get_filter
from .generators import BoxGenerator, Found, SearchBoxes
from .images import MAX_PIXELS, ImageError
from .journal import (
    ChunkFolder,
    Row,
    Skipped,
    determining,
    differences,
    parts_folder,
    read_table,
    remarks_path,
    skipped_path,
    write_table,
)
from .photo_files import PassedOver, photo_suffixes
from .pixel_values import DECODING
from .source_base import ImageSource
from .store import ProposalStore, StoreWriter
from .store_operations import copy_row
from .store_statistics import Statistics, measure

BYTES_PER_IMAGE = 1024
CHUNK_IMAGES = 128
CHUNKS = 256


@dataclass(frozen=True)
class GenerateOptions:
    """Options that determine the content of a store, apart from the images.

    Args:
        generator (BoxGenerator): Generator of the boxes. Defaults to selective search.
        box_filter (BoxFilter, optional): Filter of the boxes. Defaults to the generator's default
            filter: the official one for selective search, `all` for others.
        max_pixels (int): Images with more pixels are skipped. Defaults to `MAX_PIXELS`.
    """

    generator: BoxGenerator = field(default_factory=SearchBoxes)
    box_filter: BoxFilter | None = None
    max_pixels: int = MAX_PIXELS

    def __post_init__(self) -> None:
        if self.box_filter is None:
            object.__setattr__(self, 'box_filter', get_filter(self.generator.default_filter))


class Chunk(NamedTuple):
    """Task of a worker: images of a source, and the options for them."""

    source: ImageSource
    names: list[str]
    options: GenerateOptions


@dataclass
class Summary:
    """Result of a run.

    Args:
        path (Path): The store.
        statistics (Statistics): Statistics of its images and boxes.
        skipped (list[Skipped]): Images that could not be used.
        reused (int): Number of images whose result was reused from an earlier run.
        remarks (list[Skipped]): Images that are in the store but look wrong.
        passed_over (PassedOver): Files of the source that are not photos.
        earlier (bool): Whether the store was made by a version that scaled values of more than 8 bits
            in another way.
    """

    path: Path
    statistics: Statistics
    skipped: list[Skipped]
    reused: int
    remarks: list[Skipped]
    passed_over: PassedOver
    earlier: bool


def propose(source: ImageSource, name: str, options: GenerateOptions) -> Row | Skipped:
    """Make the proposals of one image.

    Args:
        source (ImageSource): Source of the image.
        name (str): Name of the image in the source.
        options (GenerateOptions): Generator and filter.

    Returns:
        Row | Skipped: The proposals, or the reason why the image is skipped.
    """
    if not name.isprintable():
        return Skipped(repr(name)[1:-1], 'the name cannot be written as text')
    try:
        found = Found(*options.generator.boxes(source, name, options.max_pixels))
    except ImageError as error:
        return Skipped(name, str(error))
    except OSError as error:
        return Skipped(name, f'unreadable: {error.strerror or error}')
    kept, rule = options.box_filter(found.regions, found.width, found.height)
    return Row(name, found.width, found.height, kept.astype(options.generator.box_dtype), rule,
               found.remark)


def propose_chunk(chunk: Chunk) -> list[Row | Skipped]:
    """Make the proposals of a chunk of images, in a worker."""
    return [propose(chunk.source, name, chunk.options) for name in chunk.names]


def describe_run(names: list[str], source: ImageSource, options: GenerateOptions) -> dict:
    """Return the metadata of a store: everything that determines its content, and what is left out.

    Args:
        names (list[str]): Sorted names of the images.
        source (ImageSource): Source of the images.
        options (GenerateOptions): Generator and filter.

    Returns:
        dict: JSON values.
    """
    digest = hashlib.sha256('\n'.join(names).encode('utf-8', 'surrogateescape')).hexdigest()
    source_of = dict(kind=source.kind, images=len(names), names_sha256=digest)
    if source.follow_links:
        source_of['follow_links'] = True
    if source.passed_over:
        source_of['passed_over'] = source.passed_over.metadata()
    return dict(
        box_format='xywh',
        generator=options.generator.describe(),
        filter=options.box_filter.describe(),
        rules=[rule.name for rule in options.box_filter.rules] + [NOTHING],
        source=source_of,
        decoding=DECODING,
        max_pixels=options.max_pixels)


def check_out(out: str | Path) -> None:
    """Create the folder of an output, and check that the output itself is no folder.

    Raises:
        NotWrittenError: If its folder cannot be created.
        ValueError: If it is a folder.
    """
    out = Path(out)
    if out.is_dir():
        raise ValueError(f'the output {out} is a folder: give the name of the file to write, such as '
                         f'{out / "proposals.arrow"}.')
    with naming_file(out):
        out.parent.mkdir(parents=True, exist_ok=True)


def _check_disk(out: Path, images: int) -> None:
    free = shutil.disk_usage(out.parent).free
    needed = 2 * BYTES_PER_IMAGE * images + 2**20
    if free < needed:
        raise OSError(f'too little disk space for {out}: about {needed / 2**20:.0f} MiB are '
                      f'needed for {images} images and their intermediate results, '
                      f'{free / 2**20:.0f} MiB are free in {out.parent}.')


def _is_finished(out: Path, metadata: dict) -> bool:
    """Return whether the output exists, complete and made with these parameters.

    Raises:
        ValueError: If the output was made with other parameters.
    """
    if not out.exists():
        return False
    # a store of an earlier version is complete, too; the summary says what is different
    made = {'decoding': DECODING, **ProposalStore.open(out).metadata}
    changed = differences(determining(made), determining(metadata))
    if changed:
        raise ValueError(f'{out} was made with other parameters ({"; ".join(changed)}): choose '
                         f'another output, or use --overwrite to replace it.')
    return True


def no_photos(source: ImageSource) -> str:
    """Return the message for a source without photos, which names what is there instead.

    Args:
        source (ImageSource): The source, listed.

    Returns:
        str: One paragraph.
    """
    told = source.passed_over.describe()
    return (f'there are no images in {source.path}'
            f'{f", only {told}" if told else ", and no other files"}. Photos are files that end in '
            f'{", ".join(photo_suffixes())}.')


def _summarise(out: Path, source: ImageSource, reused: int) -> Summary:
    store = ProposalStore.open(out)
    return Summary(out, measure(store), read_table(skipped_path(out)), reused,
                   read_table(remarks_path(out)), source.passed_over, 'decoding' not in store.metadata)


def _cut(names: list[str]) -> list[list[str]]:
    size = min(CHUNK_IMAGES, math.ceil(len(names) / CHUNKS))
    return [names[start:start + size] for start in range(0, len(names), size)]


def _results(folder: ChunkFolder, chunks: list[Chunk], executor: Any,
             strict: bool) -> Iterator[tuple[int, int, bool]]:
    """Make the missing chunks.

    Yields:
        tuple[int, int, bool]: Of each chunk: the number of images, the number of skipped images, and
        whether it was reused from an earlier run.
    """
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


def generate(source: ImageSource, out: str | Path, options: GenerateOptions, executor: Any, *,
             names: list[str] | None = None, overwrite: bool = False, strict: bool = False,
             report: Callable[[int, int, bool], None] = lambda *_: None) -> Summary:
    """Make the proposal store of all images of a source.

    The file depends only on the images and the options. A killed run resumes when it is started again
    with the same arguments, and gives the same file.

    Args:
        source (ImageSource): The images.
        out (str | Path): The store to write.
        options (GenerateOptions): Generator and filter.
        executor (SerialExecutor | ProcessExecutor | DaskExecutor): Executor of the tasks.
        names (list[str], optional): The result of `options.generator.images(source)`, if it is already
            known. Defaults to None.
        overwrite (bool): Whether to start from the beginning and replace an existing output. Defaults
            to False.
        strict (bool): Whether to stop at an image that cannot be used instead of skipping it. Defaults
            to False.
        report (Callable): Called with a number of images done, the number of them that were skipped,
            and whether their result was reused from an earlier run. Does nothing by default.

    Returns:
        Summary: The result of the run.

    Raises:
        OSError: If there is too little disk space, or the output cannot be written.
        ValueError: If the output is a folder, there are no images, no image can be used, the output was
            made with other parameters or is being made by another run, or, with `strict`, an image
            cannot be used.
    """
    out = Path(out)
    generator = options.generator
    names = generator.images(source) if names is None else names
    if not names:
        raise ValueError(no_photos(source))
    check_out(out)
    metadata = describe_run(names, source, options)
    finished = not overwrite and _is_finished(out, metadata)
    if not finished:
        _check_disk(out, len(names))
    if not finished or parts_folder(out).exists():
        with ChunkFolder(out) as folder:
            # check again: the run that held the lock may have finished the output in the meantime
            finished = not overwrite and _is_finished(out, metadata)
            if not finished:
                folder.begin(metadata, generator.box_dtype, anew=overwrite)
                chunks = [Chunk(source.select(part), part,
                                replace(options, generator=generator.select(part)))
                          for part in _cut(names)]
                return _summarise(out, source, _make(folder, chunks, executor, strict, report))
            folder.remove()
    report(len(names), 0, True)
    return _summarise(out, source, len(names))


def _make(folder: ChunkFolder, chunks: list[Chunk], executor: Any, strict: bool,
          report: Callable[[int, int, bool], None]) -> int:
    """Make the missing chunks, join all chunks, and remove the folder.

    Returns:
        int: Number of images whose result was reused from an earlier run.
    """
    reused = 0
    for images, bad, before in _results(folder, chunks, executor, strict):
        reused += images * before
        report(images, bad, before)
    parts = [folder.open(index) for index in range(len(chunks))]
    skipped, remarks = ([Skipped(*row) for part in parts for row in part.metadata.get(key, ())]
                        for key in ('skipped', 'remarks'))
    if not any(map(len, parts)):
        folder.remove()
        raise ValueError(f'none of the {len(skipped)} images can be used; the first, '
                         f'{skipped[0].image}: {skipped[0].reason}.')
    write_table(skipped_path(folder.out), skipped)
    write_table(remarks_path(folder.out), remarks)
    metadata = folder.metadata
    if remarks:
        counts = dict(Counter(remark.reason for remark in remarks))
        metadata = dict(metadata, source=dict(metadata['source'], looks_wrong=counts))
    with StoreWriter(folder.out, metadata, folder.box_dtype) as writer:
        for part in parts:
            for index in range(len(part)):
                copy_row(part, index, writer)
    folder.remove()
    return reused
