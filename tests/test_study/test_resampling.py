"""Differences between arms and their intervals."""
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from projects.soco.study.resampling import paired_difference


def test_what_two_arms_share_cancels_out():
    theirs = np.random.default_rng(0).random((3, 400))
    found = paired_difference([0.6, 0.7, 0.8], [0.5, 0.6, 0.7], theirs + 0.1, theirs)
    assert found == pytest.approx((0.1, 0.1, 0.1))


def test_seeds_count_as_student_says():
    # the gain does not depend on photos, but on the seed: 0, 0 or 0.3
    ours = np.repeat([[0.], [0.], [0.3]], 50, axis=1)
    found = paired_difference([0, 0, 0.3], [0, 0, 0], ours, np.full((3, 50), 0.))
    # the mean of each draw is 0.1; t has 2 degrees of freedom, the deviation is 0.3 / sqrt(3)
    half = 4.302653 * (0.3 / math.sqrt(3)) / math.sqrt(3)
    assert found == pytest.approx((0.1, 0.1 - half, 0.1 + half))


def test_photos_count_by_the_draws():
    # the gain does not depend on the seed, but on the photos that are drawn
    gains = np.linspace(-0.1, 0.3, 401)
    found = paired_difference([0.1, 0.1], [0, 0], np.stack([gains, gains]), np.zeros((2, 401)))
    assert found == pytest.approx((0.1, *np.percentile(gains, (2.5, 97.5))))


def test_one_seed_has_the_interval_of_its_photos():
    gains = np.linspace(0, 1, 101)
    assert paired_difference([0.5], [0], gains[None], np.zeros((1, 101))) == pytest.approx(
        (0.5, 0.025, 0.975))


@given(st.integers(1, 4), st.integers(2, 40), st.integers(0, 99))
def test_the_interval_is_that_of_the_negated_difference_turned_round(seeds, draws, seed):
    rng = np.random.default_rng(seed)
    a, b = rng.random((2, seeds, draws))
    there = paired_difference(a.mean(1), b.mean(1), a, b)
    back = paired_difference(b.mean(1), a.mean(1), b, a)
    assert there.low <= there.high
    assert (there.value, there.low, there.high) == pytest.approx((-back.value, -back.high, -back.low))
