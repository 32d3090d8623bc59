"""Tests that pictures of views show what the model got, and do not change training."""
import random
import subprocess
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.dataset import DefaultSampler
from mmengine.registry import VISBACKENDS
from mmengine.runner import Runner
from mmengine.visualization.vis_backend import BaseVisBackend
from PIL import Image
from scripts import PYTHON
from small import ROOT, assert_same, make_photos, make_store, tiny_config
from syncs import HostSyncs
from torch.utils.data import default_collate

from projects.soco.datasets import SampleKey
from projects.soco.engine import (
    ResumableBatchSampler,
    ViewDrawer,
    ViewPicturesHook,
)
from projects.soco.engine import (
    view_pictures_hook as view_pictures,
)
from projects.soco.models import SoCo
from projects.soco.weights.read import find_newest_checkpoint


@pytest.fixture
def drawn(monkeypatch) -> list[SimpleNamespace]:
    """The arguments of each call of `draw_views`."""
    calls, draw = [], view_pictures.draw_views

    def spy(photo, proposals, views, bboxes, levels, level_names, name):
        calls.append(SimpleNamespace(photo=photo, proposals=proposals, views=views, bboxes=bboxes,
                                     levels=levels, name=name))
        return draw(photo, proposals, views, bboxes, levels, level_names, name)

    monkeypatch.setattr(view_pictures, 'draw_views', spy)
    return calls


def recipe(name: str, folder: Path) -> Config:
    """Return a config on generated photos."""
    make_photos(folder / 'photos', 2, size=(300, 240))
    cfg = Config.fromfile(ROOT / f'configs/{name}.py')
    cfg.train_dataloader.dataset.update(
        data_root=str(folder / 'photos'),
        proposals=str(make_store(folder / 'proposals.arrow', folder / 'photos')))
    return cfg


@pytest.mark.parametrize('name, sizes, num', [
    ('soco_r50_fpn_star_400e', (224, 224, 192, 112), 4),
    ('soco_r50_fpn_without_p2_400e', (224, 224, 112), 4),
    ('soco_r50_c4_100e', (224, 224), 4),
    ('ablations/components_1_whole_image', (224, 224), 1),
    ('ablations/components_6_box_jitter', (224, 224), 4),
])
def test_every_recipe_is_drawn_without_its_network(name, sizes, num, tmp_path, drawn, monkeypatch):
    monkeypatch.setattr(SoCo, '__init__', None)
    cfg = recipe(name, tmp_path)
    picture = ViewDrawer.from_config(cfg).draw(SampleKey(1, epoch=3, seed=5))
    (seen, ) = drawn
    assert picture.dtype == np.uint8 and picture.std() > 20
    assert [view.shape for view in seen.views] == [(size, size, 3) for size in sizes]
    assert seen.bboxes.shape == (len(sizes) - 1, 2, num, 4) and seen.name == 'photo_001.png'
    if not cfg.model.neck:
        assert seen.levels is None
    elif name == 'soco_r50_fpn_without_p2_400e':
        assert seen.levels[:, 0].min() >= 1 and seen.levels[0, 1].min() >= 1
    else:
        size = np.sqrt(np.prod(seen.bboxes[..., 2:] - seen.bboxes[..., :2], axis=-1))
        assert (seen.levels == np.digitize(size, (48, 96, 192), right=True)).all()
    if name == 'ablations/components_1_whole_image':
        assert len(seen.proposals) == 0 and (seen.bboxes == (0, 0, 224, 224)).all()
    else:
        assert len(seen.proposals) == 6


def test_views_are_those_after_augmentation(tmp_path, drawn):
    cfg = recipe('soco_r50_fpn_100e', tmp_path)
    cfg.train_dataloader.dataset.pipeline[2].prob = 1.0
    drawer = ViewDrawer.from_config(cfg)
    key = SampleKey(0, epoch=2, seed=7)
    drawer.draw(key)
    sample = drawer.dataset[key]
    for v, view in enumerate(drawn[0].views):
        assert not np.array_equal(view, sample['inputs'][v].permute(1, 2, 0).flip(2).numpy())
    x1, y1, x2, y2 = sample['cutouts'][1, 0].tolist()
    erased = drawn[0].views[1][y1:y2, x1:x2].reshape(-1, 3)
    assert len(erased) and (erased == np.round(cfg.model.data_preprocessor.mean)).all()
    with Image.open(tmp_path / 'photos/photo_000.png') as photo:
        assert np.array_equal(drawn[0].photo, photo)


def test_a_picture_is_a_function_of_seed_epoch_and_photo(tmp_path):
    drawer = ViewDrawer.from_config(tiny_config(tmp_path, photos=2))
    key = SampleKey(1, epoch=2, seed=3)
    picture = drawer.draw(key)
    assert np.array_equal(picture, drawer.draw(key))
    for other in (key._replace(index=0), key._replace(epoch=3), key._replace(seed=4)):
        assert not np.array_equal(picture, drawer.draw(other))


def test_a_photo_that_is_decoded_small_has_its_proposals_in_its_pixels(tmp_path):
    cfg = recipe('soco_r50_fpn_100e', tmp_path)
    drawer = ViewDrawer.from_config(cfg)
    whole = drawer.dataset.read(SampleKey(0))['row'].boxes
    load = drawer.dataset.pipeline.transforms[0]
    drawer.dataset.pipeline.transforms[0] = lambda results: dict(
        load(results), img=results['img'][::2, ::2], reduction=2)
    photo, proposals = drawer.photo(SampleKey(0))
    assert photo.shape == (120, 150, 3)
    np.testing.assert_allclose(proposals, whole / 2)


def test_a_detector_has_no_views():
    cfg = Config.fromfile(ROOT / 'configs/benchmarks/mmdetection/coco/mask-rcnn_r18_fpn_quickstart.py')
    with pytest.raises(ValueError, match='does not pretrain with SoCo.*soco_r50_fpn_400e'):
        ViewDrawer.from_config(cfg)


@pytest.fixture
def step(tmp_path) -> SimpleNamespace:
    """A runner with a batch of three samples, and a visualizer that records."""
    drawer = ViewDrawer.from_config(tiny_config(tmp_path, photos=6))
    sampler = ResumableBatchSampler(DefaultSampler(drawer.dataset, seed=3), 3)
    keys = list(sampler)[1]
    shown, told = [], []
    model = SimpleNamespace(data_preprocessor=drawer.preprocessor, box_levels=drawer.levels_of,
                            level_names=drawer.level_names)
    runner = SimpleNamespace(
        iter=0, model=model, logger=SimpleNamespace(warning=told.append),
        train_dataloader=SimpleNamespace(dataset=drawer.dataset, batch_sampler=sampler),
        visualizer=SimpleNamespace(add_image=lambda *args, **kwargs: shown.append((args, kwargs))))
    data = default_collate([drawer.dataset[key] for key in keys])
    return SimpleNamespace(runner=runner, model=model, data=data, keys=keys, shown=shown, told=told,
                           drawer=drawer)


def iterate(hook: ViewPicturesHook, step: SimpleNamespace, i: int) -> dict:
    step.runner.iter = i
    hook.before_train_iter(step.runner, 1, step.data)
    prepared = step.model.data_preprocessor(step.data, True)
    hook.after_train_iter(step.runner, 1, step.data, {})
    return prepared


def test_the_hook_shows_the_batch_of_its_iteration(step, drawn):
    hook = ViewPicturesHook(interval=3, num=2)
    for i in range(6):
        states = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()
        prepared = iterate(hook, step, i)
        assert torch.equal(torch.get_rng_state(), states[0])
        assert (np.random.get_state()[1].tolist(), random.getstate()) == states[1:]
        assert not step.model.data_preprocessor._forward_hooks and not hook._seen
    assert [(args[0], kwargs) for args, kwargs in step.shown] == [('views', dict(step=3)),
                                                                 ('views', dict(step=6))]
    assert len(drawn) == 4
    for i, seen in enumerate(drawn[:2]):
        assert seen.name == step.drawer.dataset.image_name(step.keys[i])
        assert torch.equal(torch.from_numpy(seen.bboxes), prepared['bboxes'][i])
        for view, given in zip(seen.views, prepared['inputs']):
            assert torch.equal(torch.from_numpy(view), step.model.data_preprocessor.to_pixels(given)[i])


def test_idle_iterations_do_nothing(step):
    hook = ViewPicturesHook(interval=3)
    never = ViewPicturesHook(interval=0)
    with HostSyncs([]) as syncs:
        for quiet in (hook, never):
            for i in (0, 1, 3, 4):
                step.runner.iter = i
                quiet.before_train_iter(step.runner, 1, step.data)
                assert not step.model.data_preprocessor._forward_hooks
                quiet.after_train_iter(step.runner, 1, step.data, {})
    assert syncs.found == [] and step.shown == []


def test_a_photo_that_is_gone_ends_no_run(step, tmp_path):
    for photo in (tmp_path / 'photos').iterdir():
        photo.unlink()
    iterate(ViewPicturesHook(interval=1), step, 0)
    assert step.shown == [] and len(step.told) == 1
    assert 'No picture of the views after iteration 1' in step.told[0] and '.png' in step.told[0]


@pytest.mark.parametrize('wrong', [dict(interval=-1), dict(num=0)])
def test_settings_are_checked(wrong):
    with pytest.raises(ValueError, match='ViewPicturesHook: interval'):
        ViewPicturesHook(**wrong)


@VISBACKENDS.register_module()
class RecordingVisBackend(BaseVisBackend):
    """A visualizer backend that records its images."""

    images: list = []

    def _init_env(self) -> None:
        pass

    @property
    def experiment(self) -> None:
        return None

    def add_config(self, config, **kwargs) -> None:
        pass

    def add_image(self, name, image, step=0, **kwargs) -> None:
        self.images.append((name, image, step))


def train(folder: Path, interval: int) -> dict:
    """Train 4 iterations; return the checkpoint."""
    cfg = tiny_config(folder, photos=8, **{
        'train_cfg.max_epochs': 1, 'default_hooks.views.interval': interval,
        'default_hooks.views.num': 1, 'experiment_name': folder.name})
    cfg.visualizer.vis_backends.append(dict(type='RecordingVisBackend'))
    Runner.from_cfg(cfg).train()
    return torch.load(find_newest_checkpoint(cfg.work_dir), weights_only=True)


@pytest.mark.slow
def test_training_is_the_same_to_the_bit_with_pictures(tmp_path):
    RecordingVisBackend.images.clear()
    without, with_pictures = train(tmp_path / 'without', 0), train(tmp_path / 'with', 2)
    for key in ('state_dict', 'optimizer', 'param_schedulers'):
        assert_same(without[key], with_pictures[key], key)
    assert not list((tmp_path / 'without').rglob('views_*.png'))
    written = sorted((tmp_path / 'with/work').glob('*/vis_data/vis_image/*.png'))
    assert [path.name for path in written] == ['views_2.png', 'views_4.png']
    recorded = RecordingVisBackend.images
    assert [(name, step) for name, _, step in recorded] == [('views', 2), ('views', 4)]
    for path, (_, image, _) in zip(written, recorded):
        with Image.open(path) as picture:
            assert np.array_equal(picture, image)


@pytest.mark.slow
def test_the_tool_writes_a_picture_a_photo(tmp_path):
    make_photos(tmp_path / 'photos', 5)
    make_store(tmp_path / 'proposals.arrow', tmp_path / 'photos')

    def browse(*arguments: str) -> subprocess.CompletedProcess:
        return subprocess.run(
            [PYTHON, ROOT / 'tools/browse_views.py',
             ROOT / 'configs/soco_r18_fpn_quickstart.py', '--num', '3', *arguments,
             '--cfg-options', 'train_dataloader.dataset.data_root=photos',
             'train_dataloader.dataset.proposals=proposals.arrow'],
            text=True, capture_output=True, cwd=tmp_path)

    done = browse()
    assert done.returncode == 0, done.stderr
    folder = 'work_dirs/soco_r18_fpn_quickstart/views'
    assert '3 of 5 photos, epoch 0, seed 0' in done.stdout and f'{folder}/views_*.png' in done.stdout
    assert sorted(path.name for path in (tmp_path / folder).iterdir()) == [
        'views_0.png', 'views_2.png', 'views_4.png']
    failed = browse('--out', 'proposals.arrow')
    assert failed.returncode == 2 and 'proposals.arrow is a file' in failed.stderr
