"""Decoding of image files to upright RGB pixels, with a reason for each image that cannot be used."""
import io
import struct
import warnings
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

MAX_PIXELS = 25_000_000
MAX_SIDE = 65535  # the largest value of a uint16 column of boxes
# The formats of source_base.EXTENSIONS. Pillow reads others, too, such as EPS, by starting a program.
FORMATS = ('BMP', 'GIF', 'JPEG', 'PNG', 'PPM', 'TIFF', 'WEBP')
_ORIENTATION = 0x0112
_JPEG_SEGMENT = struct.Struct('>BBH')  # 0xFF, kind, length
_JPEG_FRAME = struct.Struct('>BHHB')  # bits, height, width, components
_SIXTEEN_BITS = ('I;16', 'I;16L', 'I;16B', 'I;16N')


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


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode in _SIXTEEN_BITS or image.mode == 'I':
        values = np.asarray(image).astype(np.int64)
        if values.min() < 0 or values.max() > 65535:
            raise ImageError('grey values outside 16 bits')
        image = Image.fromarray(((values + 128) // 257).astype(np.uint8))
    elif image.mode == 'F':
        raise ImageError('floating-point pixels')
    return image.convert('RGB')


def decode_image(data: bytes, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """Decode an image, turn it upright as given by its EXIF data, and convert it to RGB.

    Grey, palette, CMYK and 16-bit images are converted, transparency is dropped, and the first frame of
    an animation is used.

    Args:
        data (bytes): The image file.
        max_pixels (int): Largest width × height that is decoded. Defaults to `MAX_PIXELS`.

    Returns:
        np.ndarray: (H, W, 3) uint8.

    Raises:
        ImageError: If the data are empty, not an image or truncated, or the image is too large.
    """
    if not data:
        raise ImageError('empty file')
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        try:
            with Image.open(io.BytesIO(data), formats=FORMATS) as image:
                check_size(image.width, image.height, max_pixels)
                image.load()
                return np.array(_to_rgb(ImageOps.exif_transpose(image)))
        except ImageError:
            raise
        except UnidentifiedImageError as error:
            raise ImageError('not an image') from error
        except Image.DecompressionBombError as error:
            raise ImageError(f'too large: more than {max_pixels} pixels') from error
        except MemoryError as error:
            raise ImageError('not enough memory') from error
        except Exception as error:
            reason = ' '.join(str(error).split()) or type(error).__name__
            raise ImageError(f'unreadable: {reason}') from error


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
                turn = image.getexif().get(_ORIENTATION)
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
            with Image.open(file, formats=FORMATS) as image:
                # for a TIFF, Pillow reports the size of the turned image
                turned = image.format != 'TIFF' and image.getexif().get(_ORIENTATION) in range(5, 9)
                width, height = image.size[::-1] if turned else image.size
    except UnidentifiedImageError as error:
        raise ImageError('not an image') from error
    except Exception as error:
        reason = ' '.join(str(error).split()) or type(error).__name__
        raise ImageError(f'unreadable: {reason}') from error
    check_size(width, height, max_pixels)
    return width, height
