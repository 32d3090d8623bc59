"""What a comparison of starts shows, in a sentence, and what it could show at all."""
import math
from collections.abc import Mapping, Sequence

from .resampling import Interval, half_width

# Half the width of a 95 % interval of a paired difference in AP50 from the photos alone is about
# 1.96 * SPREAD / sqrt(objects), where objects of the same photo count for less (ALIKE). Measured on the
# detectors of docs/results/collapse.md.
SPREAD = 0.4
ALIKE = 0.1
# Standard deviation over seeds of a difference in AP50, from the same detectors.
SEED_SPREAD = 0.07
LEARNED = 0.05  # AP50 below which a detector has not learned, so that a difference means nothing


def smallest_difference(photos: int, objects: int, seeds: int) -> tuple[float, float]:
    """Estimate the smallest difference in AP50 that a validation set can show.

    Args:
        photos (int): Photos of the validation set, at least 1.
        objects (int): Their objects, at least 1.
        seeds (int): Seeds of fine-tuning, at least 1.

    Returns:
        tuple[float, float]: The part of the photos and the part of the seeds, within [0, inf]; the
        difference is the root of the sum of their squares. With one seed, the second part is infinite:
        nothing is known about other seeds.
    """
    alike = 1 + ALIKE * max(0.0, objects / photos - 1)
    of_photos = 1.96 * SPREAD / math.sqrt(objects / alike)
    if seeds < 2:
        return of_photos, math.inf
    return of_photos, half_width(SEED_SPREAD, seeds)


def outlook(photos: int, objects: int, seeds: int) -> str:
    """Return a sentence on what a comparison can show, before it is run; see `smallest_difference`."""
    of_photos, of_seeds = smallest_difference(photos, objects, seeds)
    size = f'val has {photos} photos with {objects} objects'
    if math.isinf(of_seeds):
        return (f'{size}: with one seed, differences in AP50 under about {100 * of_photos:.0f} points '
                'cannot be shown, and nothing can be said about another seed, which may differ by '
                'several points. Use --seeds 3 for a result.')
    total = math.hypot(of_photos, of_seeds)
    return (f'{size}: with {seeds} seeds, differences in AP50 under about {100 * total:.0f} points '
            f'cannot be shown ({100 * of_photos:.0f} from the photos, {100 * of_seeds:.0f} from the '
            'seeds; our estimate). '
            + ('More seeds help.' if of_seeds > of_photos else 'More validation photos help.'))


def verdict(ours: str, theirs: str, found: Mapping[tuple[int, int], Interval],
            seeds: Mapping[tuple[int, int], int], reached: Mapping[tuple[int, int], float],
            total: int) -> str:
    """Say in one sentence which start is ahead, and never more than the intervals.

    The rule: at each share of the labels, half-way through the schedule and at its end, a start is
    *ahead* if the whole 95 % interval of the difference in AP50 is above 0, *behind* if it is below 0,
    and otherwise *no difference is shown*. Nothing is said where both are below 5 AP50. If one of the
    starts stops before the end of the schedule, its last point takes the place of the end.

    Args:
        ours (str): Name of the start that is judged.
        theirs (str): Name of the start that it is compared with.
        found (Mapping): Share of the labels in percent and iterations, to the interval of
            `ours - theirs` in AP50, within [-1, 1].
        seeds (Mapping): The same keys, to the number of seeds of fine-tuning.
        reached (Mapping): The same keys, to the higher one of the two starts' AP50, within [0, 1].
        total (int): Iterations of the whole schedule.

    Returns:
        str: The sentence.
    """
    told, moments = [], _moments(found, total)
    for where, everywhere in moments.items():
        places = [place for place in everywhere if reached[place] >= LEARNED]
        blank = [f'{share} %' for share, point in everywhere if (share, point) not in places]
        for word, matches in (('ahead of', lambda i: i.low > 0), ('behind', lambda i: i.high < 0)):
            hits = [(share, found[share, point]) for share, point in places
                    if matches(found[share, point])]
            if hits:
                told.append(f'{where} it is {word} {theirs} by '
                            + ', '.join(f'{100 * abs(i.value):.1f} AP50 ({_bounds(i)}) with {share} % '
                                        'of the labels' for share, i in hits))
        unclear = [f'{share} %' for share, point in places
                   if found[share, point].low <= 0 <= found[share, point].high
                   or math.isnan(found[share, point].value)]
        if unclear:
            told.append(f'{where} no difference is shown with {" and ".join(unclear)} of the labels')
        if blank:
            told.append(f'{where} neither has learned (AP50 under {100 * LEARNED:.0f}) with '
                        f'{" and ".join(blank)} of the labels')
    used = {place: seeds[place] for places in moments.values() for place in places}
    return f'{ours} against {theirs}: {"; ".join(told)} ({_about(used)}).'


def _about(seeds: Mapping[tuple[int, int], int]) -> str:
    """Say of how many seeds the intervals are."""
    fewest, most = min(seeds.values()), max(seeds.values())
    if most == 1:
        return 'one seed: the intervals cover the photos only, and another seed may differ'
    if fewest == most:
        return f'{most} seeds, 95 % intervals'
    single = ' and '.join(f'{share} % of the labels at {point} iterations'
                          for (share, point), count in sorted(seeds.items()) if count == 1)
    return (f'{fewest} to {most} seeds, 95 % intervals'
            + (f'; one seed with {single}, where they cover the photos only' if single else ''))


def _bounds(interval: Interval) -> str:
    low, high = sorted((abs(interval.low), abs(interval.high)))
    return f'{100 * low:.1f} to {100 * high:.1f}'


def _moments(found: Mapping[tuple[int, int], Interval], total: int
             ) -> dict[str, list[tuple[int, int]]]:
    """Return what is judged: the moment in words, to the places, in the order of the schedule."""
    moments: dict[tuple[int, str], list[tuple[int, int]]] = {}
    for share in sorted({share for share, _ in found}):
        points = sorted(point for each, point in found if each == share)
        half, last = min(points, key=lambda point: abs(point - total / 2)), points[-1]
        chosen = {last: f'at the end ({last} iterations)' if last == total else
                  f'after {last} of {total} iterations'}
        if abs(half - total / 2) <= total / 8:
            chosen[half] = f'half-way ({half} iterations)'
        for point, where in chosen.items():
            moments.setdefault((point, where), []).append((share, point))
    return {where: places for (_, where), places in sorted(moments.items())}


def labels_worth(reached: float, theirs: Mapping[int, float]) -> tuple[float, str]:
    """Find the share of the labels at which another start reaches a value.

    Args:
        reached (float): The value, such as AP50 of our start with 10 % of the labels.
        theirs (Mapping[int, float]): Values of the other start by share in percent, at least two.

    Returns:
        tuple[float, str]: The share in percent, interpolated over the logarithm of the share, and
        '', or a bound: the smallest share with 'at most', or the largest with 'more than'.
    """
    shares = sorted(theirs)
    if reached <= theirs[shares[0]]:
        return float(shares[0]), 'at most'
    for low, high in zip(shares, shares[1:]):
        if theirs[low] < reached <= theirs[high]:
            part = (reached - theirs[low]) / (theirs[high] - theirs[low])
            return float(math.exp(math.log(low) + part * (math.log(high) - math.log(low)))), ''
    return float(shares[-1]), 'more than'


def pairs_to_judge(kinds: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    """Return the pairs of starts that get a verdict.

    Args:
        kinds (Sequence[tuple[str, str]]): Name and kind ('random', 'weights' or 'soco') of each start.

    Returns:
        list[tuple[str, str]]: Each SoCo start against each start from weights, or against the random
        one if there are none. Without a SoCo start: the others against the first.
    """
    by_kind = {kind: [name for name, k in kinds if k == kind] for kind in ('random', 'weights', 'soco')}
    if by_kind['soco']:
        others = by_kind['weights'] or by_kind['random']
        return [(ours, theirs) for ours in by_kind['soco'] for theirs in others]
    names = [name for name, _ in kinds]
    return [(name, names[0]) for name in names[1:]]
