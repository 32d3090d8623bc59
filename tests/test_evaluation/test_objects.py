"""Matching of objects between views: values computed by hand, and a model with perfect features."""
import math

import pytest
import torch
from mmengine.registry import MODELS, DefaultScope
from small import make_photos, tiny_config

from projects.soco.evaluation import held_out_dataset, score_objects
from projects.soco.evaluation.objects import (
    ViewObjects,
    distinct_boxes,
    embed_objects,
    found_again,
    same_photo_counts,
    summarise,
    uniformity,
)
from projects.soco.proposals.store import StoreWriter


@pytest.fixture(scope='module')
def parts(tmp_path_factory):
    folder = tmp_path_factory.mktemp('objects')
    cfg = tiny_config(folder, photos=4)
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        model = MODELS.build(cfg.model)
    return model, held_out_dataset(cfg, folder / 'photos', folder / 'proposals.arrow')


def test_boxes_that_overlap_by_more_than_half_count_once():
    boxes = torch.tensor([[0, 0, 10, 10], [0, 0, 10, 10], [0, 0, 10, 4], [0, 1, 10, 10.]])
    assert distinct_boxes(boxes).tolist() == [True, False, True, False]


def directions(*degrees: float) -> torch.Tensor:
    angles = torch.tensor(degrees, dtype=torch.float64) * math.pi / 180
    return torch.stack([angles.cos(), angles.sin()], dim=1)


def test_found_again_by_hand():
    """On a circle: for 0, its own 10 is nearest; for 50, 40; for 90, 40 and 10 come before 170."""
    first, other = directions(0, 50, 90), directions(10, 40, 170)
    assert found_again(first, other, 1).tolist() == [1, 1, 0]
    assert found_again(first, other, 2).tolist() == [1, 1, 0]
    assert found_again(first, directions(10, 120, 170), 1).tolist() == [1, 0, 0]
    assert found_again(first, other, 3).tolist() == [1, 1, 1]
    rows = torch.tensor([0, 1, 1])  # in its photo, only 40 comes before 170; below, nothing
    assert found_again(first, other, 1, rows).tolist() == [1, 1, 0]
    assert found_again(first, other, 1, torch.tensor([0, 0, 1])).tolist() == [1, 1, 1]


def test_equal_features_find_what_guessing_finds():
    same = torch.ones(8, 3) / 3**0.5
    assert found_again(same, same, 1).tolist() == [1 / 8] * 8
    assert found_again(torch.zeros(8, 3), same, 5).tolist() == [5 / 8] * 8
    assert found_again(same, same, 1, torch.tensor([0] * 4 + [1] * 2 + [2, 3])).tolist() == (
        [1 / 4] * 4 + [1 / 2] * 2 + [1, 1])


def test_uniformity_by_hand():
    """Two opposite points have squared distance 4; a third equal to one adds a pair of distance 0."""
    assert float(uniformity(directions(0, 180))) == pytest.approx(-8)
    assert float(uniformity(directions(0, 180, 0))) == pytest.approx(
        math.log((2 * math.exp(-8) + 1) / 3))
    assert float(uniformity(directions(7, 7, 7))) == pytest.approx(0, abs=1e-6)


def found(first, other, rows, sizes=(64, 64)) -> ViewObjects:
    boxes = torch.zeros(len(rows), 2, 4)
    return ViewObjects(0, 1, sizes, torch.tensor(rows), boxes, torch.stack([first, other]), 0.5)


def test_figures_are_by_kind_of_view_and_over_all_objects():
    same = found(directions(0, 90, 180), directions(0, 90, 180), [0, 0, 1])
    scale = found(directions(0, 90), directions(90, 0), [0, 0], sizes=(64, 48))
    score = summarise([same, scale])
    assert (score.top1, score.top5, score.top1_same_photo, score.alignment) == (1, 1, 1, 0)
    assert (score.top1_scales, score.top1_same_photo_scales) == (0, 0)
    assert score.top5_scales == 1 and score.alignment_scales == pytest.approx(2)
    assert (score.chance, score.chance_scales) == (pytest.approx(1 / 3), 1 / 2)
    assert score.chance_same_photo == 1 / 2  # the object that is alone in its photo is left out
    assert (score.num_photos, score.num_objects, score.spread) == (2, 5, 0.5)
    only = summarise([same])
    assert only.top1_scales is only.alignment_scales is None and only.top1 == 1


def test_objects_alone_in_their_photo_do_not_count_as_found_there():
    one_each = summarise([found(directions(0, 90), directions(0, 90), [0, 1])])
    assert one_each.top1 == 1 and one_each.top1_same_photo is one_each.chance_same_photo is None
    assert same_photo_counts(torch.tensor([4, 7, 4])).tolist() == [2, 1, 2]


def test_the_order_of_objects_does_not_matter():
    first, other = torch.randn(2, 9, 5, dtype=torch.float64)
    rows, order = torch.tensor([0, 0, 1, 1, 1, 2, 2, 3, 4]), torch.randperm(9)

    def score(index):
        a, b = (torch.nn.functional.normalize(x[index], dim=1) for x in (first, other))
        return summarise([found(a, b, rows[index].tolist())])

    for name, value in score(order)._asdict().items():
        assert value == pytest.approx(getattr(score(torch.arange(9)), name)), name


def test_the_score_is_a_function_of_the_seed_and_leaves_the_model_alone(parts):
    model, dataset = parts
    before = {key: value.clone() for key, value in model.state_dict().items()}
    state, training = torch.get_rng_state(), model.training
    first, again = (score_objects(model, dataset, seed=1) for _ in range(2))
    assert first == again
    assert first != score_objects(model, dataset, seed=2)
    assert first != score_objects(model, dataset, seed=1, features='object')
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    assert torch.equal(state, torch.get_rng_state()) and model.training is training
    assert 0 <= first.top1 <= first.top1_same_photo <= 1 and first.num_objects > 8
    assert first.num_photos == 4 and score_objects(model, dataset, num_photos=2).num_photos == 2


class Answer(torch.nn.Module):
    """A model whose projections are given by a function."""

    def __init__(self, features) -> None:
        super().__init__()
        self.features = features

    def data_preprocessor(self, batch: dict, training: bool) -> dict:
        assert training
        return dict(inputs=batch['inputs'], bboxes=batch['bboxes'])

    def extract_feat(self, inputs, bboxes, target: bool) -> tuple:
        assert target
        feats = self.features(bboxes)
        return feats, feats


def perfect(bboxes):
    """Return a unique vector for each row k of photo n, the same in every view."""
    n, p, _, k, _ = bboxes.shape
    own = torch.eye(n * k).view(n, k, -1)
    return [own.expand(p, n, k, n * k)] + [own[None]] * p


def test_perfect_and_useless_features(parts):
    _, dataset = parts
    score = score_objects(Answer(perfect), dataset)
    assert score.top1 == score.top1_same_photo == score.top1_scales == score.top5_scales == 1
    assert score.alignment == score.alignment_scales == 0
    assert score.uniformity == pytest.approx(-4)  # features of different objects are orthogonal
    assert score.spread > 0.9 and 0 < score.chance < score.chance_same_photo < 0.5

    def collapsed(bboxes):
        n, p, _, k, _ = bboxes.shape
        return [torch.ones(p, n, k, 3)] + [torch.ones(1, n, k, 3)] * p

    score = score_objects(Answer(collapsed), dataset)
    assert score.top1 == pytest.approx(score.chance) and score.spread == pytest.approx(0, abs=1e-3)
    assert score.top1_same_photo == pytest.approx(score.chance_same_photo)
    assert score.uniformity == pytest.approx(0, abs=1e-5)


def test_batches_are_nearly_equal(parts):
    _, dataset = parts
    seen = []
    embed_objects(Answer(perfect), dataset, num_photos=4, repeats=1, batch_size=3, report=seen.append)
    assert seen == [2, 2]


def test_broken_weights_and_bad_arguments(parts):
    _, dataset = parts
    with pytest.raises(ValueError, match='not finite'):
        score_objects(Answer(lambda b: [f * float('nan') for f in perfect(b)]), dataset)
    with pytest.raises(ValueError, match="projection, object, not 'image'"):
        score_objects(Answer(perfect), dataset, features='image')


def test_held_out_boxes_are_as_they_are_and_photos_without_are_left_out(tmp_path):
    cfg = tiny_config(tmp_path, photos=1)
    cfg.train_dataloader.dataset.pipeline[0].max_proposals = 0
    cfg.train_dataloader.dataset.pipeline[2].prob = 1.0
    make_photos(tmp_path / 'more', 3)
    with StoreWriter(tmp_path / 'more.arrow', dict(rules=['made up'])) as writer:
        for i in range(3):
            writer.add(f'photo_{i:03}.png', 96, 72, [[8, 8, 32, 24]] if i else [], 'made up')
    dataset = held_out_dataset(cfg, tmp_path / 'more', tmp_path / 'more.arrow', num_proposals=3)
    sample = dataset[1]
    assert sample['bboxes'].shape == (2, 2, 3, 4) and not sample['cutouts'].any()
    box = sample['bboxes'][0, 0, 0]  # in the whole photo at 48 pixels, possibly flipped
    assert box[2] - box[0] == 16 and box[3] - box[1] == 16
    seen = embed_objects(Answer(perfect), dataset, repeats=1)
    assert sorted(set(seen[0].rows.tolist())) == [1, 2]
    with StoreWriter(tmp_path / 'none.arrow', dict(rules=['made up'])) as writer:
        writer.add('photo_000.png', 96, 72, [], 'made up')
    with pytest.raises(ValueError, match=f'uses no box of the 1 photos of {tmp_path}/more. .*--keep '
                       'all, and give them with --proposals OUT.arrow') as error:
        held_out_dataset(cfg, tmp_path / 'more', tmp_path / 'none.arrow')
    assert 'none.arrow' not in str(error.value)  # which may be a temporary file
    assert cfg.train_dataloader.dataset.pipeline[0].max_proposals == 0  # the config is not changed
