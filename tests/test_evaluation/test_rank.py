"""How many directions features use, against values computed by hand."""
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from small import tiny_config

from projects.soco.datasets.dataset import SoCoDataset
from projects.soco.evaluation.loading import build_model
from projects.soco.evaluation.objects import held_out_dataset
from projects.soco.evaluation.rank import (
    MAX_DRAWS,
    effective_rank,
    explained_by_boxes,
    leading_share,
    measure_rank,
    rank_of_model,
    rankme,
)
from projects.soco.launch.configs import load_config


def along(directions: int, dimensions: int = 8, repeats: int = 1) -> torch.Tensor:
    """Features of mean zero that vary equally along the first directions."""
    axes = torch.eye(dimensions)[:directions]
    return torch.cat([axes, -axes]).repeat(repeats, 1)


def rotation(dimensions: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.linalg.qr(torch.randn(dimensions, dimensions, generator=generator).double())[0]


@pytest.mark.parametrize('k', [1, 2, 5, 8])
def test_k_equal_directions_have_rank_k(k):
    assert effective_rank(along(k)) == pytest.approx(k)
    assert rankme(along(k)) == pytest.approx(k, abs=1e-3)
    assert leading_share(along(k)) == pytest.approx(min(1, 5 / k))


def test_unequal_directions_by_hand():
    """Variances 3/4 and 1/4; singular values in the proportion of sqrt(3) to 1."""
    features = along(2) * torch.tensor([3**0.5, 1, 0, 0, 0, 0, 0, 0])
    assert effective_rank(features) == pytest.approx(
        math.exp(-(0.75 * math.log(0.75) + 0.25 * math.log(0.25))))
    p = 3**0.5 / (1 + 3**0.5)
    assert rankme(features) == pytest.approx(
        math.exp(-(p * math.log(p) + (1 - p) * math.log(1 - p))), abs=1e-3)
    assert leading_share(features, 1) == pytest.approx(0.75)


@given(st.integers(1, 6), st.floats(1e-3, 1e3), st.integers(0, 99), st.integers(1, 3))
def test_scale_rotation_mean_and_repetition_do_not_matter(k, scale, seed, repeats):
    features = along(k, repeats=repeats).double() @ rotation(8, seed) * scale
    assert effective_rank(features + 3 * scale) == pytest.approx(k, rel=1e-6)
    assert rankme(features) == pytest.approx(k, rel=1e-3)


def test_rankme_counts_the_mean_and_the_effective_rank_does_not():
    features = along(2) + 1000
    assert effective_rank(features) == pytest.approx(2) and rankme(features) < 1.1


def test_few_objects_in_many_dimensions():
    features = torch.randn(12, 200, generator=torch.Generator().manual_seed(0))
    assert 8 < effective_rank(features) <= 11 and rankme(features) <= 12.01


def test_features_that_are_all_alike():
    found = measure_rank(torch.full((20, 4), 7.0))
    assert found.effective_rank == 0 and found.leading_share == 0
    assert found.rankme == pytest.approx(1, abs=1e-3)


def test_isotropic_noise_has_nearly_full_rank():
    features = torch.randn(5000, 32, generator=torch.Generator().manual_seed(0))
    assert 31 < effective_rank(features) <= 32


def test_units_that_never_fire_are_counted():
    features = torch.randn(50, 6, generator=torch.Generator().manual_seed(0)).relu()
    features[:, [1, 4]] = 0
    features[0, 4] = 1e-6  # fires once
    assert measure_rank(features).silent == 1


class TestBoxes:

    def boxes(self, n: int = 400) -> tuple[torch.Tensor, torch.Tensor]:
        generator = torch.Generator().manual_seed(1)
        corner, side = 100 * torch.rand(2, n, 2, generator=generator)
        return torch.cat([corner, corner + side + 1], dim=1), torch.arange(n) // 4

    def test_features_that_are_the_box(self):
        boxes, photos = self.boxes()
        centre = (boxes[:, :2] + boxes[:, 2:]) / 2
        features = torch.cat([centre, centre.square() / 50, boxes[:, 2:] - boxes[:, :2]], dim=1)
        assert explained_by_boxes(features, boxes, photos) > 0.999

    def test_features_that_have_nothing_to_do_with_the_box(self):
        boxes, photos = self.boxes()
        features = torch.randn(len(boxes), 20, generator=torch.Generator().manual_seed(2))
        assert explained_by_boxes(features, boxes, photos) < 0.01

    def test_half_of_the_variance(self):
        boxes, photos = self.boxes(4000)
        x = (boxes[:, 0] + boxes[:, 2]) / 2
        noise = torch.randn(len(x), generator=torch.Generator().manual_seed(3))
        features = torch.stack([(x - x.mean()) / x.std() + noise], dim=1)
        assert explained_by_boxes(features, boxes, photos) == pytest.approx(0.5, abs=0.03)

    def test_boxes_that_are_all_the_same(self):
        features = torch.randn(40, 3, generator=torch.Generator().manual_seed(4))
        boxes = torch.tensor([[0., 0., 10., 10.]]).expand(40, 4)
        assert explained_by_boxes(features, boxes, torch.arange(40)) < 0.2

    def test_one_photo_is_not_enough(self):
        with pytest.raises(ValueError, match='two photos'):
            explained_by_boxes(torch.randn(4, 2), torch.rand(4, 4), torch.zeros(4))


@pytest.mark.parametrize('features, message', [
    (torch.zeros(0, 4), 'shape'), (torch.zeros(4), 'shape'),
    (torch.tensor([[1., math.nan]]), 'not finite')])
def test_what_has_no_rank(features, message):
    with pytest.raises(ValueError, match=message):
        measure_rank(features)


@pytest.mark.parametrize('num_photos, rows', [(2, [0, 3]), (64, [0, 1, 2, 3])])
def test_a_model_is_measured_on_the_photos_that_are_asked_for(num_photos, rows, tmp_path, monkeypatch):
    tiny_config(tmp_path, photos=4).dump(tmp_path / 'config.py')
    cfg = load_config(str(tmp_path / 'config.py'), {})
    dataset = held_out_dataset(cfg, tmp_path / 'photos', tmp_path / 'proposals.arrow')
    read, drawn = SoCoDataset.__getitem__, []
    monkeypatch.setattr(SoCoDataset, '__getitem__',
                        lambda self, key: drawn.append(key) or read(self, key))
    ranks = rank_of_model(build_model(cfg), dataset, num_photos, num_objects=1)
    assert [key.index for key in drawn] == rows  # one draw is enough for one object
    assert list(ranks) == ['object', 'projection', 'online object', 'online projection']
    # at the start, the target is a copy of the online network
    assert ranks['object'] == ranks['online object']
    drawn.clear()
    ranks = rank_of_model(build_model(cfg), dataset, num_photos, features='object',
                          num_objects=10**6)
    assert list(ranks) == ['object', 'online object']
    assert len(drawn) == MAX_DRAWS * len(rows) and len(set(drawn)) == len(drawn)
