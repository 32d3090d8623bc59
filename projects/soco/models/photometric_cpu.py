"""Compiled CPU kernels of `photometric.augment`, which process one image at a time in the cache.

They are three times as fast as torch's operations, each of which reads and writes all images.
Shapes: an image is (3, H, W), RGB, float32 in [0, 1], and is changed in place.
"""
import numpy as np

from ..proposals.jit import kernel


@kernel
def blend(image: np.ndarray, own: np.float32, grey: np.float32, mean: np.float32) -> None:
    """Blend one image, see `photometric.blend`."""
    _, height, width = image.shape
    zero, one = np.float32(0), np.float32(1)
    if mean != 0:
        columns = np.zeros(width, dtype=np.float32)
        for y in range(height):
            for x in range(width):
                columns[x] += (np.float32(0.299) * image[0, y, x] + np.float32(0.587) * image[1, y, x]
                               + np.float32(0.114) * image[2, y, x])
        mean = np.float32(mean * columns.sum() / (height * width))
    for y in range(height):
        for x in range(width):
            r, g, b = image[0, y, x], image[1, y, x], image[2, y, x]
            luma = np.float32(0.299) * r + np.float32(0.587) * g + np.float32(0.114) * b
            added = grey * luma + mean
            image[0, y, x] = min(max(own * r + added, zero), one)
            image[1, y, x] = min(max(own * g + added, zero), one)
            image[2, y, x] = min(max(own * b + added, zero), one)


@kernel
def turn_hue(image: np.ndarray, shift: np.float32) -> None:
    """Shift the hue of one image by turns, see `photometric.adjust_hue`."""
    zero, one, two, six = np.float32(0), np.float32(1), np.float32(2), np.float32(6)
    for y in range(image.shape[1]):
        for x in range(image.shape[2]):
            r, g, b = image[0, y, x], image[1, y, x], image[2, y, x]
            value, low = max(max(r, g), b), min(min(r, g), b)
            chroma = value - low
            ahead = r - g + np.float32(4) * chroma
            ahead = b - r + two * chroma if value == g else ahead
            ahead = g - b if value == r else ahead
            hue = ahead / max(chroma, np.float32(1e-8)) + six * shift
            hue -= six * np.floor(hue * (one / six))
            image[0, y, x] = low + chroma * min(max(abs(hue - np.float32(3)) - one, zero), one)
            image[1, y, x] = value - chroma * min(max(abs(hue - two) - one, zero), one)
            image[2, y, x] = value - chroma * min(max(abs(hue - np.float32(4)) - one, zero), one)


@kernel
def blur(image: np.ndarray, taps: np.ndarray) -> None:
    """Filter rows, then columns, with taps (2 r + 1,); borders are replicated."""
    channels, height, width = image.shape
    r = len(taps) // 2
    padded = np.empty(width + 2 * r, dtype=np.float32)
    rows = np.empty((height, width), dtype=np.float32)
    for c in range(channels):
        plane = image[c]
        for y in range(height):
            padded[:r] = plane[y, 0]
            padded[r:r + width] = plane[y]
            padded[r + width:] = plane[y, width - 1]
            row = rows[y]
            row[:] = 0
            for i in range(len(taps)):
                for x in range(width):
                    row[x] += taps[i] * padded[x + i]
        for y in range(height):
            out = plane[y]
            out[:] = 0
            for i in range(len(taps)):
                row = rows[min(max(y + i - r, 0), height - 1)]
                for x in range(width):
                    out[x] += taps[i] * row[x]


@kernel
def paint(pixels: np.ndarray, image: np.ndarray, weights: np.ndarray, shift: np.float32,
          taps: np.ndarray, solarize: bool, mean: np.ndarray, scale: np.ndarray) -> None:
    """Convert the pixels of one view to an augmented and normalised image.

    Args:
        pixels (np.ndarray): (3, H, W) uint8, RGB.
        image (np.ndarray): (3, H, W) float32; receives the result.
        weights (np.ndarray): (7, 3) float32, see `photometric.Plan`.
        shift (np.float32): Hue shift in turns.
        taps (np.ndarray): Blur kernel, (2 r + 1,) float32; empty for no blur.
        solarize (bool): Whether to invert the values of at least 128 / 255.
        mean (np.ndarray): (3,) float32, for `(image - mean) * scale` at the end.
        scale (np.ndarray): (3,) float32, see `mean`.
    """
    channels, height, width = image.shape
    one = np.float32(1)
    for c in range(channels):
        for y in range(height):
            for x in range(width):
                image[c, y, x] = np.float32(pixels[c, y, x]) * np.float32(1 / 255)
    for place in range(len(weights)):
        if place == 3 and shift != 0:
            turn_hue(image, shift)
        own, grey, average = weights[place]
        if own != 1 or grey != 0 or average != 0:
            blend(image, own, grey, average)
    if len(taps):
        blur(image, taps)
    for c in range(channels):
        for y in range(height):
            for x in range(width):
                value = image[c, y, x]
                if solarize:
                    value = one - value if value >= np.float32(128 / 255) else value
                image[c, y, x] = (value - mean[c]) * scale[c]
