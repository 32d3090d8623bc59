"""ProposalStore: one Arrow IPC file per data set, memory-mapped.

A row is an image; the rows are sorted by name. The schema's metadata hold one JSON object under
the key ``soco_proposals``. ``docs/proposals.md`` describes the format to the byte.
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

from .files import whole_file

FORMAT_VERSION = 1
METADATA_KEY = b'soco_proposals'
BATCH_ROWS = 16384
BOX_DTYPES = ('uint16', 'float32', 'float64')
_HOW_TO_MAKE = 'make it with: python tools/generate_proposals.py IMAGES OUT.arrow'


class ImageProposals(NamedTuple):
    """The proposals of one image.

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


def store_schema(metadata: dict, box_dtype: str) -> pa.Schema:
    """The Arrow schema of a store.

    Args:
        metadata (dict): JSON values.
        box_dtype (str): One of :data:`BOX_DTYPES`.

    Returns:
        pa.Schema: The schema, metadata included.
    """
    if box_dtype not in BOX_DTYPES:
        raise ValueError(f'boxes cannot be stored as {box_dtype!r}: use {", ".join(BOX_DTYPES)}.')
    box = pa.list_(pa.field('xywh', pa.from_numpy_dtype(box_dtype), nullable=False), 4)
    fields = [('image', pa.utf8()), ('width', pa.int32()), ('height', pa.int32()),
              ('rule', pa.uint8()), ('boxes', pa.list_(pa.field('box', box, nullable=False)))]
    text = json.dumps(dict(metadata, format_version=FORMAT_VERSION), sort_keys=True,
                      allow_nan=False)
    return pa.schema([pa.field(name, kind, nullable=False) for name, kind in fields],
                     metadata={METADATA_KEY: text.encode()})


class _Batch:
    """Views of one record batch's columns in the mapped file."""

    def __init__(self, batch: pa.RecordBatch, dtype: np.dtype) -> None:
        rows = self.rows = batch.num_rows
        names = batch.column(0).buffers()
        self.name_offsets = memoryview(names[1]).cast('i')[:rows + 1]
        self.names = memoryview(names[2] or b'')
        self.widths, self.heights, self.rules = (
            memoryview(batch.column(i).buffers()[1]).cast(kind)[:rows]
            for i, kind in ((1, 'i'), (2, 'i'), (3, 'B')))
        boxes = batch.column(4).buffers()
        self.box_offsets = memoryview(boxes[1]).cast('i')[:rows + 1]
        values = np.frombuffer(boxes[-1] or b'', dtype=dtype)
        self.boxes = values[:len(values) // 4 * 4].reshape(-1, 4)


class ProposalStore:
    """Read access to a store; cheap to open, to copy to a worker, and to keep open.

    All processes that open the same file share its pages. A pickled store carries only its path.

    Args:
        path (str | Path): The file. Use :meth:`open`.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = os.path.abspath(path)
        if not os.path.isfile(self.path):
            raise FileNotFoundError(f'there is no proposal store at {path}: {_HOW_TO_MAKE}')
        try:
            reader = pa.ipc.open_file(pa.memory_map(self.path))
            schema = reader.schema
            batches = [reader.get_batch(i) for i in range(reader.num_record_batches)]
        except (pa.ArrowException, OSError) as error:
            raise ValueError(f'{path} is not a proposal store, or only a part of one ({error}): '
                             f'{_HOW_TO_MAKE}') from error
        self.metadata = self._read_metadata(schema)
        self.box_dtype = str(np.dtype(schema.field('boxes').type.value_type.value_type
                                      .to_pandas_dtype()))
        self._batches = [_Batch(batch, np.dtype(self.box_dtype))
                         for batch in batches if batch.num_rows]
        self._starts = np.cumsum([0] + [batch.rows for batch in self._batches]).tolist()

    @classmethod
    def open(cls, path: str | Path) -> 'ProposalStore':
        """Open a store.

        Args:
            path (str | Path): The file.

        Returns:
            ProposalStore: The store.

        Raises:
            FileNotFoundError: If there is no such file.
            ValueError: If the file is no proposal store, truncated, or of another format version.
        """
        return cls(path)

    def _read_metadata(self, schema: pa.Schema) -> dict[str, Any]:
        text = (schema.metadata or {}).get(METADATA_KEY)
        if text is None:
            raise ValueError(f'{self.path} is an Arrow file but not a proposal store: '
                             f'{_HOW_TO_MAKE}')
        try:
            metadata = json.loads(text)
            version = metadata['format_version']
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f'the metadata of {self.path} cannot be read: '
                             f'{_HOW_TO_MAKE}') from error
        if version != FORMAT_VERSION:
            raise ValueError(f'{self.path} has format version {version}, this code reads version '
                             f'{FORMAT_VERSION}: use the code that wrote it, or {_HOW_TO_MAKE}')
        if not any(schema.equals(store_schema({}, dtype)) for dtype in BOX_DTYPES):
            raise ValueError(f'the columns of {self.path} are not those of a proposal store '
                             f'({", ".join(schema.names)}): {_HOW_TO_MAKE}')
        return metadata

    def __reduce__(self) -> tuple:
        return type(self), (self.path,)

    def __repr__(self) -> str:
        return f'{type(self).__name__}({self.path!r}, {len(self)} images)'

    def __len__(self) -> int:
        return self._starts[-1]

    def _locate(self, index: int) -> tuple[_Batch, int]:
        if index < 0:
            index += len(self)
        if not 0 <= index < len(self):
            raise IndexError(f'{self.path} has {len(self)} images, there is no row {index}.')
        batch = bisect.bisect_right(self._starts, index) - 1
        return self._batches[batch], index - self._starts[batch]

    def _corrupt(self, index: int, column: str) -> ValueError:
        return ValueError(f'row {index} of {self.path} is corrupt (column {column!r}): restore '
                          f'the file, or {_HOW_TO_MAKE}')

    def name(self, index: int) -> str:
        """The name of the image in a row, without its boxes."""
        batch, row = self._locate(index)
        start, stop = batch.name_offsets[row], batch.name_offsets[row + 1]
        if not 0 <= start < stop <= len(batch.names):
            raise self._corrupt(index, 'image')
        try:
            return str(batch.names[start:stop], 'utf-8')
        except UnicodeDecodeError as error:
            raise self._corrupt(index, 'image') from error

    def size(self, index: int) -> tuple[int, int]:
        """Width and height of the image in a row, in pixels."""
        batch, row = self._locate(index)
        return batch.widths[row], batch.heights[row]

    def box_counts(self) -> np.ndarray:
        """How many boxes each image has, (n,) int32."""
        counts = [np.diff(np.asarray(batch.box_offsets)) for batch in self._batches]
        return np.concatenate(counts or [np.zeros(0, dtype=np.int32)])

    def regions(self, index: int) -> np.ndarray:
        """The boxes of a row as stored.

        Args:
            index (int): Row.

        Returns:
            np.ndarray: (n, 4) read-only x, y, w, h in pixels, of type ``box_dtype``.
        """
        batch, row = self._locate(index)
        start, stop = batch.box_offsets[row], batch.box_offsets[row + 1]
        if not 0 <= start <= stop <= len(batch.boxes):
            raise self._corrupt(index, 'boxes')
        return batch.boxes[start:stop]

    def rule(self, index: int) -> str:
        """The name of the filter's rule that chose the boxes of a row."""
        batch, row = self._locate(index)
        names = self.metadata.get('rules', [])
        if batch.rules[row] >= len(names):
            raise self._corrupt(index, 'rule')
        return names[batch.rules[row]]

    def __getitem__(self, index: int) -> ImageProposals:
        regions = self.regions(index)
        boxes = regions.astype(np.float64 if self.box_dtype == 'float64' else np.float32)
        boxes[:, 2:] += boxes[:, :2]
        return ImageProposals(self.name(index), *self.size(index),
                              boxes.astype(np.float32, copy=False))

    def __iter__(self) -> Iterator[ImageProposals]:
        for index in range(len(self)):
            yield self[index]

    def index(self, image: str) -> int:
        """The row of an image.

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
    """Writes a store beside its place and moves it there when it is complete.

    Use it in a ``with`` statement: an exception leaves nothing behind.

    Args:
        path (str | Path): The file; one that is there is replaced.
        metadata (dict): JSON values. ``rules`` lists the names that rows may give as rule.
        box_dtype (str): ``'uint16'``, ``'float32'`` or ``'float64'``.
    """

    def __init__(self, path: str | Path, metadata: dict, box_dtype: str = 'uint16') -> None:
        self.path = Path(path)
        self.rows = 0
        self._dtype = np.dtype(box_dtype)
        self._rules = {name: i for i, name in enumerate(metadata.get('rules', []))}
        self._schema = store_schema(metadata, box_dtype)
        self._last: str | None = None
        self._pending: list[tuple] = []

    def __enter__(self) -> 'StoreWriter':
        with ExitStack() as stack:
            file = stack.enter_context(whole_file(self.path, 'wb'))
            self._writer = pa.ipc.new_file(file, self._schema)
            stack.push(self._finish)
            self._closing = stack.pop_all()
        return self

    def add(self, image: str, width: int, height: int, regions: np.ndarray, rule: str) -> None:
        """Append an image; the images must come in the order of their names.

        Args:
            image (str): Relative path of the image, with slashes.
            width (int): Width in pixels.
            height (int): Height in pixels.
            regions (np.ndarray): (n, 4) x, y, w, h in pixels.
            rule (str): Name of the rule that chose them, one of the metadata's ``rules``.

        Raises:
            ValueError: If the name is out of order, or a box does not fit the column's type.
        """
        if self._last is not None and image <= self._last:
            raise ValueError(f'images must be added in the order of their names, each once: '
                             f'{image!r} came after {self._last!r}.')
        regions = np.asarray(regions).reshape(-1, 4)
        stored = regions.astype(self._dtype)
        if not np.array_equal(stored, regions):
            raise ValueError(f'the boxes of {image!r} cannot be stored exactly as {self._dtype}.')
        self._last = image
        self._pending.append((image, width, height, self._rules[rule], stored))
        self.rows += 1
        if len(self._pending) == BATCH_ROWS:
            self._flush()

    def _flush(self) -> None:
        if not self._pending:
            return
        images, widths, heights, rules, regions = zip(*self._pending)
        offsets = np.cumsum([0] + [len(r) for r in regions], dtype=np.int32)
        kinds = [field.type for field in self._schema]
        flat = pa.array(np.concatenate(regions).reshape(-1))
        boxes = pa.FixedSizeListArray.from_arrays(flat, type=kinds[4].value_type)
        columns = [pa.array(values, kind) for values, kind in
                   zip((images, widths, heights, rules), kinds)]
        columns.append(pa.ListArray.from_arrays(offsets, boxes, type=kinds[4]))
        self._writer.write_batch(pa.record_batch(columns, schema=self._schema))
        self._pending.clear()

    def _finish(self, kind: type | None, error: BaseException | None, trace: Any) -> None:
        if kind is None:
            self._flush()
            self._writer.close()

    def __exit__(self, *raised: Any) -> None:
        self._closing.__exit__(*raised)
