"""From the bytes of an image file to upright RGB pixels, or the reason why not."""
import io
import warnings
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

MAX_PIXELS = 25_000_000
_SIXTEEN_BITS = ('I;16', 'I;16L', 'I;16B', 'I;16N')


class ImageError(ValueError):
    """An image that cannot be used; the message is the reason, in a few words."""


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
    """Decode an image, turn it upright as its EXIF data say, and convert it to RGB.

    Grey, palette, CMYK and 16-bit images are converted, transparency is dropped, of an animation
    the first picture is taken.

    Args:
        data (bytes): The image file.
        max_pixels (int): Largest width × height that is decoded.

    Returns:
        np.ndarray: (H, W, 3) uint8.

    Raises:
        ImageError: If the data are empty, no image, truncated, or the image is too large.
    """
    if not data:
        raise ImageError('empty file')
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        try:
            with Image.open(io.BytesIO(data)) as image:
                if image.width * image.height > max_pixels:
                    raise ImageError(f'too large: {image.width}x{image.height} pixels, '
                                     f'more than {max_pixels}')
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


def image_size(file: BinaryIO, max_pixels: int = MAX_PIXELS) -> tuple[int, int]:
    """Width and height of an image once it is upright, from its header.

    Args:
        file (BinaryIO): The image file, at its beginning.
        max_pixels (int): Largest width × height that is taken.

    Returns:
        tuple[int, int]: Width and height in pixels.

    Raises:
        ImageError: If the file is empty, no image, or the image is too large.
    """
    if not file.read(1):
        raise ImageError('empty file')
    file.seek(0)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            with Image.open(file) as image:
                turned = image.getexif().get(0x0112, 1) >= 5
                width, height = image.size[::-1] if turned else image.size
    except UnidentifiedImageError as error:
        raise ImageError('not an image') from error
    except Exception as error:
        reason = ' '.join(str(error).split()) or type(error).__name__
        raise ImageError(f'unreadable: {reason}') from error
    if width * height > max_pixels:
        raise ImageError(f'too large: {width}x{height} pixels, more than {max_pixels}')
    return width, height
