"""Proposal stores: one memory-mapped Arrow IPC file per data set.

A row is an image; the rows are sorted by name. The metadata of the schema contain one JSON object under
the key `soco_proposals`. Checksums cover both: those of the metadata and of the number of rows are
compared when a store is opened, that of a batch when one of its rows is read for the first time.
`docs/proposals.md` specifies the format byte by byte.
"""
import bisect
import json
import os
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from ..files import whole_file
from .store_format import (
    BOX_DTYPES,
    CHECKSUM_KEY,
    FORMAT_VERSION,
    METADATA_KEY,
    SEAL_KEY,
    Columns,
    checksum_of,
    exact_boxes,
    seal,
    sealed_checksum,
    store_schema,
)

BATCH_ROWS = 16384
BATCH_BOXES = 2**22
_HOW_TO_MAKE = 'make it with: python tools/generate_proposals.py IMAGES OUT.arrow'
_MAKE_AGAIN = 'make it again: python tools/generate_proposals.py IMAGES OUT.arrow --overwrite'


class ImageProposals(NamedTuple):
    """Proposals of one image.

    Args:
        image (str): Name of the image: a path relative to the image source, with slashes.
        width (int): Width of the upright image in pixels.
        height (int): Height of the upright image in pixels.
        boxes (np.ndarray): (n, 4) float32 x1, y1, x2, y2 in pixels, half-open: x2 = x1 + w.
    """

    image: str
    width: int
    height: int
    boxes: np.ndarray


class ProposalStore:
    """Reader of a store; cheap to open, to copy to a worker, and to keep open.

    All processes that open the same file share its pages. A pickled store contains only its path. Use
    `open` to open a store.

    Args:
        path (str | Path): The file.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = os.path.abspath(path)
        if not os.path.isfile(self.path):
            raise FileNotFoundError(f'there is no proposal store at {path}: {_HOW_TO_MAKE}')
        try:
            reader = pa.ipc.open_file(pa.memory_map(self.path))
            schema = reader.schema
            count = reader.num_record_batches
            found = [reader.get_batch_with_custom_metadata(i) for i in range(count)]
        except (pa.ArrowException, OSError) as error:
            raise ValueError(f'{path} is not a proposal store, or it is truncated ({error}): '
                             f'{_HOW_TO_MAKE}') from error
        self.metadata, self.box_dtype = self._read_schema(schema)
        checksum, last = schema.metadata[CHECKSUM_KEY], count - 1
        try:
            if not found:
                raise ValueError('no batch of rows is left')
            self._sealed = [
                (batch, sealed_checksum((custom or {}).get(SEAL_KEY, b''), checksum, i,
                                        batch.num_rows, i == last))
                for i, (batch, custom) in enumerate(found)]
        except ValueError as error:
            raise self._damaged(str(error)) from error
        self._columns: list[Columns | None] = [None] * count
        self._starts = np.cumsum([0] + [batch.num_rows for batch, _ in found]).tolist()

    @classmethod
    def open(cls, path: str | Path) -> 'ProposalStore':
        """Open a store.

        Args:
            path (str | Path): The file.

        Returns:
            ProposalStore: The store.

        Raises:
            FileNotFoundError: If there is no such file.
            ValueError: If the file is not a proposal store, is truncated or damaged, or has another
                format version. Damage to the rows themselves is reported when one of them is read.
        """
        return cls(path)

    def _read_schema(self, schema: pa.Schema) -> tuple[dict[str, Any], str]:
        """Return the metadata and the type of the boxes."""
        text = (schema.metadata or {}).get(METADATA_KEY)
        if text is None:
            raise ValueError(f'{self.path} is an Arrow file but not a proposal store: '
                             f'{_HOW_TO_MAKE}')
        try:
            metadata = json.loads(text)
            version = metadata['format_version']
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise ValueError(f'the metadata of {self.path} cannot be read: '
                             f'{_HOW_TO_MAKE}') from error
        if version != FORMAT_VERSION:
            raise ValueError(f'{self.path} has format version {version}, this code reads version '
                             f'{FORMAT_VERSION}: {_MAKE_AGAIN}')
        box_dtype = next((dtype for dtype in BOX_DTYPES
                          if schema.equals(store_schema({}, dtype))), None)
        if box_dtype is None:
            raise ValueError(f'the columns of {self.path} are not those of a proposal store: '
                             f'{_HOW_TO_MAKE}')
        if schema.metadata.get(CHECKSUM_KEY) != checksum_of(text, box_dtype):
            raise self._damaged('the metadata')
        return metadata, box_dtype

    def _damaged(self, what: str) -> ValueError:
        return ValueError(f'{self.path} is damaged ({what}): restore the file, or {_MAKE_AGAIN}')

    def _open_batch(self, number: int) -> Columns:
        """Check a batch and its checksum, and make its rows readable."""
        batch, checksum = self._sealed[number]
        try:
            columns = Columns(batch, self.box_dtype)
            if columns.checksum != checksum:
                raise ValueError('the checksum does not match')
        except (pa.ArrowException, TypeError, ValueError) as error:
            first, end = self._starts[number:number + 2]
            raise self._damaged(f'rows {first} to {end - 1}: {error}') from error
        self._columns[number] = columns
        return columns

    def __reduce__(self) -> tuple:
        return type(self), (self.path,)

    def __repr__(self) -> str:
        return f'{type(self).__name__}({self.path!r}, {len(self)} images)'

    def __len__(self) -> int:
        return self._starts[-1]

    def _locate(self, index: int) -> tuple[Columns, int]:
        if index < 0:
            index += len(self)
        if not 0 <= index < len(self):
            raise IndexError(f'{self.path} has {len(self)} images, there is no row {index}.')
        number = bisect.bisect_right(self._starts, index) - 1
        return self._columns[number] or self._open_batch(number), index - self._starts[number]

    def name(self, index: int) -> str:
        """Return the name of the image in a row."""
        batch, row = self._locate(index)
        return str(batch.names[batch.name_offsets[row]:batch.name_offsets[row + 1]], 'utf-8')

    def size(self, index: int) -> tuple[int, int]:
        """Return the width and height of the image in a row, in pixels."""
        batch, row = self._locate(index)
        return batch.widths[row], batch.heights[row]

    def box_counts(self) -> np.ndarray:
        """Return the number of boxes of each image, (n,) int32."""
        self.verify()
        return np.concatenate([np.diff(np.asarray(batch.box_offsets)) for batch in self._columns])

    def verify(self) -> None:
        """Check the checksums of all rows that have not been read yet.

        Raises:
            ValueError: If the file is damaged; the message names the rows.
        """
        for number, columns in enumerate(self._columns):
            if columns is None:
                self._open_batch(number)

    def regions(self, index: int) -> np.ndarray:
        """Return the boxes of a row as stored.

        Args:
            index (int): The row.

        Returns:
            np.ndarray: (n, 4) read-only x, y, w, h in pixels, of type `box_dtype`.
        """
        batch, row = self._locate(index)
        return batch.boxes[batch.box_offsets[row]:batch.box_offsets[row + 1]]

    def rule(self, index: int) -> str:
        """Return the name of the filter rule that selected the boxes of a row."""
        batch, row = self._locate(index)
        names = self.metadata.get('rules', [])
        if batch.rules[row] >= len(names):
            raise self._damaged(f'row {index} has no rule')
        return names[batch.rules[row]]

    def __getitem__(self, index: int) -> ImageProposals:
        regions = self.regions(index)
        boxes = regions.astype(np.float64 if self.box_dtype == 'float64' else np.float32)
        boxes[:, 2:] += boxes[:, :2]  # type: ignore[misc]
        return ImageProposals(self.name(index), *self.size(index),
                              boxes.astype(np.float32, copy=False))

    def __iter__(self) -> Iterator[ImageProposals]:
        for index in range(len(self)):
            yield self[index]

    def index(self, image: str) -> int:
        """Return the row of an image.

        Args:
            image (str): Name of the image.

        Returns:
            int: Its row.

        Raises:
            KeyError: If the store does not list the image.
        """
        row = bisect.bisect_left(range(len(self)), image, key=self.name)
        if row == len(self) or self.name(row) != image:
            raise KeyError(f'{self.path} lists no image {image!r}.')
        return row

    def __contains__(self, image: str) -> bool:
        try:
            self.index(image)
        except KeyError:
            return False
        return True


class StoreWriter:
    """Writer of a store, which appears at its path only when it is complete.

    Use it in a `with` statement: an exception leaves no file behind.

    Args:
        path (str | Path): The file; an existing one is replaced.
        metadata (dict): JSON values. `rules` lists the names of rules that rows may have.
        box_dtype (str): `'uint16'`, `'float32'` or `'float64'`. Defaults to 'uint16'.
    """

    def __init__(self, path: str | Path, metadata: dict, box_dtype: str = 'uint16') -> None:
        self.path = Path(path)
        self.rows = 0
        self._dtype = np.dtype(box_dtype)
        self._rules = {name: i for i, name in enumerate(metadata.get('rules', []))}
        self._schema = store_schema(metadata, box_dtype)
        self._last: str | None = None
        self._pending: list[tuple] = []
        self._boxes = self._batches = 0

    def __enter__(self) -> 'StoreWriter':
        with ExitStack() as stack:
            file = stack.enter_context(whole_file(self.path, 'wb'))
            self._writer = pa.ipc.new_file(file, self._schema)
            stack.push(self._finish)
            self._closing = stack.pop_all()
        return self

    def add(self, image: str, width: int, height: int, regions: np.ndarray, rule: str) -> None:
        """Append an image; images must be added in the order of their names.

        Args:
            image (str): Relative path of the image, with slashes.
            width (int): Width in pixels.
            height (int): Height in pixels.
            regions (np.ndarray): (n, 4) x, y, w, h in pixels.
            rule (str): Name of the rule that selected them, one of the metadata's `rules`.

        Raises:
            ValueError: If the name is out of order, the rule is unknown, a side is out of range, or a
                box is invalid or cannot be stored exactly in the column's type.
        """
        if self._last is not None and image <= self._last:
            raise ValueError(f'images must be added in the order of their names, each once: '
                             f'{image!r} came after {self._last!r}.')
        if rule not in self._rules or not (0 < width < 2**31 and 0 < height < 2**31):
            raise ValueError(f'{image!r} measures {width} × {height} pixels, its rule is {rule!r}: '
                             f'sides must be at least 1, the rule one of {", ".join(self._rules)}.')
        stored = exact_boxes(regions, image, self._dtype)
        if len(self._pending) == BATCH_ROWS or self._boxes >= BATCH_BOXES:
            self._flush(last=False)
        self._last = image
        self._pending.append((image, width, height, self._rules[rule], stored))
        self._boxes += len(stored)
        self.rows += 1

    def _flush(self, last: bool) -> None:
        images, widths, heights, rules, regions = zip(*self._pending) if self._pending else [()] * 5
        offsets = np.cumsum([0] + [len(r) for r in regions], dtype=np.int32)
        kinds = [field.type for field in self._schema]
        flat = pa.array(np.concatenate([np.zeros((0, 4), self._dtype), *regions]).reshape(-1))
        boxes = pa.FixedSizeListArray.from_arrays(flat, type=kinds[4].value_type)
        arrays = [pa.array(values, kind) for values, kind in
                  zip((images, widths, heights, rules), kinds)]
        arrays.append(pa.ListArray.from_arrays(offsets, boxes, type=kinds[4]))
        batch = pa.record_batch(arrays, schema=self._schema)
        mark = seal(self._schema.metadata[CHECKSUM_KEY], self._batches, len(images), last,
                    Columns(batch, self._dtype.name).checksum)
        self._writer.write_batch(batch, custom_metadata={SEAL_KEY: mark})
        self._batches += 1
        self._boxes = 0
        self._pending.clear()

    def _finish(self, kind: type | None, error: BaseException | None, trace: Any) -> None:
        if kind is None:
            self._flush(last=True)
            self._writer.close()

    def __exit__(self, *raised: Any) -> None:
        self._closing.__exit__(*raised)
