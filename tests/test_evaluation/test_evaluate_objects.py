"""tools/evaluate_objects.py: tables, json and pictures of several models; wrong arguments."""
import importlib.util
import json
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from small import ROOT, make_photos, make_store, tiny_config

from projects.soco.evaluation.loading import build_model

SPEC = importlib.util.spec_from_file_location('evaluate_objects', ROOT / 'tools/evaluate_objects.py')


@pytest.fixture(scope='module')
def tool():
    module = importlib.util.module_from_spec(SPEC)
    SPEC.loader.exec_module(module)
    return module


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """A folder with a config, a checkpoint, photos, their store and annotations."""
    folder = tmp_path_factory.mktemp('tool')
    cfg = tiny_config(folder, photos=1)
    cfg.dump(folder / 'config.py')
    torch.save(dict(state_dict=build_model(cfg, seed=1).state_dict()), folder / 'epoch_1.pth')
    make_photos(folder / 'held_out', 4, seed=3)
    make_store(folder / 'held_out.arrow', folder / 'held_out', seed=3)
    images = [dict(id=i, file_name=f'photo_{i:03}.png', width=96, height=72) for i in range(4)]
    annotations = [dict(id=2 * i + c, image_id=i, category_id=c, bbox=[10 + 20 * c, 10, 40, 40 - 9 * i])
                   for i in range(4) for c in (0, 1)]
    categories = [dict(id=c, name=name) for c, name in enumerate(('cat', 'dog'))]
    (folder / 'marks.json').write_text(
        json.dumps(dict(images=images, annotations=annotations, categories=categories)))
    return folder


@pytest.fixture
def run(tool, folder, monkeypatch, capsys):
    def run_tool(*arguments: str, checkpoints: tuple = ('epoch_1.pth', ), photos: str = 'held_out'):
        paths = [str(folder / 'config.py'), *(str(folder / name) for name in checkpoints)]
        monkeypatch.setattr(sys, 'argv', ['evaluate_objects.py', *paths, '--images',
                                          str(folder / photos), *map(str, arguments)])
        tool.main()
        return capsys.readouterr().out

    return run_tool


@pytest.mark.slow(9)
def test_without_labels(run, folder, tmp_path):
    arguments = ('--random', '--proposals', folder / 'held_out.arrow', '--repeats', 1)
    told = run(*arguments, '--json', tmp_path / 'a.json', '--out', tmp_path / 'out', '--num-photos', 3,
               '--num-queries', 2)
    first = json.loads((tmp_path / 'a.json').read_text())
    assert list(first['models']) == ['random', 'epoch_1.pth']
    random, trained = first['models'].values()
    assert random['num_photos'] == trained['num_photos'] == 3 and random != trained
    for figures in (random, trained):
        assert f'{figures["top1"]:.1%}' in told and f'{figures["uniformity"]:.3f}' in told
    assert 'projection features' in told and 'view of another size' in told
    for name in ('random', 'epoch_1_pth'):
        assert np.asarray(Image.open(tmp_path / f'out/neighbours_{name}.png')).std() > 10
    run(*arguments, '--json', tmp_path / 'b.json', '--num-photos', 3)
    assert json.loads((tmp_path / 'b.json').read_text()) == first
    run(*arguments[1:], '--json', tmp_path / 'b.json', '--num-photos', 3, '--features', 'object')
    other = json.loads((tmp_path / 'b.json').read_text())
    assert list(other['models']) == ['epoch_1.pth'] and other['settings']['features'] == 'object'
    assert other['models']['epoch_1.pth']['top1'] != trained['top1']

    # the rank: of both networks, and without the projector where there may be none
    assert list(trained['ranks']) == ['object', 'projection', 'online object', 'online projection']
    assert list(other['models']['epoch_1.pth']['ranks']) == ['object', 'online object']
    rank = trained['ranks']['object']
    # twenty draws of the three photos that are asked for
    assert rank['num_objects'] == 319 and rank['dimensions'] == 256
    assert 1 <= rank['effective_rank'] < 256 and f'{rank["effective_rank"]:.1f}' in told
    assert told.count('Directions in which features differ') == 2


def test_boxes_are_made_where_none_are_given_and_unusable_photos_named(run, folder, tmp_path):
    photos = tmp_path / 'photos'
    make_photos(photos, 3, size=(160, 120))
    (photos / 'broken.jpg').write_bytes(b'no picture')
    told = run('--json', tmp_path / 'a.json', '--random', photos=photos, checkpoints=())
    result = json.loads((tmp_path / 'a.json').read_text())
    assert result['left_out'][0] == 'broken.jpg: not an image' and 'broken.jpg' in told
    assert result['models']['random']['num_photos'] == 3
    assert result['settings']['proposals'] == 'selective search'
    assert sorted(path.name for path in photos.iterdir()) == ['broken.jpg'] + [
        f'photo_{i:03}.png' for i in range(3)]  # the photos' folder is not changed


def test_with_labels(run, folder, tmp_path):
    arguments = ('--annotations', folder / 'marks.json', '--neighbours', 1, '--resamples', 100)
    told = run('--random', *arguments, '--json', tmp_path / 'a.json', '--out', tmp_path / 'out')
    first = json.loads((tmp_path / 'a.json').read_text())
    assert first['settings'] == dict(features='object', view_size=48, neighbours=1, resamples=100,
                                     batch_size=8, photos=4, objects=8, classes=2)
    for score in first['models'].values():
        figure = score['other_photos']['knn']
        assert figure['objects'] == 8 and 0 <= figure['low'] <= figure['value'] <= figure['high'] <= 1
        assert f'{figure["value"]:.1%} ({100 * figure["low"]:.1f}–{100 * figure["high"]:.1f})' in told
        assert set(score['classes']) == {'cat', 'dog'} and set(score['sizes']) == {
            'small', 'medium', 'large'}
    assert '1-NN' in told and 'cat' in told and 'medium' in told
    assert np.asarray(Image.open(tmp_path / 'out/neighbours_random.png')).std() > 10
    alone, larger = tmp_path / 'b.json', tmp_path / 'c.json'
    run(*arguments, '--json', alone)
    run(*arguments, '--json', larger, '--view-size', 64)
    backbone = tmp_path / 'd.json'
    run(*arguments, '--json', backbone, '--features', 'backbone')
    models = [json.loads(path.read_text())['models']['epoch_1.pth']
              for path in (alone, larger, backbone)]
    assert models[0] == first['models']['epoch_1.pth'] != models[1]
    assert models[2] != models[0]
    assert json.loads(backbone.read_text())['settings']['features'] == 'backbone'


@pytest.mark.parametrize('arguments, message', [
    (dict(checkpoints=()), 'no model to score. Pass checkpoints, or --random'),
    (dict(checkpoints=('gone.pth', )), 'no checkpoint at .*gone.pth'),
    (dict(checkpoints=('epoch_1.pth', 'epoch_1.pth')), 'epoch_1.pth is given twice'),
    (dict(photos='gone'), 'no images at .*gone'),
    (('--view-size', 64), '--view-size is only for scores with --annotations'),
    (('--annotations', 'x.json', '--features', 'projection'),
     '--features projection is only for scores without'),
    (('--features', 'backbone'), '--features backbone is only for scores with --annotations'),
    (('--num-photos', 0), '--num-photos must be at least 1, not 0'),
    (('--seed', -1), '--seed must be at least 0'),
    (('--device', 'cuda:77'), '--device cuda:77'), (('--device', 'abacus'), '--device abacus'),
    (('--json', '.'), 'is a folder'),
    (('--annotations', 'gone.json'), 'no file gone.json'),
    (('--proposals', 'gone.arrow'), 'no proposal store at gone.arrow')])
def test_what_users_get_wrong(run, arguments, message):
    named = arguments if isinstance(arguments, dict) else {}
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        run(*(() if named else arguments), **named)
