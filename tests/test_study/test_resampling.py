"""Differences between arms and their intervals."""
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from projects.soco.study.resampling import paired_difference, pooled_difference, widening


def test_what_two_arms_share_cancels_out():
    theirs = np.random.default_rng(0).random((3, 400))
    found = paired_difference([0.6, 0.7, 0.8], [0.5, 0.6, 0.7], theirs + 0.1, theirs, 50)
    assert found == pytest.approx((0.1, 0.1, 0.1))


def test_seeds_count_as_student_says():
    # the gain does not depend on photos, but on the seed: 0, 0 or 0.3
    ours = np.repeat([[0.], [0.], [0.3]], 50, axis=1)
    found = paired_difference([0, 0, 0.3], [0, 0, 0], ours, np.full((3, 50), 0.), 50)
    # the mean of each draw is 0.1; t has 2 degrees of freedom, the deviation is 0.3 / sqrt(3)
    half = 4.302653 * (0.3 / math.sqrt(3)) / math.sqrt(3)
    assert found == pytest.approx((0.1, 0.1 - half, 0.1 + half))


def test_photos_count_by_the_draws():
    # the gain does not depend on the seed, but on the photos that are drawn
    gains = np.linspace(-0.1, 0.3, 401)
    found = paired_difference([0.1, 0.1], [0, 0], np.stack([gains, gains]), np.zeros((2, 401)), 10**9)
    assert found == pytest.approx((0.1, *np.percentile(gains, (2.5, 97.5))))


def test_one_seed_has_the_interval_of_its_photos():
    gains = np.linspace(0, 1, 101)
    assert paired_difference([0.5], [0], gains[None], np.zeros((1, 101)), 10**9) == pytest.approx(
        (0.5, 0.025, 0.975))


@given(st.integers(1, 4), st.integers(2, 40), st.integers(0, 99))
def test_the_interval_is_that_of_the_negated_difference_turned_round(seeds, draws, seed):
    rng = np.random.default_rng(seed)
    a, b = rng.random((2, seeds, draws))
    there = paired_difference(a.mean(1), b.mean(1), a, b, 50)
    back = paired_difference(b.mean(1), a.mean(1), b, a, 50)
    assert there.low <= there.high
    assert (there.value, there.low, there.high) == pytest.approx((-back.value, -back.high, -back.low))


def test_sets_count_the_same_whatever_their_seeds():
    found = pooled_difference([np.array([.1, .1]), np.array([.3])],
                              [np.full(9, .1), np.full(9, .3)], [50, 50])
    assert found == pytest.approx((.2, .2, .2))


def test_seeds_of_several_sets_share_a_standard_deviation():
    # around their means: ±0.1 and ±0.3; the variance is (0.02 + 0.18) / 2 with 2 degrees of freedom
    found = pooled_difference([np.array([0., .2]), np.array([.2, .8])],
                              [np.full(9, .1), np.full(9, .5)], [50, 50])
    half = 4.302653 * math.sqrt((.1 / 2 + .1 / 2) / 4)
    assert found == pytest.approx((.3, .3 - half, .3 + half))


def test_the_photos_of_several_sets_are_independent():
    """The mean of two independent gains has an interval narrower by the root of two."""
    gains = np.random.default_rng(0).normal(0, .1, 20_000)
    one = pooled_difference([np.zeros(1)], [gains], [50])
    two = pooled_difference([np.zeros(1)] * 2, [gains, gains.copy()], [50, 50])
    assert (one.high - one.low) / (two.high - two.low) == pytest.approx(math.sqrt(2), rel=.03)


@pytest.mark.parametrize('photos', [2, 3, 5, 20])
def test_an_interval_of_few_photos_covers_the_truth_as_often_as_it_says(photos: int):
    """A bootstrap of five photos alone would cover it in 84 % of the cases."""
    rng = np.random.default_rng(0)
    covered = []
    for gains in rng.normal(0, 1, (1500, photos)):
        draws = gains[rng.integers(0, photos, (400, photos))].mean(axis=1)
        found = pooled_difference([gains.mean(keepdims=True)], [draws], [photos])
        covered.append(found.low <= 0 <= found.high)
    assert .93 < np.mean(covered) < .99
    assert widening(10**9) == pytest.approx(1, abs=1e-4)
