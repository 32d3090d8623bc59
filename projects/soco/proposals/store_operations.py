"""Operations on stores: merge, subset, validate."""
import heapq
import math
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path, PurePosixPath

import numpy as np

from .journal import determining, differences
from .source_base import name_problem
from .store import ProposalStore, StoreWriter


def copy_row(store: ProposalStore, index: int, writer: StoreWriter) -> None:
    """Append an exact copy of a row of a store to another store.

    Args:
        store (ProposalStore): The store that contains the row.
        index (int): The row.
        writer (StoreWriter): Writer of the other store.
    """
    writer.add(store.name(index), *store.size(index), store.regions(index), store.rule(index))


def _numbered_rows(number: int, store: ProposalStore) -> Iterator[tuple[str, int, int]]:
    for row in range(len(store)):
        yield store.name(row), number, row


def merge_stores(paths: Sequence[str | Path], out: str | Path) -> None:
    """Merge stores of different images that were made in the same way.

    Args:
        paths (Sequence[str | Path]): The stores.
        out (str | Path): The store to write.

    Raises:
        ValueError: If the stores were made in different ways, or an image is in two of them.
    """
    if not paths:
        raise ValueError('there are no stores to merge.')
    if any(os.path.abspath(path) == os.path.abspath(out) for path in paths):
        raise ValueError(f'{out} cannot be merged into itself: choose another output.')
    stores = [ProposalStore.open(path) for path in paths]
    common = [{key: value for key, value in store.metadata.items() if key != 'source'}
              for store in stores]
    for path, store, metadata in zip(paths, stores, common):
        changed = differences(determining(common[0]), determining(metadata))
        if store.box_dtype != stores[0].box_dtype:
            changed.append(f'boxes: {stores[0].box_dtype}, now {store.box_dtype}')
        if changed:
            raise ValueError(f'{path} was not made in the same way as {paths[0]} '
                             f'({"; ".join(changed)}): such stores cannot be merged.')
    rows = heapq.merge(*(_numbered_rows(number, store) for number, store in enumerate(stores)))
    source = dict(kind='merge', images=sum(map(len, stores)),
                  sources=[store.metadata.get('source') for store in stores])
    with StoreWriter(out, dict(common[0], source=source), stores[0].box_dtype) as writer:
        for _, number, row in rows:
            copy_row(stores[number], row, writer)


def write_subset(store: ProposalStore, images: Iterable[str], out: str | Path) -> None:
    """Write a store with some of the images of another store.

    Args:
        store (ProposalStore): The other store.
        images (Iterable[str]): Names of the images.
        out (str | Path): The store to write.

    Raises:
        ValueError: If the store does not list one of the images.
    """
    if os.path.abspath(out) == store.path:
        raise ValueError(f'{out} cannot be its own subset: choose another output.')
    wanted = sorted(set(images))
    missing = [image for image in wanted if image not in store]
    if missing:
        raise ValueError(f'{store.path} does not list {len(missing)} of {len(wanted)} images; the '
                         f'first is {missing[0]}.')
    source = dict(kind='subset', images=len(wanted), of=store.metadata.get('source'))
    with StoreWriter(out, dict(store.metadata, source=source), store.box_dtype) as writer:
        for image in wanted:
            copy_row(store, store.index(image), writer)


def box_problem(regions: np.ndarray, width: int, height: int, box_dtype: str) -> str | None:
    """Return the first invalid box of an image and what is wrong with it.

    Boxes of a floating-point column may extend beyond the image by one pixel, as annotations do.

    Args:
        regions (np.ndarray): (n, 4) x, y, w, h in pixels.
        width (int): Width of the image in pixels.
        height (int): Height of the image in pixels.
        box_dtype (str): Type of their column.

    Returns:
        str | None: The box and its problem, or None if all boxes are valid.
    """
    boxes = regions.astype(np.float64)
    slack = 0 if box_dtype == 'uint16' else 1
    broken = ~np.isfinite(boxes).all(axis=1) | (boxes[:, 2:] < 0).any(axis=1)
    far = boxes[:, :2] + boxes[:, 2:]
    outside = (boxes[:, :2] < -slack).any(axis=1) | (far > (width + slack, height + slack)).any(axis=1)
    for bad, words in ((broken, 'is not finite or has a negative side'),
                       (outside, f'extends beyond the image of {width} × {height} pixels')):
        if bad.any():
            row = int(bad.argmax())
            shown = ', '.join(f'{value:g}' for value in boxes[row])
            return f'box {row} ({shown}) {words}'
    return None


def _problems_of_row(store: ProposalStore, row: int) -> Iterable[str]:
    width, height = store.size(row)
    store.rule(row)
    if width < 1 or height < 1:
        yield f'the image measures {width} × {height} pixels'
    problem = box_problem(store.regions(row), width, height, store.box_dtype)
    if problem:
        yield problem


def validate_store(store: ProposalStore, most: int = 20) -> list[str]:
    """Read a whole store and list what is wrong with it.

    Boxes are checked by `box_problem`.

    Args:
        store (ProposalStore): The store.
        most (int): Largest number of problems to list. Defaults to 20.

    Returns:
        list[str]: The problems, each with its row; empty if there are none.
    """
    try:
        store.verify()
    except ValueError as error:
        return [str(error)]
    problems, last = [], None
    for row in range(len(store)):
        try:
            name = store.name(row)
            found = list(_problems_of_row(store, row))
        except ValueError as error:
            problems.append(str(error))
            continue
        if name_problem(name) or str(PurePosixPath(name)) != name:
            found.append('the name is not a plain relative path')
        if last is not None and name <= last:
            found.append(f'the name does not come after {last!r}')
        last = name
        problems += [f'row {row} ({name}): {problem}' for problem in found]
        if len(problems) >= most:
            return problems[:most]
    return problems


def box_dtype_for(values: Sequence[float]) -> str:
    """Return the smallest type of box column that keeps numbers exactly as they were written.

    Args:
        values (Sequence[float]): Box coordinates, as read from JSON.

    Returns:
        str: `'uint16'` if all are integers in 0 … 65535; `'float32'` if for all the shortest decimal
        form of the number rounded to float32 is the number itself; otherwise `'float64'`.

    Raises:
        ValueError: If a number is not finite.
    """
    if not all(map(math.isfinite, values)):
        raise ValueError('a box contains a number that is not finite.')
    if all(0 <= value <= 65535 and value == int(value) for value in values):
        return 'uint16'
    if all(abs(value) < 1e30 and float(str(np.float32(value))) == value for value in values):
        return 'float32'
    return 'float64'
