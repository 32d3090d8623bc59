"""Decoding of photos to the pixels that their proposals were made for."""

import cv2
import numpy as np

from ..proposals.deep_images import UPRIGHT
from ..proposals.images import MAX_PIXELS, ImageError, check_size, decode_image, plain_jpeg

# cv2's flags for libjpeg's scaled decoding, coarsest first
REDUCED = ((8, cv2.IMREAD_REDUCED_COLOR_8), (4, cv2.IMREAD_REDUCED_COLOR_4),
           (2, cv2.IMREAD_REDUCED_COLOR_2), (1, cv2.IMREAD_COLOR))


def decode_photo(content: bytes, size: tuple[int, int], max_pixels: int = MAX_PIXELS,
                 scaled_side: int | None = None) -> tuple[np.ndarray, int]:
    """Decode a photo as the generator of its proposals did.

    OpenCV decodes ordinary JPEGs, in about a third of the time; the generator's decoder decodes all
    other files.

    Args:
        content (bytes): Content of the file.
        size (tuple[int, int]): Width and height of the upright photo that the proposals were made for.
        max_pixels (int): Largest width x height that is decoded. Defaults to `MAX_PIXELS`.
        scaled_side (int, optional): Decode a JPEG at a fraction of its size, as long as the short side
            keeps this many pixels. Defaults to None: never.

    Returns:
        tuple[np.ndarray, int]: The photo, (H, W, 3) uint8, BGR, upright; and the factor by which its
        size was divided: 1, 2, 4 or 8.

    Raises:
        ImageError: If the photo cannot be decoded, is too large or has another size; the message is
            the reason.
    """
    header = plain_jpeg(content)
    if header is not None:
        width, height, turn = header
        check_size(width, height, max_pixels)
        _check_same((height, width) if turn >= 5 else (width, height), size)
        most = max(1, min(size) // scaled_side) if scaled_side else 1
        reduction, flag = next(pair for pair in REDUCED if pair[0] <= most)
        try:
            img = cv2.imdecode(np.frombuffer(content, dtype=np.uint8),
                               flag | cv2.IMREAD_IGNORE_ORIENTATION)
        except cv2.error:
            img = None
        if img is not None and img.shape[:2] == (-(-height // reduction), -(-width // reduction)):
            return np.ascontiguousarray(UPRIGHT[turn](img)), reduction
    img = decode_image(content, max_pixels)
    _check_same((img.shape[1], img.shape[0]), size)
    return np.ascontiguousarray(img[..., ::-1]), 1


def _check_same(found: tuple[int, int], wanted: tuple[int, int]) -> None:
    if found != tuple(wanted):
        raise ImageError(f'it measures {found[0]}x{found[1]} pixels, its proposals were made for '
                         f'{wanted[0]}x{wanted[1]}: it was changed, or is another photo')
