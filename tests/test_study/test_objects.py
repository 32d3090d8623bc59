"""The networks that arms start from, and their object scores."""
import json
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from small import make_photos, make_store, tiny_config

from projects.soco.evaluation.annotated import embed_labelled, read_labelled
from projects.soco.evaluation.class_score import score_labelled
from projects.soco.evaluation.loading import build_model
from projects.soco.evaluation.objects import ViewObjects, held_out_dataset, score_objects
from projects.soco.proposals.sources import open_source
from projects.soco.study.objects import _overlaps, build_arm, judge


@pytest.fixture
def cfg(tmp_path: Path) -> Config:
    return tiny_config(tmp_path / 'tiny', photos=4)


def part(model: torch.nn.Module, *names: str) -> dict[str, torch.Tensor]:
    return {key: value for key, value in model.state_dict().items() if key.startswith(names)}


def test_an_arm_has_its_parts_and_is_random_elsewhere(cfg: Config):
    trained, random = build_model(cfg, None, 7), build_model(cfg, None, 0)
    arm = build_arm(cfg, 0, part(trained, 'backbone.'))
    for network in ('', 'target.'):
        for name, source in (('backbone.', trained), ('neck.', random), ('roi_head.', random)):
            ours = part(arm, network + name)
            assert ours and all(torch.equal(value, source.state_dict()[key.removeprefix('target.')])
                                for key, value in ours.items()), network + name


def test_the_seed_is_that_of_what_is_random(cfg: Config):
    first, again, other = (build_arm(cfg, seed, {}) for seed in (0, 0, 1))
    weights = [model.neck.lateral_convs[0].conv.weight for model in (first, again, other)]
    assert torch.equal(weights[0], weights[1]) and not torch.equal(weights[0], weights[2])


def test_parts_that_do_not_fit_are_refused(cfg: Config):
    state = part(build_model(cfg, None, 0), 'backbone.')
    with pytest.raises(ValueError, match='backbone.conv1.weight does not match'):
        build_arm(cfg, 0, dict(list(state.items())[3:]))
    with pytest.raises(ValueError, match='backbone.more is not in the network'):
        build_arm(cfg, 0, {**state, 'backbone.more': torch.zeros(1)})


def test_values_are_those_of_evaluate_objects(cfg: Config, tmp_path: Path):
    make_photos(tmp_path / 'photos', 4)
    rows = [(i, 1 + (i + j) % 2, [4 + 30 * j, 6, 28, 40]) for i in range(4) for j in range(2)]
    (tmp_path / 'marks.json').write_text(json.dumps(dict(
        images=[dict(id=i, file_name=f'photo_{i:03}.png', width=96, height=72) for i in range(4)],
        categories=[dict(id=1, name='a'), dict(id=2, name='b')],
        annotations=[dict(id=n, image_id=i, category_id=c, bbox=box)
                     for n, (i, c, box) in enumerate(rows)])))
    labelled = read_labelled(tmp_path / 'marks.json', open_source(tmp_path / 'photos'), 48)
    store = make_store(tmp_path / 'a.arrow', tmp_path / 'photos')
    views = held_out_dataset(cfg, tmp_path / 'photos', store)
    model = build_arm(cfg, 0, {})
    values, samples = judge(model, labelled, 0, 25, views)
    for features in ('object', 'backbone'):
        score = score_labelled(embed_labelled(model, labelled, features=features), labelled, 5)
        assert values[f'knn_{features}'] == pytest.approx(score.other_photos['knn'].value)
        assert values[f'knn_classes_{features}'] == pytest.approx(
            score.other_photos['knn_classes'].value)
        assert values[f'map_{features}'] == pytest.approx(score.other_photos['map'].value)
    again = score_objects(model, views, 1000, 1, seed=0, features='object')
    assert values['found_again'] == pytest.approx(again.top1)
    assert values['found_again_own'] == pytest.approx(again.top1_same_photo)
    assert samples.keys() == values.keys()
    assert all(sample.shape == (25, ) for sample in samples.values())


def test_place_is_the_overlap_with_the_nearest_object_of_another_photo():
    same, far = [0., 0., 10., 10.], [50., 50., 60., 60.]
    half = [0., 0., 10., 5.]
    objects = ViewObjects(
        0, 1, (64, 64), torch.tensor([0, 0, 1, 2]),
        torch.tensor([[same, same], [far, far], [same, half], [far, far]]),
        # nearest to the first: itself, then the second (same photo), then the third
        torch.tensor([[[1., 0.], [0.9, 0.1], [0.8, 0.2], [0., 1.]]] * 2), 0.)
    place, chance = _overlaps(objects)
    assert place.tolist() == [0.5, 0, 1, 0]
    assert chance.tolist() == pytest.approx([0.25, 0.5, 1 / 3, 1 / 3])
