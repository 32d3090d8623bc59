import pytest
import torch
from mmengine.registry import init_default_scope
from small import tiny_config

from projects.soco.evaluation import score_objects
from projects.soco.evaluation.objects import _distinct


@pytest.fixture(scope='module')
def parts(tmp_path_factory):
    cfg = tiny_config(tmp_path_factory.mktemp('objects'), photos=4)
    init_default_scope('mmselfsup')
    from mmselfsup.registry import DATASETS, MODELS
    torch.manual_seed(0)
    model = MODELS.build(cfg.model)
    return model, DATASETS.build(cfg.train_dataloader.dataset)


def test_boxes_that_overlap_by_more_than_half_count_once():
    boxes = torch.tensor([[0, 0, 10, 10], [0, 0, 10, 10], [0, 0, 10, 4], [0, 1, 10, 10.]])
    assert _distinct(boxes).tolist() == [True, False, True, False]


def test_the_score_is_a_function_of_the_seed_and_leaves_the_model_alone(parts):
    model, dataset = parts
    before = {key: value.clone() for key, value in model.state_dict().items()}
    first, again = (score_objects(model, dataset, seed=1) for _ in range(2))
    assert first == again
    assert first != score_objects(model, dataset, seed=2)
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    assert 0 <= first.top1 <= first.top1_same_photo <= 1 and first.num_objects > 8


class Answer(torch.nn.Module):
    """A model whose object features are what a test says."""

    def __init__(self, features) -> None:
        super().__init__()
        self.features = features

    def data_preprocessor(self, batch: dict, training: bool) -> dict:
        assert training
        return dict(inputs=batch['inputs'], bboxes=batch['bboxes'])

    def extract_feat(self, inputs, bboxes, target: bool) -> tuple:
        assert target
        return self.features(bboxes), None


def test_perfect_and_useless_features(parts):
    _, dataset = parts

    def perfect(bboxes):
        """Row k of photo n gets the same vector of its own in every view."""
        n, p, _, k, _ = bboxes.shape
        own = torch.eye(n * k).view(n, k, -1)
        return [own.expand(p, n, k, n * k)] + [own[None]] * p

    score = score_objects(Answer(perfect), dataset)
    assert score.top1 == score.top1_same_photo == 1
    assert score.spread > 0.9 and 0 < score.chance < 0.5

    def collapsed(bboxes):
        n, p, _, k, _ = bboxes.shape
        return [torch.ones(p, n, k, 3)] + [torch.ones(1, n, k, 3)] * p

    score = score_objects(Answer(collapsed), dataset)
    assert score.top1 == pytest.approx(score.chance) and score.spread == pytest.approx(0, abs=1e-3)
