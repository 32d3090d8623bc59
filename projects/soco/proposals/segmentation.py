"""Graph segmentation of an RGB image (Felzenszwalb and Huttenlocher, IJCV 2004), compiled.

The result is that of ``skimage.segmentation.felzenszwalb``, label for label: blur, costs and
thresholds are rounded where scikit-image rounds them, and edges of equal cost are taken in the
order right, down, down-right, up-right, then by pixel.
"""
import numpy as np

from .jit import kernel

PIXEL_BITS = 30
PIXEL_MASK = (1 << PIXEL_BITS) - 1


def gaussian_weights(sigma: float) -> np.ndarray:
    """Half of a normalised Gaussian kernel, cut at four standard deviations.

    Args:
        sigma (float): Standard deviation in pixels, >= 0.

    Returns:
        np.ndarray: (radius + 1,) float64, the centre first.
    """
    radius = int(4 * sigma + 0.5)
    offsets = np.arange(-radius, radius + 1)
    weights = np.exp(-0.5 / max(sigma * sigma, 1e-30) * offsets**2)
    weights /= weights.sum()
    return np.ascontiguousarray(weights[radius:])


@kernel
def _reflect(index: int, size: int) -> int:
    index = index % (2 * size)
    return index if index < size else 2 * size - 1 - index


@kernel
def _load_row(image: np.ndarray, y: int, planes: np.ndarray) -> None:
    scale = 1. / 255.
    row = image[y]
    for channel in range(3):
        plane = planes[channel]
        for x in range(row.shape[0]):
            plane[x] = row[x, channel] * scale


@kernel
def blur(image: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Blur an image, first down its columns, then along its rows.

    Each sum starts with the centre and takes symmetric pairs from the outside in, as SciPy does.

    Args:
        image (np.ndarray): (H, W, 3) uint8.
        weights (np.ndarray): (radius + 1,) float64 from :func:`gaussian_weights`.

    Returns:
        np.ndarray: (H, 3, W) float64 in [0, 1].
    """
    height, width = image.shape[0], image.shape[1]
    radius = weights.shape[0] - 1
    ring_size = 2 * radius + 1
    ring = np.empty((ring_size, 3, width))
    padded = np.empty(width + 2 * radius)
    out = np.empty((height, 3, width))
    for y in range(min(radius, height)):
        _load_row(image, y, ring[y])
    for y in range(height):
        if y + radius < height:
            _load_row(image, y + radius, ring[(y + radius) % ring_size])
        for channel in range(3):
            middle = padded[radius:radius + width]
            centre = ring[y % ring_size, channel]
            for x in range(width):
                middle[x] = centre[x] * weights[0]
            for k in range(radius, 0, -1):
                above = ring[_reflect(y - k, height) % ring_size, channel]
                below = ring[_reflect(y + k, height) % ring_size, channel]
                weight = weights[k]
                for x in range(width):
                    middle[x] += (above[x] + below[x]) * weight
            for k in range(1, radius + 1):
                padded[radius - k] = middle[_reflect(-k, width)]
                padded[radius + width - 1 + k] = middle[_reflect(width - 1 + k, width)]
            line = out[y, channel]
            for x in range(width):
                line[x] = middle[x] * weights[0]
            for k in range(radius, 0, -1):
                left = padded[radius - k:radius - k + width]
                right = padded[radius + k:radius + k + width]
                weight = weights[k]
                for x in range(width):
                    line[x] += (left[x] + right[x]) * weight
    return out


@kernel
def _cost_row(first: np.ndarray, second: np.ndarray, keys: np.ndarray) -> None:
    for x in range(keys.shape[0]):
        red = first[0, x] - second[0, x]
        green = first[1, x] - second[1, x]
        blue = first[2, x] - second[2, x]
        keys[x] = np.sqrt(red * red + green * green + blue * blue)


@kernel
def edge_costs(blurred: np.ndarray) -> np.ndarray:
    """Colour distances along the edges right, down, down-right and up-right of each pixel.

    Args:
        blurred (np.ndarray): (H, 3, W) float64.

    Returns:
        np.ndarray: (4, H, W) float32. What lies beyond the border holds 0.
    """
    height, width = blurred.shape[0], blurred.shape[2]
    costs = np.zeros((4, height, width), dtype=np.float32)
    for y in range(height):
        row = blurred[y]
        _cost_row(row[:, 1:], row[:, :width - 1], costs[0, y, :width - 1])
        if y + 1 < height:
            below = blurred[y + 1]
            _cost_row(below, row, costs[1, y])
            _cost_row(below[:, 1:], row[:, :width - 1], costs[2, y, :width - 1])
            _cost_row(below[:, :width - 1], row[:, 1:], costs[3, y, :width - 1])
    return costs


@kernel
def _ends(key: int, width: int) -> tuple[int, int]:
    code = np.int64(key & np.uint64(0xffffffff))
    pixel = code & PIXEL_MASK
    direction = code >> PIXEL_BITS
    if direction == 0:
        return pixel, pixel + 1
    if direction == 1:
        return pixel, pixel + width
    if direction == 2:
        return pixel, pixel + width + 1
    return pixel + 1, pixel + width


@kernel
def _exact_cost(key: int, blurred: np.ndarray) -> float:
    width = blurred.shape[2]
    first, second = _ends(key, width)
    a = blurred[first // width, :, first % width]
    b = blurred[second // width, :, second % width]
    red, green, blue = a[0] - b[0], a[1] - b[1], a[2] - b[2]
    return np.sqrt(red * red + green * green + blue * blue)


@kernel
def _edge_keys(costs: np.ndarray) -> np.ndarray:
    height, width = costs.shape[1], costs.shape[2]
    bits = costs.view(np.uint32)
    keys = np.empty(4 * height * width, dtype=np.uint64)
    n = 0
    for direction in range(4):
        rows = height if direction == 0 else height - 1
        columns = width if direction == 1 else width - 1
        for y in range(rows):
            start = (direction << PIXEL_BITS) + y * width
            for x in range(columns):
                keys[n] = (np.uint64(bits[direction, y, x]) << np.uint64(32)) | np.uint64(start + x)
                n += 1
    return keys[:n]


@kernel
def sort_by_cost(keys: np.ndarray) -> np.ndarray:
    """Radix sort by the upper 32 bits; keys whose upper halves are equal keep their order."""
    other = np.empty_like(keys)
    counts = np.zeros((3, 2048), dtype=np.int64)
    for key in keys:
        high = key >> np.uint64(32)
        counts[0, high & np.uint64(2047)] += 1
        counts[1, (high >> np.uint64(11)) & np.uint64(2047)] += 1
        counts[2, high >> np.uint64(22)] += 1
    for digit in range(3):
        shift = np.uint64(32 + 11 * digit)
        total = 0
        for bucket in range(2048):
            count = counts[digit, bucket]
            counts[digit, bucket] = total
            total += count
        for key in keys:
            bucket = (key >> shift) & np.uint64(2047)
            other[counts[digit, bucket]] = key
            counts[digit, bucket] += 1
        keys, other = other, keys
    return keys


@kernel
def refine_order(keys: np.ndarray, blurred: np.ndarray) -> None:
    """Bring edges whose costs agree in float32 into the order of their float64 costs."""
    n = keys.shape[0]
    start = 0
    while start < n:
        stop = start + 1
        while stop < n and keys[stop] >> np.uint64(32) == keys[start] >> np.uint64(32):
            stop += 1
        if stop - start > 1 and keys[start] >> np.uint64(32) > 0:
            run = keys[start:stop].copy()
            exact = np.empty(stop - start)
            for i in range(stop - start):
                exact[i] = _exact_cost(run[i], blurred)
            order = np.argsort(exact, kind='mergesort')
            for i in range(stop - start):
                keys[start + i] = run[order[i]]
        start = stop


@kernel
def _find(parents: np.ndarray, node: int) -> int:
    while parents[node] >= 0:
        above = parents[node]
        if parents[above] >= 0:
            parents[node] = parents[above]
        node = above
    return node


@kernel
def merge_edges(keys: np.ndarray, blurred: np.ndarray, scale: float,
                min_size: int) -> np.ndarray:
    """Join pixels along edges of rising cost, then join the components below ``min_size``.

    Args:
        keys (np.ndarray): (E,) uint64 edges in order.
        blurred (np.ndarray): (H, 3, W) float64.
        scale (float): Scale of observation, already divided by 255.
        min_size (int): Smallest component in pixels.

    Returns:
        np.ndarray: (H*W,) int32 forest: a root holds minus its size, others their parent.
    """
    width = blurred.shape[2]
    pixels = blurred.shape[0] * width
    parents = np.full(pixels, -1, dtype=np.int32)
    limits = np.full(pixels, np.float32(scale), dtype=np.float32)
    rejected = np.empty_like(keys)
    n = 0
    for key in keys:
        u, v = _ends(key, width)
        u, v = _find(parents, u), _find(parents, v)
        if u == v:
            continue
        cost = _exact_cost(key, blurred)
        if cost < min(limits[u], limits[v]):
            if parents[u] > parents[v]:
                u, v = v, u
            parents[u] += parents[v]
            parents[v] = u
            limits[u] = np.float32(cost + scale / -parents[u])
        elif parents[u] > -min_size or parents[v] > -min_size:
            rejected[n] = key
            n += 1
    for key in rejected[:n]:
        u, v = _ends(key, width)
        u, v = _find(parents, u), _find(parents, v)
        if u != v and (parents[u] > -min_size or parents[v] > -min_size):
            if parents[u] > parents[v]:
                u, v = v, u
            parents[u] += parents[v]
            parents[v] = u
    return parents


@kernel
def number_labels(parents: np.ndarray, height: int, width: int) -> tuple[np.ndarray, int]:
    """Number the components by their first pixel in raster order."""
    numbers = np.full(parents.shape[0], -1, dtype=np.int32)
    labels = np.empty(parents.shape[0], dtype=np.int32)
    count = 0
    for pixel in range(parents.shape[0]):
        root = _find(parents, pixel)
        if numbers[root] < 0:
            numbers[root] = count
            count += 1
        labels[pixel] = numbers[root]
    return labels.reshape(height, width), count


@kernel
def segment(image: np.ndarray, weights: np.ndarray, scale: float,
            min_size: int) -> tuple[np.ndarray, int]:
    """Segment an RGB image into components of similar colour.

    Args:
        image (np.ndarray): (H, W, 3) uint8.
        weights (np.ndarray): Half Gaussian kernel from :func:`gaussian_weights`.
        scale (float): Scale of observation; larger gives larger components.
        min_size (int): Smallest component in pixels.

    Returns:
        tuple[np.ndarray, int]: (H, W) int32 labels from 0, numbered by first appearance in raster
        order, and how many there are.
    """
    blurred = blur(image, weights)
    keys = sort_by_cost(_edge_keys(edge_costs(blurred)))
    refine_order(keys, blurred)
    parents = merge_edges(keys, blurred, scale / 255., min_size)
    return number_labels(parents, image.shape[0], image.shape[1])
