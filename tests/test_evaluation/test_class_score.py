"""k-NN accuracy, retrieval mAP and their intervals, compared with values computed by hand."""
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from projects.soco.evaluation.annotated import LabelledPhotos
from projects.soco.evaluation.class_score import (
    Figure,
    bootstrap_interval,
    draw_photos,
    drawn_means,
    rank_classes,
    score_labelled,
)


def directions(*degrees: float) -> torch.Tensor:
    angles = torch.tensor(degrees, dtype=torch.float64) * math.pi / 180
    return torch.stack([angles.cos(), angles.sin()], dim=1)


def labelled(classes, photos, areas=None) -> LabelledPhotos:
    n = len(classes)
    names = [f'class {c}' for c in range(int(max(classes)) + 1)]
    return LabelledPhotos([], [], torch.tensor(list(photos)), torch.zeros(n, 4), torch.zeros(n, 4),
                          torch.as_tensor(classes), torch.tensor(areas or [500.0] * n), names, [])


FEATS = directions(0, 10, 30, 100)
CLASSES, PHOTOS = torch.tensor([0, 0, 1, 1]), torch.tensor([0, 1, 0, 1])


def test_nearest_neighbours_and_precision_by_hand():
    one = rank_classes(FEATS, CLASSES, PHOTOS, k=1, other_photos=False)
    assert one.correct.tolist() == [1, 1, 0, 1]
    assert one.precision.tolist() == pytest.approx([1, 1, 1 / 3, 1])
    assert one.counted.all()
    elsewhere = rank_classes(FEATS, CLASSES, PHOTOS, k=1, other_photos=True)
    assert elsewhere.correct.tolist() == [1, 1, 0, 1]
    assert elsewhere.precision.tolist() == pytest.approx([1, 1, 1 / 2, 1])


def test_votes_are_counted_and_the_nearest_decides_between_equal_counts():
    assert rank_classes(FEATS, CLASSES, PHOTOS, 2, False).correct.tolist() == [1, 1, 0, 1]
    assert rank_classes(FEATS, CLASSES, PHOTOS, 3, False).correct.tolist() == [0, 0, 0, 0]
    # more neighbours than objects in other photos: hidden objects do not vote
    assert rank_classes(FEATS, CLASSES, PHOTOS, 9, True).correct.tolist() == [1, 1, 0, 1]


def test_average_precision_of_several():
    """The three other objects of the query's class are the 1st, 3rd and 4th nearest."""
    feats = directions(0, 1, 2, 3, 4)
    outcomes = rank_classes(feats, torch.tensor([0, 0, 1, 0, 0]), torch.arange(5), 1, False)
    assert float(outcomes.precision[0]) == pytest.approx((1 + 2 / 3 + 3 / 4) / 3)


def test_a_class_of_one_photo_is_no_query_elsewhere():
    outcomes = rank_classes(FEATS, CLASSES, torch.tensor([0, 0, 1, 2]), 1, True)
    assert outcomes.counted.tolist() == [False, False, True, True]
    with pytest.raises(ValueError, match='objects in two photos'):
        score_labelled(FEATS, labelled([0, 0, 1, 1], [0, 0, 1, 1]))


def test_perfect_features_score_1_and_order_does_not_matter():
    classes = torch.tensor([0, 0, 1, 1, 2, 2, 2])
    photos = torch.tensor([0, 1, 0, 1, 0, 1, 2])
    score = score_labelled(F.one_hot(classes).double(), labelled(classes, photos), k=1)
    for figures in (score.other_photos, score.all_photos, *score.classes.values()):
        assert all((f.value, f.low, f.high) == (1, 1, 1) for f in figures.values())
    feats = F.normalize(torch.randn(7, 4, dtype=torch.float64), dim=1)
    order = torch.tensor([6, 2, 0, 5, 1, 4, 3])
    one = score_labelled(feats, labelled(classes, photos), k=3)
    other = score_labelled(feats[order], labelled(classes[order], photos[order]), k=3)
    for part in ('other_photos', 'all_photos'):
        for name, figure in getattr(one, part).items():
            assert tuple(figure) == pytest.approx(tuple(getattr(other, part)[name]))


def test_figures_by_class_size_and_mean_of_classes():
    score = score_labelled(FEATS, labelled(CLASSES, PHOTOS, [1023., 1024., 9215., 9216.]), k=1)
    assert score.other_photos['knn'].value == 3 / 4 and score.other_photos['knn'].objects == 4
    assert score.other_photos['map'].value == pytest.approx(3.5 / 4)
    assert score.all_photos['map'].value == pytest.approx((3 + 1 / 3) / 4)
    assert [score.classes[name]['knn'].value for name in ('class 0', 'class 1')] == [1, 1 / 2]
    assert [score.sizes[size]['knn'].value for size in ('small', 'medium', 'large')] == [1, 1 / 2, 1]
    assert [score.sizes[size]['map'].objects for size in ('small', 'medium', 'large')] == [1, 2, 1]
    # all others vote: the three win a tie of 2 to 2, because they are nearer; the two lose 3 to 1
    uneven = score_labelled(directions(0, 10, 19, 30, 32), labelled([0, 0, 0, 1, 1], range(5)), k=4)
    assert uneven.other_photos['knn'].value == 3 / 5
    assert uneven.other_photos['knn_classes'].value == 1 / 2 and uneven.commonest == 3 / 5
    assert score_labelled(FEATS, labelled(CLASSES, PHOTOS), k=1).sizes['large']['knn'] is None


class TestBootstrap:

    def test_photos_are_drawn_and_not_objects(self):
        values, photos = np.repeat([1., 0.], 1000), np.repeat([0, 1], 1000)
        assert bootstrap_interval(values, photos) == (0, 1)  # 1 draw in 4 has only photo 0, or only 1
        low, high = bootstrap_interval(values, np.arange(2000))
        assert 0.47 < low < 0.49 and 0.51 < high < 0.53  # 1.96 * sqrt(0.25 / 2000) = 0.022

    def test_as_the_normal_approximation_where_that_holds(self):
        rng = np.random.default_rng(0)
        values = rng.normal(0.5, 0.1, 400)
        low, high = bootstrap_interval(values, np.arange(400), resamples=4000)
        error = values.std() / 20
        assert low == pytest.approx(values.mean() - 1.96 * error, abs=0.1 * error)
        assert high == pytest.approx(values.mean() + 1.96 * error, abs=0.1 * error)

    def test_means_of_classes_leave_out_what_was_not_drawn(self):
        values, photos, classes = np.array([1., 0, 0]), np.array([0, 0, 1]), np.array([0, 1, 1])
        # photo 0 only: (1 + 0) / 2; photo 1 only: class 1 only, 0; both: (1 + 0) / 2
        assert bootstrap_interval(values, photos, classes) == (0, 0.5)

    def test_a_function_of_the_seed(self):
        values, photos = np.random.default_rng(1).random(50), np.arange(50) // 3
        same = [bootstrap_interval(values, photos, seed=seed, resamples=100) for seed in (3, 3, 4)]
        assert same[0] == same[1] != same[2]
        assert bootstrap_interval(values[:3], photos[:3]) == (pytest.approx(values[:3].mean()), ) * 2

    def test_a_figure_has_its_interval(self):
        score = score_labelled(FEATS, labelled(CLASSES, PHOTOS), k=1)
        outcome = rank_classes(FEATS, CLASSES, PHOTOS, 1, True).correct.numpy()
        assert score.other_photos['knn'] == Figure(
            3 / 4, *bootstrap_interval(outcome, PHOTOS.numpy()), 4)


OF_PHOTO, VALUES = np.array([2, 2, 2, 0, 1, 1]), np.array([1., 0., 1., 1., 0., 0.])


def test_means_are_over_the_objects_of_the_drawn_photos():
    drawn = draw_photos(3, 50, seed=0)
    assert drawn.shape == (50, 3) and (drawn.sum(axis=1) == 3).all()
    expected = [np.average(VALUES, weights=times[OF_PHOTO]) for times in drawn]
    assert drawn_means(VALUES, OF_PHOTO, drawn) == pytest.approx(expected)


def test_a_mean_of_classes_leaves_out_those_that_are_not_drawn():
    classes, expected = np.array([0, 0, 1, 1, 2, 2]), []
    drawn = draw_photos(3, 50, seed=0)
    for times in drawn:
        objects = np.repeat(np.arange(6), times[OF_PHOTO])
        expected.append(np.mean([VALUES[objects][classes[objects] == c].mean()
                                 for c in np.unique(classes[objects])]))
    assert drawn_means(VALUES, OF_PHOTO, drawn, classes) == pytest.approx(expected)


def test_a_draw_without_any_object_has_no_mean():
    found = drawn_means(np.ones(2), np.array([1, 1]), np.array([[2, 0], [1, 1]]))
    assert np.isnan(found[0]) and found[1] == 1
