"""File format of a store: its schema, its batches of columns, and the checksums of both.

The checksums detect damage, not tampering: anyone who can write a file can also write its checksums.
"""
import json
import zlib
from typing import Any

import numpy as np
import pyarrow as pa

FORMAT_VERSION = 2
METADATA_KEY = b'soco_proposals'
CHECKSUM_KEY = b'soco_checksum'
SEAL_KEY = b'soco_batch'
BOX_DTYPES = ('uint16', 'float32', 'float64')


def store_schema(metadata: dict, box_dtype: str) -> pa.Schema:
    """Return the Arrow schema of a store.

    Args:
        metadata (dict): JSON values.
        box_dtype (str): One of `BOX_DTYPES`.

    Returns:
        pa.Schema: The schema, including the metadata and their checksum.

    Raises:
        ValueError: If `box_dtype` is not one of `BOX_DTYPES`.
    """
    if box_dtype not in BOX_DTYPES:
        raise ValueError(f'boxes cannot be stored as {box_dtype!r}: use {", ".join(BOX_DTYPES)}.')
    box = pa.list_(pa.field('xywh', pa.from_numpy_dtype(box_dtype), nullable=False), 4)
    fields = [('image', pa.utf8()), ('width', pa.int32()), ('height', pa.int32()),
              ('rule', pa.uint8()), ('boxes', pa.list_(pa.field('box', box, nullable=False)))]
    text = json.dumps(dict(metadata, format_version=FORMAT_VERSION), sort_keys=True,
                      allow_nan=False).encode()
    return pa.schema([pa.field(name, kind, nullable=False) for name, kind in fields],
                     metadata={METADATA_KEY: text, CHECKSUM_KEY: checksum_of(text, box_dtype)})


def checksum_of(metadata: bytes, box_dtype: str) -> bytes:
    """Return the checksum of a store's metadata and type of boxes, 8 hexadecimal digits."""
    return b'%08x' % zlib.crc32(box_dtype.encode(), zlib.crc32(metadata))


def seal(checksum: bytes, number: int, rows: int, last: bool, columns: int) -> bytes:
    """Return the seal of a batch, which detects changed, lost, moved and foreign batches.

    Args:
        checksum (bytes): Checksum of the store's metadata.
        number (int): Position of the batch in the file, from 0.
        rows (int): Number of rows of the batch.
        last (bool): Whether it is the file's last batch.
        columns (int): CRC-32 of its columns.

    Returns:
        bytes: The last four arguments as text, and a checksum of all five.
    """
    text = b'%d %d %d %08x' % (number, rows, last, columns)
    return b'%s %08x' % (text, zlib.crc32(text, zlib.crc32(checksum)))


def sealed_checksum(found: bytes, checksum: bytes, number: int, rows: int, last: bool) -> int:
    """Check the seal of a batch and return the CRC-32 of the batch's columns that it contains.

    Args:
        found (bytes): The seal in the file.
        checksum (bytes): Checksum of the store's metadata.
        number (int): Position of the batch in the file, from 0.
        rows (int): Number of rows of the batch.
        last (bool): Whether it is the file's last batch.

    Returns:
        int: CRC-32 of the columns.

    Raises:
        ValueError: If the seal is not that of such a batch.
    """
    text, _, own = found.rpartition(b' ')
    parts = text.split(b' ')
    if (own != b'%08x' % zlib.crc32(text, zlib.crc32(checksum))
            or parts[:3] != [b'%d' % value for value in (number, rows, last)]):
        raise ValueError(f'batch {number} is not the one that was written there')
    return int(parts[3], 16)


class Columns:
    """Views of one batch's columns in the mapped file, checked to be within it.

    Args:
        batch (pa.RecordBatch): The batch.
        box_dtype (str): Type of the boxes.

    Raises:
        pa.ArrowException: If the columns are inconsistent, such as offsets that are out of range.
        TypeError, ValueError: If a column is missing or too short.
    """

    def __init__(self, batch: pa.RecordBatch, box_dtype: str) -> None:
        batch.validate(full=True)
        rows = batch.num_rows
        names, *numbers, boxes = (column.buffers() for column in batch.columns)
        name_offsets, box_offsets = (
            np.frombuffer(column[1], '<i4', rows + 1) if rows else np.zeros(1, '<i4')
            for column in (names, boxes))
        text = np.frombuffer(names[2] or b'', 'u1', name_offsets[-1])
        widths, heights, rules = (np.frombuffer(column[1] or b'', kind, rows)
                                  for column, kind in zip(numbers, ('<i4', '<i4', 'u1')))
        values = np.frombuffer(boxes[-1] or b'', box_dtype, 4 * int(box_offsets[-1]))
        self.checksum = 0
        for array in (name_offsets, text, widths, heights, rules, box_offsets, values):
            self.checksum = zlib.crc32(array, self.checksum)
        # reading a single number takes half as long from a memoryview as from an array
        self.name_offsets, self.names, self.widths, self.heights, self.rules, self.box_offsets = map(
            memoryview, (name_offsets, text, widths, heights, rules, box_offsets))
        self.boxes = values.reshape(-1, 4)


def exact_boxes(regions: Any, image: str, dtype: np.dtype) -> np.ndarray:
    """Convert boxes exactly to the type of their column.

    Args:
        regions (np.ndarray): (n, 4) x, y, w, h in pixels; anything empty means no boxes.
        image (str): Name of their image, for the message.
        dtype (np.dtype): One of `BOX_DTYPES`.

    Returns:
        np.ndarray: (n, 4) of that type.

    Raises:
        ValueError: If a box is not finite, has a negative side, is not four numbers, or cannot be
            stored exactly.
    """
    regions = np.asarray(regions)
    if not regions.size:
        return np.zeros((0, 4), dtype)
    if regions.ndim != 2 or regions.shape[1] != 4 or regions.dtype.kind not in 'iuf':
        raise ValueError(f'the boxes of {image!r} should be (n, 4) numbers x, y, w, h, not '
                         f'{regions.shape} of type {regions.dtype}.')
    wrong = ~np.isfinite(regions).all(axis=1) | (regions[:, 2:] < 0).any(axis=1)
    if wrong.any():
        raise ValueError(f'box {wrong.argmax()} of {image!r} is not finite or has a negative side: '
                         f'{regions[wrong.argmax()].tolist()} (x, y, w, h).')
    with np.errstate(over='ignore'):
        stored = regions.astype(dtype)
    if not np.array_equal(stored, regions):
        raise ValueError(f'the boxes of {image!r} cannot be stored exactly as {dtype}.')
    return stored
