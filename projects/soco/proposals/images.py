"""Decoding of image files to upright RGB pixels, with a reason for each image that cannot be used."""
import io
import struct
import warnings
from typing import BinaryIO

import numpy as np
from PIL import Image, UnidentifiedImageError

from .deep_images import (
    ORIENTATION,
    decode_unopened,
    opened_by_opencv,
    tiff_header,
    to_rgb,
)
from .photo_files import describe_content, photo_formats
from .pixel_values import ValueRangeError

MAX_PIXELS = 25_000_000
MAX_SIDE = 65535  # the largest value of a uint16 column of boxes
_JPEG_SEGMENT = struct.Struct('>BBH')  # 0xFF, kind, length
_JPEG_FRAME = struct.Struct('>BHHB')  # bits, height, width, components


class ImageError(ValueError):
    """Raised for an image that cannot be used.

    Args:
        reason (str): The reason, in a few words.
        image (str): Name of the image, if it is known. Defaults to ''.
    """

    def __init__(self, reason: str, image: str = '') -> None:
        super().__init__(reason, image)
        self.reason = reason
        self.image = image

    def __str__(self) -> str:
        return f'{self.image}: {self.reason}' if self.image else self.reason


def check_size(width: int, height: int, max_pixels: int) -> None:
    """Check that an image is not too large.

    Args:
        width (int): Width in pixels.
        height (int): Height in pixels.
        max_pixels (int): Largest width × height.

    Raises:
        ImageError: If the image has more pixels, or a side of more than `MAX_SIDE` pixels.
    """
    if width * height > max_pixels:
        raise ImageError(f'too large: {width}x{height} pixels, more than {max_pixels}')
    if max(width, height) > MAX_SIDE:
        raise ImageError(f'too large: {width}x{height} pixels, a side of more than {MAX_SIDE}')


def decode_image(data: bytes, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """Decode an image, turn it upright as given by its EXIF data, and convert it to RGB.

    Grey, palette and CMYK images are converted, transparency is dropped, and the first frame of an
    animation is used. `pixel_values.DECODING` says how values of more than 8 bits are scaled.

    Args:
        data (bytes): The image file.
        max_pixels (int): Largest width × height that is decoded. Defaults to `MAX_PIXELS`.

    Returns:
        np.ndarray: (H, W, 3) uint8.

    Raises:
        ImageError: If the data are empty, not an image or truncated, the image is too large, or the
            range of its values is not that of a photo.
    """
    if not data:
        raise ImageError('empty file')
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        try:
            with Image.open(io.BytesIO(data), formats=photo_formats()) as image:
                check_size(image.width, image.height, max_pixels)
                image.load()
                return to_rgb(image, data)
        except UnidentifiedImageError:
            return _decode_unopened(data, max_pixels)
        except ImageError:
            raise
        except Exception as error:
            raise _reason(error, max_pixels) from error


def _decode_unopened(data: bytes, max_pixels: int) -> np.ndarray:
    """Decode what Pillow does not open, or raise an error that says what the file is."""
    header = tiff_header(io.BytesIO(data))
    if header is None:
        raise ImageError(describe_content(data))
    if not opened_by_opencv(header):
        raise ImageError(f'not an image that is read: {header.describe()}')
    check_size(header.width, header.height, max_pixels)
    try:
        return decode_unopened(data, header)
    except Exception as error:
        raise _reason(error, max_pixels) from error


def _reason(error: Exception, max_pixels: int) -> ImageError:
    """Return the error for a user that stands for an error of a decoder."""
    if isinstance(error, Image.DecompressionBombError):
        return ImageError(f'too large: more than {max_pixels} pixels')
    if isinstance(error, MemoryError):
        return ImageError('not enough memory')
    text = ' '.join(str(error).split()) or type(error).__name__
    return ImageError(text if isinstance(error, ValueRangeError) else f'unreadable: {text}')


def plain_jpeg(data: bytes) -> tuple[int, int, int] | None:
    """Check whether an image file is a JPEG that any decoder decodes as `decode_image` does.

    Args:
        data (bytes): An image file.

    Returns:
        tuple[int, int, int] | None: For a complete JPEG of grey or RGB pixels: width and height as
        stored, before it is turned, and its EXIF orientation, 1 to 8. None for any other file.
    """
    if not (data.startswith(b'\xff\xd8') and data.endswith(b'\xff\xd9')):
        return None
    position, tagged = 2, False
    try:  # reading the header with Pillow would make a sample a few per cent slower
        while True:
            mark, kind, length = _JPEG_SEGMENT.unpack_from(data, position)
            if mark != 0xFF or kind == 0xE2 and data[position + 4:position + 8] == b'MPF\0':
                return None
            if kind in (0xC0, 0xC1, 0xC2):
                break
            tagged = tagged or kind == 0xE1  # EXIF or XMP
            position += 2 + length
        bits, height, width, components = _JPEG_FRAME.unpack_from(data, position + 4)
    except struct.error:
        return None
    if bits != 8 or components not in (1, 3):
        return None
    turn = _orientation(data) if tagged else 1
    return None if turn is None else (width, height, turn)


def _orientation(data: bytes) -> int | None:
    """Return the EXIF orientation of a JPEG, 1 to 8, or None if it cannot be read."""
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        try:
            with Image.open(io.BytesIO(data), formats=('JPEG', )) as image:
                turn = image.getexif().get(ORIENTATION)
                return turn if turn in range(1, 9) else 1
        except Exception:  # decode_image reports the error
            return None


def image_size(file: BinaryIO, max_pixels: int = MAX_PIXELS) -> tuple[int, int]:
    """Return the width and height of the upright image, from the header of its file.

    Args:
        file (BinaryIO): The image file, at its beginning.
        max_pixels (int): Largest width × height that is accepted. Defaults to `MAX_PIXELS`.

    Returns:
        tuple[int, int]: Width and height in pixels.

    Raises:
        ImageError: If the file is empty or not an image, or the image is too large.
    """
    if not file.read(1):
        raise ImageError('empty file')
    file.seek(0)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            with Image.open(file, formats=photo_formats()) as image:
                # for a TIFF, Pillow reports the size of the turned image
                turned = image.format != 'TIFF' and image.getexif().get(ORIENTATION) in range(5, 9)
                width, height = image.size[::-1] if turned else image.size
    except UnidentifiedImageError as error:
        header = tiff_header(file)
        if header is None:
            file.seek(0)
            raise ImageError(describe_content(file.read(4096))) from error
        if not opened_by_opencv(header):
            raise ImageError(f'not an image that is read: {header.describe()}') from error
        width, height = header.width, header.height
    except Exception as error:
        raise _reason(error, max_pixels) from error
    check_size(width, height, max_pixels)
    return width, height
