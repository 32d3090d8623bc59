"""The rule by which values of more than 8 bits become 8 bits, and a check of the result.

The rule looks at one image only and depends on nothing else, so that the generator, training and
evaluation see the same pixels.
"""
import numpy as np

DEPTHS = (8, 10, 12, 14, 16)
# In the metadata of a store. Change the name together with the rule.
DECODING = dict(
    name='depth of the largest value',
    integers='divided by the largest value of the declared depth; if 16 bits are declared, of the '
             'smallest depth of 8, 10, 12, 14 and 16 bits that holds the largest value of the image, '
             'which lossy compression may have raised by 1/32',
    floats='values up to 1 are multiplied by 255; values from 16 are treated as integers; others are '
           'refused',
    transparency='dropped', orientation='EXIF', frames='the first', colour_profiles='not applied')
# If the upper 8 bits of the largest value exceed this, rounded or not, the image is one of 16 bits
UPPER_OF_14_BITS = 66
EARLIER = dict(name='16-bit grey divided by 257')  # of stores whose metadata have no `decoding`
SLACK = 0.5  # by which resampling may exceed 1 in a floating-point image with values from 0 to 1
AMBIGUOUS = 16
DARK = 24
FLAT = 8


class ValueRangeError(ValueError):
    """Raised for values that the rule does not cover."""


def to_8_bits(values: np.ndarray, largest: int | None = None) -> np.ndarray:
    """Scale values to 8 bits by the rule of `DECODING`.

    Args:
        values (np.ndarray): Integers or floating-point numbers, any shape.
        largest (int, optional): The value that means white, where the file declares it. Defaults to
            None: the largest value of the smallest depth that holds all values.

    Returns:
        np.ndarray: uint8 of the same shape.

    Raises:
        ValueRangeError: If a value is negative, too large, or not finite, or if the range is
            ambiguous.
    """
    low, high = values.min(), values.max()
    if values.dtype.kind == 'f':
        return _floats_to_8_bits(values, float(low), float(high))
    if low < 0 or high > 65535:
        raise ValueRangeError(f'values from {low} to {high}, outside 16 bits: convert it to 8 or 16 '
                              f'bits')
    white = largest or _white(int(high))
    table = (np.arange(max(white, int(high)) + 1) * 255 + white // 2) // white
    return np.minimum(table, 255).astype(np.uint8)[values]


def _white(high: float) -> int:
    """Return the largest value of the smallest depth that holds a value, or nearly."""
    whites = [2**bits - 1 for bits in DEPTHS]
    return next((white for white in whites if high <= white * 33 / 32), whites[-1])


def _floats_to_8_bits(values: np.ndarray, low: float, high: float) -> np.ndarray:
    shown = f'floating-point values from {low:g} to {high:g}'
    if not np.isfinite((low, high)).all():
        raise ValueRangeError('floating-point values that are not finite')
    if high <= 1 + SLACK:
        white, slack = 1.0, SLACK
    elif high >= AMBIGUOUS and high < 65535.5:
        white = float(_white(high))
        slack = white / 16
    else:
        raise ValueRangeError(f'{shown}: neither 0 to 1 nor 0 to 255, convert it to 8 or 16 bits')
    if low < -slack:
        raise ValueRangeError(f'{shown}: negative values are not a photo, convert it to 8 or 16 bits')
    return np.clip(values * (255 / white) + 0.5, 0, 255).astype(np.uint8)


def range_remark(pixels: np.ndarray) -> str:
    """Return what is suspicious about the range of an image's values; '' if nothing is.

    Args:
        pixels (np.ndarray): (H, W, 3) uint8.

    Returns:
        str: A few words, the same for all such images.
    """
    step = max(1, min(pixels.shape[:2]) // 64)
    low, high = np.percentile(pixels[::step, ::step], (0.5, 99.5))
    if high < DARK:
        return f'nearly black: 99 % of the values are below {DARK} of 255'
    if high - low < FLAT:
        return f'nearly uniform: 99 % of the values are within {FLAT} of 255'
    return ''
