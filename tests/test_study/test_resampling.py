"""Bootstrap over photos and seeds."""
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from projects.soco.study.resampling import paired_difference, photo_draws, resampled_means

PHOTOS = np.array([7, 7, 7, 2, 5, 5])
VALUES = np.array([1., 0., 1., 1., 0., 0.])


def test_draws_are_the_same_for_every_run():
    draws = photo_draws(5, 20)
    assert draws.shape == (20, 5) and draws.min() == 0 and draws.max() == 4
    assert np.array_equal(draws, photo_draws(5, 20))
    assert not np.array_equal(draws[:, :4], photo_draws(4, 20))


def test_means_are_over_the_objects_of_the_drawn_photos():
    order = [2, 5, 7]  # photos as np.unique sorts them
    by_photo = {photo: VALUES[PHOTOS == photo] for photo in order}
    expected = [np.concatenate([by_photo[order[i]] for i in draw]).mean()
                for draw in photo_draws(3, 50)]
    assert resampled_means(VALUES, PHOTOS, 50) == pytest.approx(expected)


def test_a_mean_of_classes_leaves_out_those_that_are_not_drawn():
    classes = np.array([0, 0, 1, 1, 2, 2])
    order, expected = [2, 5, 7], []
    for draw in photo_draws(3, 50):
        objects = np.concatenate([np.flatnonzero(PHOTOS == order[i]) for i in draw])
        expected.append(np.mean([VALUES[objects][classes[objects] == c].mean()
                                 for c in np.unique(classes[objects])]))
    assert resampled_means(VALUES, PHOTOS, 50, classes) == pytest.approx(expected)


def test_a_constant_has_no_spread():
    assert set(resampled_means(np.full(6, 0.25), PHOTOS, 30)) == {0.25}


def test_what_two_arms_share_cancels_out():
    rng = np.random.default_rng(0)
    theirs = rng.random((3, 400))
    found = paired_difference([0.6, 0.7, 0.8], [0.5, 0.6, 0.7], theirs + 0.1, theirs)
    assert found == pytest.approx((0.1, 0.1, 0.1))


def test_seeds_are_drawn_too():
    # no photo matters, but the gain depends on the seed: 0, 0 or 0.3
    ours = np.repeat([[0.], [0.], [0.3]], 500, axis=1)
    found = paired_difference([0, 0, 0.3], [0, 0, 0], ours, np.zeros((3, 500)))
    assert found.value == pytest.approx(0.1)
    assert found.low == pytest.approx(0) and found.high == pytest.approx(0.3)


@given(st.integers(1, 4), st.integers(2, 40), st.integers(0, 99))
def test_the_interval_is_that_of_the_negated_difference_turned_round(seeds, draws, seed):
    rng = np.random.default_rng(seed)
    a, b = rng.random((2, seeds, draws))
    there = paired_difference(a.mean(1), b.mean(1), a, b)
    back = paired_difference(b.mean(1), a.mean(1), b, a)
    assert there.low <= there.high
    assert (there.value, there.low, there.high) == pytest.approx((-back.value, -back.high, -back.low))
