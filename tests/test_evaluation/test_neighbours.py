"""Pictures of nearest neighbours: the objects, their crops, and the frame of correct matches."""
import numpy as np
import pytest
import torch
from mmengine.registry import MODELS, DefaultScope
from PIL import Image
from small import tiny_config

from projects.soco.evaluation import held_out_dataset, neighbours
from projects.soco.evaluation.annotated import LabelledPhotos
from projects.soco.evaluation.neighbours import (
    RIGHT,
    Tile,
    cut_box,
    draw_class_neighbours,
    draw_neighbours,
    draw_view_neighbours,
    spread_queries,
)
from projects.soco.evaluation.objects import embed_objects
from projects.soco.proposals.sources import open_source


def has(picture: np.ndarray, colour: tuple) -> bool:
    return bool((picture == np.array(colour, dtype=np.uint8)).all(axis=2).any())


def flat(*colour: int) -> np.ndarray:
    return np.full((20, 30, 3), colour, dtype=np.uint8)


def test_tiles_stand_in_a_row_and_only_the_right_one_is_framed():
    red, green, blue = (200, 0, 0), (0, 200, 0), (0, 0, 200)
    picture = draw_neighbours([([Tile(flat(*red), 'object')],
                                [Tile(flat(*green), '0.9'), Tile(flat(*blue), '0.8', True)])],
                              'title', 'note')
    where = [np.argwhere((picture == colour).all(axis=2)).mean(axis=0) for colour in (red, green, blue)]
    assert where[0][1] < where[1][1] < where[2][1] and np.ptp([y for y, _ in where]) < 1
    frame = np.argwhere((picture == RIGHT).all(axis=2))
    assert abs(frame.mean(axis=0) - where[2]).max() < 1
    plain = draw_neighbours([([Tile(flat(*red), 'object')], [Tile(flat(*green), '')])], 'title', 'note')
    assert not has(plain, RIGHT)
    long = draw_neighbours([([Tile(flat(*red), 'a name that is far too long for its tile')],
                             [Tile(flat(*green), '')])], 'title', 'note')
    assert long.shape == plain.shape and long.dtype == np.uint8


def test_boxes_are_cut_rounded_outwards_and_never_empty():
    picture = np.arange(10 * 8 * 3, dtype=np.uint8).reshape(10, 8, 3)
    assert np.array_equal(cut_box(picture, [1.5, 2.5, 3.2, 4.0]), picture[2:4, 1:4])
    for box in ([8, 10, 8, 10], [3, 3, 3, 3], [-5, -5, -4, -4], [7.9, 9.9, 20, 20]):
        assert cut_box(picture, box).shape == (1, 1, 3), box


def test_queries_are_of_different_photos():
    rows = torch.tensor([3, 3, 3, 5, 5, 9, 9, 9])
    assert spread_queries(rows, 8) == [1, 4, 6] and spread_queries(rows, 2) == [1, 6]


@pytest.fixture(scope='module')
def parts(tmp_path_factory):
    folder = tmp_path_factory.mktemp('neighbours')
    cfg = tiny_config(folder, photos=4)
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        model = MODELS.build(cfg.model)
    dataset = held_out_dataset(cfg, folder / 'photos', folder / 'proposals.arrow')
    return model, dataset, embed_objects(model, dataset, repeats=1, seed=3)[0]


def test_views_are_drawn_as_they_were_embedded(parts, monkeypatch):
    """With perfect features, the nearest is the object itself, framed, and cut from the same view."""
    model, dataset, objects = parts
    n = len(objects.rows)
    drawn = []
    monkeypatch.setattr(neighbours, 'draw_neighbours',
                        lambda rows, title, note: drawn.append((rows, title, note)))
    draw_view_neighbours(model, dataset, objects._replace(feats=torch.eye(n).expand(2, n, n)), seed=3,
                         num_queries=3, name='epoch_1.pth')
    (rows, title, note), = drawn
    assert len(rows) == 3 and title == 'epoch_1.pth: nearest objects in another view'
    assert f'nearest of {n} objects' in note and '48 pixels' in note
    for (query, itself), nearest in rows:
        assert len(nearest) == 5 and [tile.right for tile in nearest] == [True] + [False] * 4
        assert np.array_equal(nearest[0].crop, itself.crop) and nearest[0].caption == '1.000'
        assert itself.caption == 'itself, no. 1'
        assert not np.array_equal(query.crop, itself.crop)
    found = {tile.crop.tobytes() for (query, _), _ in rows for tile in [query]}
    batch = neighbours.default_collate([dataset[neighbours.SampleKey(int(objects.rows[0]),
                                                                     objects.key_epoch, 3)]])
    view = model.data_preprocessor(batch, True)['inputs'][0]
    picture = model.data_preprocessor.to_pixels(view)[0].numpy()
    first = spread_queries(objects.rows, 3)[0]
    assert cut_box(picture, objects.boxes[first, 0].tolist()).tobytes() in found


def test_the_place_of_an_object_that_is_missed(parts, monkeypatch):
    model, dataset, objects = parts
    n = len(objects.rows)
    drawn = []
    monkeypatch.setattr(neighbours, 'draw_neighbours', lambda rows, *texts: drawn.extend(rows))
    feats = torch.stack([torch.eye(n), -torch.eye(n)])  # each object is its own last neighbour
    draw_view_neighbours(model, dataset, objects._replace(feats=feats), seed=3, num_queries=2)
    for (_, itself), nearest in drawn:
        assert itself.caption == f'itself, no. {n}' and not any(tile.right for tile in nearest)


def test_classes_in_other_photos(tmp_path, monkeypatch):
    colours = [(200, 10, 10), (10, 200, 10), (10, 10, 200)]
    for i, colour in enumerate(colours):
        Image.new('RGB', (40, 30), colour).save(tmp_path / f'{i}.png')
    photos, classes = torch.tensor([0, 0, 1, 2]), torch.tensor([0, 1, 0, 1])
    boxes = torch.tensor([[2., 2, 12, 22]] * 4)
    found = LabelledPhotos(['0.png', '1.png', '2.png'], [], photos, boxes, boxes, classes,
                           torch.ones(4), ['cat', 'dog'], [])
    drawn = []
    monkeypatch.setattr(neighbours, 'draw_neighbours', lambda rows, *texts: drawn.extend(rows))
    feats = torch.nn.functional.normalize(torch.tensor([[1, 0], [1, .1], [1, .2], [0, 1.]]), dim=1)
    draw_class_neighbours(feats, found, open_source(tmp_path))
    for ([query], nearest), photo in zip(drawn, (0, 1, 2), strict=True):
        assert tuple(query.crop[0, 0]) == colours[photo] and query.crop.shape == (20, 10, 3)
        assert not query.right and all(tuple(t.crop[0, 0]) != colours[photo] for t in nearest)
    (_, of_dog), (_, of_cat), _ = drawn
    assert [(t.caption, t.right) for t in of_dog] == [('cat', False), ('dog', True)]
    assert [(t.caption, t.right) for t in of_cat] == [('dog', False), ('cat', True), ('dog', False)]
