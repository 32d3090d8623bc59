"""What the quickstart with annotations chooses: the detector, the lengths and the photos."""
from pathlib import Path

import pytest
import torch
from small import make_photos, write_set

from projects.soco.detectors.build import build_detector
from projects.soco.detectors.read import read_detector
from projects.soco.proposals.sources import open_source
from projects.soco.study.inputs import read_annotations
from projects.soco.study.own_photos import (
    OWN_PHOTOS,
    Plan,
    as_list,
    choose_detector,
    lengths,
    settle_plan,
    unlabelled_photos,
)


@pytest.mark.slow
@pytest.mark.parametrize('name', ['r18', 'r50'])
def test_the_detector_is_the_one_that_the_weights_fit(tmp_path: Path, name: str):
    model = build_detector(read_detector(OWN_PHOTOS.format(name))[0])[0]
    state = {key: value for key, value in model.state_dict().items() if key.startswith('backbone.')}
    torch.save(dict(state_dict=state), tmp_path / 'mine.pth')
    if name == 'r50':
        with pytest.raises(ValueError, match='mine.pth fits .*r50_fpn.py, which needs a GPU'):
            choose_detector(tmp_path / 'mine.pth', cuda=False)
        return
    path, why = choose_detector(tmp_path / 'mine.pth', cuda=False)
    assert path == OWN_PHOTOS.format(name) and 'mine.pth fits it' in why


def test_other_weights_are_refused_and_no_weights_choose_the_size_for_a_cpu(tmp_path: Path):
    torch.save(dict(state_dict={'backbone.conv1.weight': torch.zeros(3, 3)}), tmp_path / 'odd.pth')
    with pytest.raises(ValueError, match='odd.pth fits none of the detectors for own photos'):
        choose_detector(tmp_path / 'odd.pth', cuda=True)
    assert choose_detector(None, cuda=False)[0] == OWN_PHOTOS.format('effnetlite0')


def test_lengths_are_those_of_the_configs_or_fit_a_quarter_of_an_hour():
    assert lengths(300, 3, cuda=True) == (35, 300)
    assert lengths(100, 2, cuda=False) == (32, 150)
    assert lengths(300, 3, cuda=False) == (10, 100)
    assert lengths(100_000, 2, cuda=False)[0] == 1


def test_pretraining_sees_no_photo_of_val(tmp_path: Path):
    images, train, val = write_set(tmp_path)
    data = read_annotations(images, train, val, tmp_path / 'work')
    names, total = unlabelled_photos(data)
    assert names == [f'photo_{i:03}.png' for i in range(4)] and total == 8
    for i in range(4):
        (images / f'photo_{i:03}.png').unlink()
    with pytest.raises(ValueError, match='4 photos, and all but 0 of them are in .*val.json'):
        unlabelled_photos(data)


def test_any_name_of_a_photo_is_listed(tmp_path: Path):
    """A line that begins with # is a comment of the list, and spaces at its beginning are left out."""
    make_photos(tmp_path / 'photos', 3)
    names = ['#1.png', ' b.png', 'c d.png']
    for name, path in zip(names, sorted((tmp_path / 'photos').iterdir())):
        path.rename(path.with_name(name))
    (tmp_path / 'photos.txt').write_text(as_list(names))
    assert open_source(tmp_path / 'photos.txt', tmp_path / 'photos').names() == sorted(names)
    for name in ('a\n.png', 'a.png '):
        with pytest.raises(ValueError, match='a name that a list cannot contain'):
            as_list([name])


def test_a_folder_keeps_to_its_plan(tmp_path: Path):
    plan = Plan('photos', 'a', 'b', 'c', '', 'detector.py', 20, 150)
    settle_plan(tmp_path, plan)
    settle_plan(tmp_path, plan)
    with pytest.raises(ValueError, match='results of another train and iters .train b, iters 150.'):
        settle_plan(tmp_path, plan._replace(train='d', iters=100))
