"""Tests of the sentence on what a comparison shows: it never says more than the intervals."""
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from projects.soco.study.resampling import Interval
from projects.soco.study.verdict import (
    labels_worth,
    outlook,
    pairs_to_judge,
    smallest_difference,
    verdict,
)


def test_a_verdict_names_where_a_start_is_ahead_behind_and_where_nothing_is_shown():
    found = {(25, 75): Interval(.3, .2, .4), (25, 150): Interval(.041, .019, .063),
             (25, 300): Interval(.01, -.02, .04), (100, 75): Interval(0, -.1, .1),
             (100, 150): Interval(.0, -.03, .03), (100, 300): Interval(-.05, -.08, -.02)}
    reached, three = dict.fromkeys(found, .4), dict.fromkeys(found, 3)
    assert verdict('soco', 'imagenet', found, three, reached, 300) == (
        'soco against imagenet: half-way (150 iterations) it is ahead of imagenet by 4.1 AP50 (1.9 to '
        '6.3) with 25 % of the labels; half-way (150 iterations) no difference is shown with 100 % of '
        'the labels; at the end (300 iterations) it is behind imagenet by 5.0 AP50 (2.0 to 8.0) with '
        '100 % of the labels; at the end (300 iterations) no difference is shown with 25 % of the '
        'labels (3 seeds, 95 % intervals).')
    told = verdict('soco', 'imagenet', found, three, {**reached, (25, 150): .04}, 300)
    assert 'ahead' not in told
    assert 'neither has learned (AP50 under 5) with 25 % of the labels' in told


intervals = st.tuples(st.floats(-.5, .5), st.floats(0, .3), st.floats(0, .3)).map(
    lambda t: Interval(t[0], t[0] - t[1], t[0] + t[2]))


def test_the_last_point_of_a_start_that_stops_is_not_called_the_end():
    found = {(25, 75): Interval(.1, .05, .2), (25, 150): Interval(.1, .05, .2),
             (100, 75): Interval(.1, .05, .2), (100, 150): Interval(.1, .05, .2),
             (100, 225): Interval(.1, .05, .2)}
    told = verdict('soco', 'byol', found, {**dict.fromkeys(found, 2), (100, 225): 1},
                   dict.fromkeys(found, .5), 300)
    assert 'at the end' not in told
    assert 'half-way (150 iterations) it is ahead of byol by 10.0 AP50 (5.0 to 20.0) with 25 %' in told
    assert 'after 225 of 300 iterations it is ahead of byol by 10.0 AP50 (5.0 to 20.0) with 100' in told
    assert told.endswith('(1 to 2 seeds, 95 % intervals; one seed with 100 % of the labels at 225 '
                         'iterations, where they cover the photos only).')
    early = {(25, 75): found[25, 75]}
    told = verdict('soco', 'byol', early, {(25, 75): 3}, {(25, 75): .5}, 300)
    assert told == ('soco against byol: after 75 of 300 iterations it is ahead of byol by 10.0 AP50 '
                    '(5.0 to 20.0) with 25 % of the labels (3 seeds, 95 % intervals).')


@given(st.dictionaries(st.tuples(st.sampled_from([10, 25, 100]), st.sampled_from([75, 150, 225, 300])),
                       st.tuples(intervals, st.integers(1, 3)), min_size=1))
def test_it_never_says_more_than_the_intervals(found):
    seeds = {place: count for place, (_, count) in found.items()}
    found = {place: interval for place, (interval, _) in found.items()}
    sentence = verdict('ours', 'theirs', found, seeds, dict.fromkeys(found, .5), 300)
    last = {share: max(point for each, point in found if each == share) for share, _ in found}
    used = [place for place in found if place[1] in (150, last[place[0]])]
    assert ('ahead' in sentence) == any(found[place].low > 0 for place in used)
    assert ('behind' in sentence) == any(found[place].high < 0 for place in used)
    assert ('no difference is shown' in sentence) == any(
        found[place].low <= 0 <= found[place].high for place in used)
    assert ('one seed' in sentence) == any(seeds[place] == 1 for place in used)
    assert ('at the end' in sentence) == any(place[1] == 300 for place in used)
    assert ('half-way' in sentence) == any(place[1] == 150 for place in used)


def test_the_smallest_difference_falls_with_objects_and_seeds():
    few, many = smallest_difference(68, 132, 3), smallest_difference(680, 1320, 3)
    assert few[0] == pytest.approx(math.sqrt(10) * many[0]) and few[1] == many[1]
    # the intervals that were measured on these 68 photos are 6.1 to 6.6 points to each side
    assert 0.055 < few[0] < 0.075
    assert smallest_difference(68, 132, 6)[1] < few[1]
    assert math.isinf(smallest_difference(68, 132, 1)[1])
    # objects of the same photo tell less than those of several photos
    assert smallest_difference(10, 1000, 3)[0] > smallest_difference(500, 1000, 3)[0]


def test_what_can_be_shown_is_said_before():
    assert 'nothing can be said about another seed' in outlook(68, 132, 1)
    assert 'val has 68 photos with 132 objects' in outlook(68, 132, 3)
    assert 'More seeds help' in outlook(680, 1320, 3)
    assert 'More validation photos help' in outlook(68, 132, 20)


@pytest.mark.parametrize('reached, share, bound', [
    (.35, 10, 'at most'), (.40, 10, 'at most'), (.50, 25, ''), (.60, 100, ''), (.61, 100, 'more than'),
    (.45, math.sqrt(250), '')])
def test_the_labels_that_another_start_needs(reached, share, bound):
    found = labels_worth(reached, {10: .40, 25: .50, 100: .60})
    assert found == (pytest.approx(share), bound)


def test_which_pairs_are_judged():
    kinds = [('random', 'random'), ('imagenet', 'weights'), ('coco', 'weights'), ('soco', 'soco')]
    assert pairs_to_judge(kinds) == [('soco', 'imagenet'), ('soco', 'coco')]
    assert pairs_to_judge([kinds[0], kinds[3]]) == [('soco', 'random')]
    assert pairs_to_judge(kinds[:3]) == [('imagenet', 'random'), ('coco', 'random')]
