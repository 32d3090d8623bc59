"""Images of more than 8 bits per value: their header, and their values, read by Pillow or OpenCV.

Pillow keeps only the upper 8 bits of 16-bit colours, and does not open floating-point colours; OpenCV
does both.
"""
import io
import re
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from PIL import Image, ImageOps, TiffImagePlugin

from .pixel_values import UPPER_OF_14_BITS, ValueRangeError, to_8_bits

_GREY = ('I;16', 'I;16L', 'I;16B', 'I;16N', 'I', 'F')
_PNM = re.compile(rb'P[2356](?:\s+|#[^\n]*\n)*\d+(?:\s+|#[^\n]*\n)+\d+(?:\s+|#[^\n]*\n)+(\d+)\s')
_JPEG_2000 = b'\xff\x4f\xff\x51'
# EXIF orientation -> function that turns an array upright, as Pillow's exif_transpose does
UPRIGHT = {
    1: lambda img: img, 2: lambda img: img[:, ::-1], 3: lambda img: img[::-1, ::-1],
    4: lambda img: img[::-1], 5: lambda img: img.swapaxes(0, 1), 6: lambda img: np.rot90(img, -1),
    7: lambda img: img[::-1, ::-1].swapaxes(0, 1), 8: lambda img: np.rot90(img)}
ORIENTATION = 0x0112


class TiffHeader(NamedTuple):
    """What a TIFF file declares about its first picture.

    Args:
        width (int): Width of the upright picture in pixels.
        height (int): Height of the upright picture in pixels.
        bits (int): Bits per value, the largest of all bands.
        samples (int): Values per pixel.
        floats (bool): Whether the values are floating-point numbers.
        signed (bool): Whether the values are signed integers.
        planar (bool): Whether each band is stored by itself.
        photometric (int): Meaning of the values: 0 white is zero, 1 black is zero, 2 RGB, …
        reduced (bool): Whether the picture is a thumbnail of another one in the file.
    """

    width: int
    height: int
    bits: int
    samples: int
    floats: bool
    signed: bool
    planar: bool
    photometric: int
    reduced: bool

    @classmethod
    def of(cls, tags: Any) -> 'TiffHeader':
        """Return the header of a directory of tags."""
        bits, kinds = (tuple(np.atleast_1d(tags.get(tag, 1)).tolist()) for tag in (258, 339))
        width, height = int(tags[256]), int(tags[257])
        if tags.get(ORIENTATION) in range(5, 9):
            width, height = height, width
        return cls(width, height, max(bits), int(tags.get(277, 1)), 3 in kinds, 2 in kinds,
                   tags.get(284) == 2 and tags.get(277, 1) > 1, int(tags.get(262, 1)),
                   bool(int(tags.get(254, 0)) & 1) or 50706 in tags)

    def describe(self) -> str:
        """Return the kind of values in a few words."""
        kind = 'floating-point' if self.floats else 'signed' if self.signed else 'unsigned'
        return (f'TIFF with {self.samples} {kind} values of {self.bits} bits per pixel'
                f'{", stored in separate planes" if self.planar else ""}')


def tiff_header(file: BinaryIO) -> TiffHeader | None:
    """Return the header of a TIFF file, or None if it is another file or cannot be read."""
    try:
        file.seek(0)
        start = file.read(16)
        if start[:4] not in (b'II*\0', b'MM\0*', b'II+\0', b'MM\0+'):
            return None
        tags = TiffImagePlugin.ImageFileDirectory_v2(start if start[2] + start[3] == 43 else start[:8])
        file.seek(tags.next)
        tags.load(file)
        return TiffHeader.of(tags)
    except Exception:  # whatever is wrong with the file: it is reported as not an image
        return None


def opened_by_opencv(header: TiffHeader) -> bool:
    """Return whether OpenCV reads a TIFF file that Pillow does not open."""
    colours = (header.photometric, header.samples) in ((1, 1), (2, 3), (2, 4))
    bits = (32, 64) if header.floats else (10, 12, 14, 16, 32)
    return colours and header.bits in bits and not header.planar and not header.reduced


def decode_unopened(data: bytes, header: TiffHeader) -> np.ndarray:
    """Decode a TIFF file that Pillow does not open.

    Args:
        data (bytes): The file.
        header (TiffHeader): Its header, for which `opened_by_opencv` is true.

    Returns:
        np.ndarray: (H, W, 3) uint8, RGB, upright.

    Raises:
        ValueRangeError: If the rule for values does not cover the image.
        ValueError: If the file is damaged.
    """
    values = _opencv_values(data)
    if (values is None or values.itemsize * 8 < header.bits
            or values.shape[:2] != (header.height, header.width)):
        raise ValueError(f'truncated, damaged or compressed in another way: {header.describe()}')
    # packed values of 10, 12 and 14 bits come as the upper bits of 16
    packed = 8 < header.bits < 16
    largest = (2**header.bits - 1) << (16 - header.bits) if packed else None
    return _three_bands(to_8_bits(values, largest))


def to_rgb(image: Image.Image, data: bytes) -> np.ndarray:
    """Convert an image that Pillow has opened to 8-bit RGB, and turn it upright.

    Args:
        image (Image.Image): The image, loaded.
        data (bytes): The file.

    Returns:
        np.ndarray: (H, W, 3) uint8.

    Raises:
        ValueRangeError: If the rule for values does not cover the image.
    """
    # from the file: Pillow removes the orientation of a TIFF image when it loads it, and turns it
    header = tiff_header(io.BytesIO(data)) if image.format == 'TIFF' else None
    if header and header.reduced:
        raise ValueRangeError('a thumbnail comes first in this TIFF file, as in raw files of cameras: '
                              'convert it')
    if header and header.signed and header.bits == 8:
        raise ValueRangeError(f'signed values: {header.describe()}, convert it to 8 unsigned bits')
    bits = _declared_bits(image, data, header)
    if image.mode in _GREY:
        # Pillow has scaled values of a declared depth below 16 to 16 bits, except for those of a TIFF
        largest = None if bits >= 16 else 2**bits - 1 if header else 65535
        grey = to_8_bits(np.asarray(ImageOps.exif_transpose(image)), largest)
        return _three_bands(255 - grey if header and header.photometric == 0 else grey)
    if bits == 16 and header and header.planar:
        raise ValueRangeError(f'{header.describe()}: convert it to 8 bits')
    rgb = np.array(ImageOps.exif_transpose(image).convert('RGB'))
    # Pillow turns white into black in a JPEG 2000 image of more than 8 bits
    if image.format == 'JPEG2000' and bits > 8 or bits == 16 and rgb.max() <= UPPER_OF_14_BITS:
        values = _opencv_values(data)
        if values is None or values.itemsize != 2:
            raise ValueRangeError('16-bit colours that use 14 bits or less, in a format or compression '
                                  'of which only the upper 8 bits are read: convert it to 8 bits')
        if image.format != 'TIFF':  # OpenCV has turned a TIFF upright
            values = UPRIGHT.get(image.getexif().get(ORIENTATION, 1), UPRIGHT[1])(values)
        rgb = _three_bands(to_8_bits(values, 2**bits - 1 if bits < 16 else None))
    return rgb


def _declared_bits(image: Image.Image, data: bytes, header: TiffHeader | None) -> int:
    """Return how many bits per value a file declares, rounded up."""
    if header:
        return header.bits
    if image.format == 'PNG':
        return data[24]
    if image.format == 'PPM':
        found = _PNM.match(data)
        return int(found[1]).bit_length() if found else 8
    if image.format == 'JPEG2000':
        start = data.find(_JPEG_2000)
        return (data[start + 42] & 0x7F) + 1
    if image.format == 'SGI':
        return 8 * data[3]
    return 16 if image.mode in _GREY else 8


def _opencv_values(data: bytes) -> np.ndarray | None:
    """Return the values of an image as stored, (H, W) or (H, W, 3 or 4) RGB; None if it fails."""
    import cv2
    logging = cv2.utils.logging
    level = logging.setLogLevel(logging.LOG_LEVEL_SILENT)
    try:
        values = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error:
        return None
    finally:
        logging.setLogLevel(level)
    if values is not None and values.ndim == 3:
        values = values[..., 2::-1]
    return values


def _three_bands(values: np.ndarray) -> np.ndarray:
    if values.ndim == 2:
        values = np.broadcast_to(values[..., None], (*values.shape, 3))
    return np.ascontiguousarray(values)
