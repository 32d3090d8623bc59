"""Union-find of the graph segmentation: edges are processed by cost, components are trees, compiled.

An edge is a uint64 key: the bits of its cost in float32, then its direction (2 bits), then its
first pixel (30 bits). Keys therefore sort by cost first. Edges of equal float32 cost are sorted by
their float64 costs, which are recomputed from the blurred image; edges of equal float64 cost stay in
the order direction, pixel.

Most edges are already inside a component when they are reached. The edges are therefore processed in
a few levels of increasing cost: before each level, the edges inside a component are dropped without
being sorted.
"""
import numpy as np

from .jit import kernel

LEVELS = (0.3, 0.55, 1.)
SAFE = np.float64(1e-6)
DIGIT_BITS = 11
SHORT_RUN = 64
PIXEL_BITS = 30
PIXEL_MASK = (1 << PIXEL_BITS) - 1
NO_EDGE = np.uint32(0xffffffff)
COST_SHIFT = np.uint64(32)
CODE_MASK = np.uint64(0xffffffff)


@kernel
def _ends(key: int, width: int) -> tuple[int, int]:
    code = np.int64(key & CODE_MASK)
    direction = code >> PIXEL_BITS
    pixel = code & PIXEL_MASK
    below = (direction > 0) * width
    return pixel + (direction == 3), pixel + below + (direction == 0) + (direction == 2)


@kernel
def _exact_cost(key: int, pixels: np.ndarray, width: int) -> float:
    first, second = _ends(key, width)
    red = pixels[0, first] - pixels[0, second]
    green = pixels[1, first] - pixels[1, second]
    blue = pixels[2, first] - pixels[2, second]
    return np.sqrt(red * red + green * green + blue * blue)


@kernel
def _level_bounds(bits: np.ndarray) -> np.ndarray:
    """Return costs, as float32 bits, that split the edges into levels; uses a sample of the edges."""
    counts = np.zeros(1 << 16, dtype=np.int64)
    total = 0
    for direction in range(4):
        for y in range(0, bits.shape[1], 4):
            for x in range(0, bits.shape[2], 2):
                counts[bits[direction, y, x] >> 16] += 1
                total += 1
    bounds = np.full(len(LEVELS), np.uint64(1) << COST_SHIFT, dtype=np.uint64)
    level = below = 0
    for bucket in range(1 << 16):
        below += counts[bucket]
        while level < len(LEVELS) - 1 and below >= LEVELS[level] * total:
            bounds[level] = np.uint64(bucket + 1) << np.uint64(16)
            level += 1
    return bounds


@kernel
def _first_edges(bits: np.ndarray, low: int, high: int, roots: np.ndarray, keys: np.ndarray,
                 rest: np.ndarray) -> tuple[int, int]:
    """Pack edges between components: low <= cost < high into `keys`, cost >= high into `rest`."""
    height, width = bits.shape[1], bits.shape[2]
    taken = left = 0
    for direction in range(4):
        rows = height if direction == 0 else height - 1
        columns = width if direction == 1 else width - 1
        for y in range(rows):
            start = y * width
            code = np.uint64((direction << PIXEL_BITS) + start)
            costs = bits[direction, y, :columns]
            first, second = _ends(code, width)
            first_roots = roots[first:first + columns]
            second_roots = roots[second:second + columns]
            for x in range(columns):
                cost = np.uint64(costs[x])
                key = (cost << COST_SHIFT) | (code + np.uint64(x))
                wanted = (cost >= low) & (first_roots[x] != second_roots[x])
                keys[taken] = key
                rest[left] = key
                taken += wanted & (cost < high)
                left += wanted & (cost >= high)
    return taken, left


@kernel
def _next_edges(edges: np.ndarray, high: int, width: int, roots: np.ndarray, keys: np.ndarray,
                rest: np.ndarray) -> tuple[int, int]:
    """Split edges between components: cost < high into `keys`, the others into `rest`."""
    taken = left = 0
    for key in edges:
        first, second = _ends(key, width)
        wanted = roots[first] != roots[second]
        cost = key >> COST_SHIFT
        keys[taken] = key
        rest[left] = key
        taken += wanted & (cost < high)
        left += wanted & (cost >= high)
    return taken, left


@kernel
def _radix_sort(keys: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Sort keys stably by float32 cost; the result is in one of the two arrays."""
    if len(keys) < 2:
        return keys
    low = high = keys[0] >> COST_SHIFT
    for key in keys:
        low = min(low, key >> COST_SHIFT)
        high = max(high, key >> COST_SHIFT)
    bits = 0
    while (high - low) >> np.uint64(bits):
        bits += 1
    passes = (bits + DIGIT_BITS - 1) // DIGIT_BITS
    mask = np.uint64((1 << DIGIT_BITS) - 1)
    counts = np.zeros((max(1, passes), 1 << DIGIT_BITS), dtype=np.int64)
    for key in keys:
        cost = (key >> COST_SHIFT) - low
        for digit in range(passes):
            counts[digit, (cost >> np.uint64(DIGIT_BITS * digit)) & mask] += 1
    for digit in range(passes):
        places = counts[digit]
        total = 0
        for bucket in range(places.shape[0]):
            count = places[bucket]
            places[bucket] = total
            total += count
        shift = np.uint64(DIGIT_BITS * digit)
        for key in keys:
            bucket = (((key >> COST_SHIFT) - low) >> shift) & mask
            other[places[bucket]] = key
            places[bucket] += 1
        keys, other = other, keys
    return keys


@kernel
def _refine_short(keys: np.ndarray, costs: np.ndarray, pixels: np.ndarray, width: int) -> None:
    """Sort a few edges of equal float32 cost by float64 cost, with insertion sort."""
    for i in range(keys.shape[0]):
        key = keys[i]
        cost = _exact_cost(key, pixels, width)
        place = i
        while place > 0 and costs[place - 1] > cost:
            costs[place], keys[place] = costs[place - 1], keys[place - 1]
            place -= 1
        costs[place], keys[place] = cost, key


@kernel
def _refine_long(keys: np.ndarray, pixels: np.ndarray, width: int) -> None:
    """Sort edges of equal float32 cost by float64 cost; those costs differ in at most 30 bits."""
    costs = np.empty(keys.shape[0])
    for i in range(keys.shape[0]):
        costs[i] = _exact_cost(keys[i], pixels, width)
    bits = costs.view(np.uint64)
    low = bits[0]
    for value in bits:
        low = min(low, value)
    ranks = np.empty_like(keys)
    for i in range(keys.shape[0]):
        ranks[i] = ((bits[i] - low) << COST_SHIFT) | np.uint64(i)
    ranks = _radix_sort(ranks, np.empty_like(keys))
    unsorted = keys.copy()
    for i in range(keys.shape[0]):
        keys[i] = unsorted[ranks[i] & CODE_MASK]


@kernel
def _sort_edges(keys: np.ndarray, other: np.ndarray, pixels: np.ndarray,
                width: int) -> np.ndarray:
    """Sort keys stably by float64 cost; the result is in one of the two arrays."""
    keys = _radix_sort(keys, other)
    costs = np.empty(SHORT_RUN)
    start = 0
    for i in range(1, len(keys) + 1):
        if i < len(keys) and keys[i] >> COST_SHIFT == keys[start] >> COST_SHIFT:
            continue
        if i - start > 1 and keys[start] >> COST_SHIFT > 0:
            if i - start <= SHORT_RUN:
                _refine_short(keys[start:i], costs, pixels, width)
            else:
                _refine_long(keys[start:i], pixels, width)
        start = i
    return keys


@kernel
def find_root(parents: np.ndarray, node: int) -> int:
    """Find the root of a node's tree, and halve the path to it for later calls.

    Args:
        parents (np.ndarray): (n,) int32: minus its size for a root, the parent for other nodes.
        node (int): The node.

    Returns:
        int: The root.
    """
    above = parents[node]
    while above >= 0:
        top = parents[above]
        if top >= 0:
            parents[node] = top
        node, above = above, top
    return node


@kernel
def _flatten(parents: np.ndarray, roots: np.ndarray) -> None:
    for node in range(parents.shape[0]):
        root = find_root(parents, node)
        if root != node:
            parents[node] = root
        roots[node] = root


@kernel
def _exact_limit(root: int, parents: np.ndarray, last: np.ndarray, pixels: np.ndarray,
                 width: int, scale: float) -> float:
    inner = 0.
    if last[root] != NO_EDGE:
        inner = _exact_cost(np.uint64(last[root]), pixels, width)
    return np.float64(np.float32(inner + scale / -parents[root]))


@kernel
def _unite_clear(keys: np.ndarray, start: int, forest: tuple, width: int, scale: float,
                 min_size: int, rejected: np.ndarray, n: int) -> tuple[int, int]:
    """Join components along the edges from `start` on, up to one whose cost is close to a limit.

    This is separate from `_unite` because the loop is faster without the exact costs. Unsigned indices
    avoid the check for negative ones.

    Returns:
        tuple[int, int]: Position of that edge, and number of edges in `rejected`.
    """
    parents, limits, last = forest
    floats = keys.view(np.float32)  # little-endian: element 2 * i + 1 is the cost of key i
    for i in range(start, len(keys)):
        key = keys[i]
        first, second = _ends(key, width)
        u, v = np.uint64(first), np.uint64(second)
        above_u, above_v = parents[u], parents[v]
        if above_u == above_v and above_u >= 0:
            continue
        while above_u >= 0:
            top = parents[np.uint64(above_u)]
            if top >= 0:
                parents[u] = top
            u, above_u = np.uint64(above_u), top
        while above_v >= 0:
            top = parents[np.uint64(above_v)]
            if top >= 0:
                parents[v] = top
            v, above_v = np.uint64(above_v), top
        if u == v:
            continue
        cost = floats[2 * i + 1]
        limit = min(limits[u], limits[v])
        if abs(cost - limit) <= SAFE * limit:
            return i, n
        if cost < limit:
            size = above_u + above_v
            root = u if above_u <= above_v else v
            parents[root] = size
            parents[u + v - root] = np.int32(root)
            limits[root] = np.float32(cost + scale / -size)
            last[root] = np.uint32(key)
        elif above_u > -min_size or above_v > -min_size:
            rejected[n] = key
            n += 1
    return len(keys), n


@kernel
def _unite(keys: np.ndarray, forest: tuple, pixels: np.ndarray, width: int, scale: float,
           min_size: int, rejected: np.ndarray, n: int) -> int:
    """Join components along sorted edges whose cost is below the limits of both components.

    The official limit is `float32(inner cost + scale / size)`, which is compared with the float64
    cost. Here both are kept in float32, and computed exactly only where they are close.

    Returns:
        int: Number of edges in `rejected`.
    """
    parents, limits, last = forest
    i, n = _unite_clear(keys, 0, forest, width, scale, min_size, rejected, n)
    while i < len(keys):
        u, v = _ends(keys[i], width)
        u, v = find_root(parents, u), find_root(parents, v)
        cost = _exact_cost(keys[i], pixels, width)
        if cost < min(_exact_limit(u, parents, last, pixels, width, scale),
                      _exact_limit(v, parents, last, pixels, width, scale)):
            root, child = (u, v) if parents[u] <= parents[v] else (v, u)
            parents[root] += parents[child]
            parents[child] = root
            limits[root] = cost + scale / -parents[root]
            last[root] = np.uint32(keys[i])
        elif parents[u] > -min_size or parents[v] > -min_size:
            rejected[n] = keys[i]
            n += 1
        i, n = _unite_clear(keys, i + 1, forest, width, scale, min_size, rejected, n)
    return n


@kernel
def _join_small(keys: np.ndarray, parents: np.ndarray, width: int, min_size: int,
                kept: np.ndarray) -> int:
    """Join pairs of components of which one is too small.

    If `kept` is not empty, such edges are only collected there, and nothing is joined.

    Returns:
        int: Number of edges collected.
    """
    n = 0
    for key in keys:
        u, v = _ends(key, width)
        u, v = find_root(parents, u), find_root(parents, v)
        if u == v or (parents[u] <= -min_size and parents[v] <= -min_size):
            continue
        if len(kept):
            kept[n] = key
            n += 1
            continue
        if parents[u] > parents[v]:
            u, v = v, u
        parents[u] += parents[v]
        parents[v] = u
    return n


@kernel
def grow_forest(costs: np.ndarray, blurred: np.ndarray, scale: float, min_size: int,
                scratch: np.ndarray) -> np.ndarray:
    """Join pixels along edges of increasing cost, then the components smaller than `min_size`.

    Args:
        costs (np.ndarray): (4, H, W) float32 from `segmentation.edge_costs`.
        blurred (np.ndarray): (3, H, W) float64.
        scale (float): Scale of observation, already divided by 255.
        min_size (int): Smallest component in pixels.
        scratch (np.ndarray): (4, >= 4*H*W + 1) uint64 work space.

    Returns:
        np.ndarray: (H*W,) int32 forest: minus its size for a root, the parent for other pixels.
    """
    width = costs.shape[2]
    count = costs.shape[1] * width
    pixels = blurred.reshape(3, count)
    bits = costs.view(np.uint32)
    parents = np.full(count, -1, dtype=np.int32)
    limits = np.full(count, np.float32(scale), dtype=np.float32)
    last = np.full(count, NO_EDGE, dtype=np.uint32)
    roots = np.arange(count).astype(np.int32)
    keys, other, rest, rejected = scratch[0], scratch[1], scratch[2], scratch[3]
    bounds = _level_bounds(bits)
    taken, _ = _first_edges(bits, np.uint64(0), bounds[0], roots, keys, rest)
    left = refused = 0
    for level in range(len(bounds)):
        if level > 0:
            _flatten(parents, roots)
        if level == 1:
            taken, left = _first_edges(bits, bounds[0], bounds[1], roots, keys, rest)
        elif level > 1:
            taken, left = _next_edges(rest[:left], bounds[level], width, roots, keys, rest)
        edges = _sort_edges(keys[:taken], other[:taken], pixels, width)
        refused = _unite(edges, (parents, limits, last), pixels, width, scale, min_size,
                         rejected, refused)
    taken = _join_small(rejected[:refused], parents, width, min_size, keys)
    edges = _sort_edges(keys[:taken], other[:taken], pixels, width)
    _join_small(edges, parents, width, min_size, keys[:0])
    return parents
