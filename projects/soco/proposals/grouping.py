"""Greedy grouping of segments by similarity (Uijlings et al., IJCV 2013), compiled.

Order and rounding follow the official SoCo code: similarities are summed bin by bin, the pair of the
highest similarity is merged first, and among equal pairs the one that was inserted last.
"""
import numpy as np

from .jit import kernel

COLOUR_BINS = 25
TEXTURE_BINS = 10
DIAGONAL = 0.70711


def histogram_bins(bins: int) -> np.ndarray:
    """Return the bin into which `numpy.histogram(values, bins, (0, 255))` puts each of 0 … 255.

    Args:
        bins (int): Number of bins.

    Returns:
        np.ndarray: (256,) uint8.
    """
    edges = np.linspace(0., 255., bins + 1)
    found = np.searchsorted(edges, np.arange(256), side='right') - 1
    return np.minimum(found, bins - 1).astype(np.uint8)


COLOUR_BIN = histogram_bins(COLOUR_BINS)
TEXTURE_BIN = histogram_bins(TEXTURE_BINS)


@kernel
def _interpolate_row(image: np.ndarray, y: int, channel: int, toward: np.ndarray,
                     lines: np.ndarray) -> None:
    """Fill `lines` with a row and its values interpolated 0.70711 pixels to the left and right."""
    width = image.shape[1]
    plain = lines[0]
    if y < 0 or y >= image.shape[0]:
        lines[:] = 0.
        return
    row = image[y]
    for x in range(width):
        plain[x + 1] = row[x, channel]
    middle, before, after = plain[1:width + 1], plain[:width], plain[2:width + 2]
    left, right = lines[1], lines[2]
    for x in range(width):
        left[x] = (1 - toward[0, x]) * before[x] + toward[0, x] * middle[x]
        right[x] = (1 - toward[1, x]) * middle[x] + toward[1, x] * after[x]


@kernel
def _pattern_row(lines: np.ndarray, y: int, codes: np.ndarray) -> None:
    """Compute the local binary patterns of a row from `lines` of the row and both its neighbours."""
    width = codes.shape[0]
    up = y - DIAGONAL - (y - 1)
    down = y + DIAGONAL - y
    above, here, below = lines[(y - 1) % 3], lines[y % 3], lines[(y + 1) % 3]
    middle, before, after = here[0, 1:width + 1], here[0, :width], here[0, 2:width + 2]
    over, under = above[0, 1:width + 1], below[0, 1:width + 1]
    above_left, above_right = above[1], above[2]
    here_left, here_right = here[1], here[2]
    below_left, below_right = below[1], below[2]
    for x in range(width):
        value = middle[x]
        code = np.uint8(after[x] >= value)
        code |= np.uint8((1 - up) * above_right[x] + up * here_right[x] >= value) << 1
        code |= np.uint8(over[x] >= value) << 2
        code |= np.uint8((1 - up) * above_left[x] + up * here_left[x] >= value) << 3
        code |= np.uint8(before[x] >= value) << 4
        code |= np.uint8((1 - down) * here_left[x] + down * below_left[x] >= value) << 5
        code |= np.uint8(under[x] >= value) << 6
        code |= np.uint8((1 - down) * here_right[x] + down * below_right[x] >= value) << 7
        codes[x] = code


@kernel
def local_binary_patterns(image: np.ndarray) -> np.ndarray:
    """Compute eight-point local binary patterns of radius 1, with zeros beyond the border.

    Diagonal neighbours are interpolated in float64 at coordinates rounded to five digits, as in
    scikit-image, so the codes equal those of `local_binary_pattern(channel, 8, 1)`.

    Args:
        image (np.ndarray): (H, W, 3) uint8.

    Returns:
        np.ndarray: (3, H, W) uint8.
    """
    height, width = image.shape[0], image.shape[1]
    codes = np.empty((3, height, width), dtype=np.uint8)
    toward = np.empty((2, width))
    for x in range(width):
        toward[0, x] = x - DIAGONAL - (x - 1)
        toward[1, x] = x + DIAGONAL - x
    lines = np.zeros((3, 3, width + 2))
    for channel in range(3):
        _interpolate_row(image, -1, channel, toward, lines[2])
        _interpolate_row(image, 0, channel, toward, lines[0])
        for y in range(height):
            _interpolate_row(image, y + 1, channel, toward, lines[(y + 1) % 3])
            _pattern_row(lines, y, codes[channel, y])
    return codes


@kernel
def brightest_channel(image: np.ndarray) -> np.ndarray:
    """Return the value channel of HSV.

    Args:
        image (np.ndarray): (H, W, 3) uint8.

    Returns:
        np.ndarray: (H, W, 1) uint8.
    """
    height, width = image.shape[0], image.shape[1]
    value = np.empty((height, width, 1), dtype=np.uint8)
    for y in range(height):
        for x in range(width):
            value[y, x, 0] = max(image[y, x, 0], image[y, x, 1], image[y, x, 2])
    return value


@kernel
def describe_segments(image: np.ndarray, colours: np.ndarray, labels: np.ndarray,
                      count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Compute the extent, size and histograms of each segment.

    Args:
        image (np.ndarray): (H, W, 3) uint8, for the texture histograms.
        colours (np.ndarray): (H, W, C) uint8, for the colour histograms.
        labels (np.ndarray): (H, W) int32 in [0, count).
        count (int): Number of segments, n.

    Returns:
        tuple[np.ndarray, np.ndarray, np.ndarray]: (n, 4) int64 inclusive x1 y1 x2 y2; (n,) int64
        numbers of pixels; (n, 25·C + 30) float64 shares of the pixels per colour channel and bin, then
        per image channel and texture bin.
    """
    height, width = labels.shape
    colour_bins = COLOUR_BINS * colours.shape[2]
    extents = np.empty((count, 4), dtype=np.int64)
    extents[:, :2] = max(height, width)
    extents[:, 2:] = -1
    sizes = np.zeros(count, dtype=np.int64)
    counts = np.zeros((count, colour_bins + 3 * TEXTURE_BINS), dtype=np.int32)
    codes = local_binary_patterns(image)
    for y in range(height):
        for x in range(width):
            label = labels[y, x]
            extent = extents[label]
            extent[0] = min(extent[0], x)
            extent[1] = min(extent[1], y)
            extent[2] = max(extent[2], x)
            extent[3] = max(extent[3], y)
            sizes[label] += 1
            bins = counts[label]
            for channel in range(colours.shape[2]):
                bins[channel * COLOUR_BINS + COLOUR_BIN[colours[y, x, channel]]] += 1
            for channel in range(3):
                bins[colour_bins + channel * TEXTURE_BINS
                     + TEXTURE_BIN[codes[channel, y, x]]] += 1
    return extents, sizes, counts / sizes.reshape(count, 1)


@kernel
def nested_pairs(extents: np.ndarray) -> np.ndarray:
    """Find the pairs whose first box strictly contains a corner of the second.

    Args:
        extents (np.ndarray): (n, 4) inclusive x1 y1 x2 y2, the bounding boxes of the segments.

    Returns:
        np.ndarray: (p, 2) int32, first < second, in ascending order.
    """
    count = extents.shape[0]
    pairs = np.empty((max(16, 4 * count), 2), dtype=np.int32)
    n = 0
    for i in range(count):
        x1, y1, x2, y2 = extents[i]
        for j in range(i + 1, count):
            across = x1 < extents[j, 0] < x2 or x1 < extents[j, 2] < x2
            if across and (y1 < extents[j, 1] < y2 or y1 < extents[j, 3] < y2):
                if n == pairs.shape[0]:
                    larger = np.empty((2 * n, 2), dtype=np.int32)
                    larger[:n] = pairs
                    pairs = larger
                pairs[n, 0] = i
                pairs[n, 1] = j
                n += 1
    return pairs[:n]


@kernel
def _touching_codes(labels: np.ndarray, count: int) -> np.ndarray:
    height, width = labels.shape
    codes = np.empty(4 * labels.size, dtype=np.int64)
    n = 0
    for y in range(height):
        for x in range(width):
            here = labels[y, x]
            for down, right in ((0, 1), (1, -1), (1, 0), (1, 1)):
                if y + down < height and 0 <= x + right < width:
                    there = labels[y + down, x + right]
                    if there != here:
                        codes[n] = np.int64(min(here, there)) * count + max(here, there)
                        n += 1
    return codes[:n]


def touching_pairs(labels: np.ndarray, count: int) -> np.ndarray:
    """Find the pairs of segments whose pixels touch at a side or a corner.

    Args:
        labels (np.ndarray): (H, W) int32 in [0, count).
        count (int): Number of segments.

    Returns:
        np.ndarray: (p, 2) int32, first < second, in ascending order, each once.
    """
    codes = np.unique(_touching_codes(labels, count))
    return np.stack([codes // count, codes % count], axis=1).astype(np.int32)


@kernel
def _similarity(i: int, j: int, extents: np.ndarray, sizes: np.ndarray, shares: np.ndarray,
                colour_bins: int, colour_start: float, pixels: int) -> float:
    colour = colour_start
    for k in range(colour_bins):
        colour += min(shares[i, k], shares[j, k])
    texture = 0.
    for k in range(colour_bins, shares.shape[1]):
        texture += min(shares[i, k], shares[j, k])
    together = sizes[i] + sizes[j]
    box = ((max(extents[i, 2], extents[j, 2]) - min(extents[i, 0], extents[j, 0]))
           * (max(extents[i, 3], extents[j, 3]) - min(extents[i, 1], extents[j, 1])))
    return colour + texture + (1. - together / pixels) + (1. - (box - together) / pixels)


@kernel
def _join(i: int, j: int, new: int, extents: np.ndarray, sizes: np.ndarray,
          shares: np.ndarray) -> None:
    extents[new, :2] = np.minimum(extents[i, :2], extents[j, :2])
    extents[new, 2:] = np.maximum(extents[i, 2:], extents[j, 2:])
    sizes[new] = sizes[i] + sizes[j]
    for k in range(shares.shape[1]):
        shares[new, k] = (shares[i, k] * sizes[i] + shares[j, k] * sizes[j]) / sizes[new]


@kernel
def group(extents: np.ndarray, sizes: np.ndarray, shares: np.ndarray, pairs: np.ndarray,
          colour_bins: int, colour_start: float, pixels: int) -> np.ndarray:
    """Merge the most similar pair of neighbours until no pair is left.

    Args:
        extents (np.ndarray): (n, 4) int64 inclusive x1 y1 x2 y2.
        sizes (np.ndarray): (n,) int64 numbers of pixels.
        shares (np.ndarray): (n, bins) float64, colour bins first, then texture bins.
        pairs (np.ndarray): (p, 2) int32 neighbours.
        colour_bins (int): Number of colour bins.
        colour_start (float): Similarity common to all pairs, added before the colour bins.
        pixels (int): Number of pixels of the image.

    Returns:
        np.ndarray: (m, 4) int64 extents of all regions in the order formed, the n segments first.
    """
    count = extents.shape[0]
    capacity = max(1, 2 * count - 1)
    all_extents = np.empty((capacity, 4), dtype=np.int64)
    all_sizes = np.empty(capacity, dtype=np.int64)
    all_shares = np.empty((capacity, shares.shape[1]))
    all_extents[:count], all_sizes[:count], all_shares[:count] = extents, sizes, shares
    alive = pairs.shape[0]
    pairs = pairs.copy()
    similarities = np.empty(alive)
    for p in range(alive):
        similarities[p] = _similarity(pairs[p, 0], pairs[p, 1], all_extents, all_sizes,
                                      all_shares, colour_bins, colour_start, pixels)
    seen = np.full(capacity, -1, dtype=np.int64)
    partners = np.empty(capacity, dtype=np.int64)
    while alive > 0:
        best = 0
        for p in range(1, alive):
            if similarities[p] >= similarities[best]:
                best = p
        i, j = pairs[best, 0], pairs[best, 1]
        _join(i, j, count, all_extents, all_sizes, all_shares)
        seen[i] = seen[j] = count
        kept = found = 0
        for p in range(alive):
            a, b = pairs[p, 0], pairs[p, 1]
            if a != i and a != j and b != i and b != j:
                pairs[kept, 0], pairs[kept, 1] = a, b
                similarities[kept] = similarities[p]
                kept += 1
                continue
            partner = b if a == i or a == j else a
            if seen[partner] != count:
                seen[partner] = count
                partners[found] = partner
                found += 1
        for k in range(found):
            pairs[kept + k, 0], pairs[kept + k, 1] = count, partners[k]
            similarities[kept + k] = _similarity(count, partners[k], all_extents, all_sizes,
                                                 all_shares, colour_bins, colour_start, pixels)
        alive = kept + found
        count += 1
    return all_extents[:count]
