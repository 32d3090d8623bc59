import torch
from syncs import HostSyncs
from torch.utils.data import default_collate

from projects.soco.datasets.colours import PhotometricPolicy
from projects.soco.models import ImageViewsPreprocessor, SoCoDataPreprocessor

MEAN, STD = [123.675, 116.28, 103.53], [58.395, 57.12, 57.375]
STILL = dict(jitter_prob=0.0, grey_prob=0.0, blur_prob=0.0)
LIVELY = [dict(), dict(blur_prob=0.5, solarize_prob=0.5), dict(blur_prob=0.1)]


def batch(views=(STILL, STILL, STILL), sizes=(16, 16, 8), n: int = 2, k: int = 3) -> dict:
    return dict(
        inputs=[torch.randint(0, 256, (n, 3, s, s), dtype=torch.uint8) for s in sizes],
        bboxes=torch.rand(n, len(sizes) - 1, 2, k, 4),
        cutouts=torch.zeros(n, len(sizes), k, 4, dtype=torch.int16),
        finest_levels=torch.zeros(n, len(sizes), dtype=torch.int64),
        colours=default_collate([PhotometricPolicy.of_views(views).colours(rows)
                                 for rows in torch.rand(n, len(sizes), 13).numpy()]))


def preprocessor() -> SoCoDataPreprocessor:
    return SoCoDataPreprocessor(MEAN, STD)


def test_normalises_rgb_from_bgr():
    data = batch()
    out = preprocessor()(data, training=True)
    for images, result in zip(data['inputs'], out['inputs']):
        rgb = images.flip(1).float()
        expected = (rgb - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)
        torch.testing.assert_close(result, expected, atol=1e-5, rtol=1e-5)
    assert (out['bboxes'] == data['bboxes']).all()


def test_cutouts_become_zero_after_normalisation():
    data = batch()
    data['cutouts'][0, 1, 0] = torch.tensor([2, 3, 7, 9])
    data['cutouts'][1, 2, 2] = torch.tensor([0, 0, 8, 1])
    plain = preprocessor()(dict(data, cutouts=torch.zeros_like(data['cutouts'])), True)['inputs']
    erased = preprocessor()(data, training=True)['inputs']
    expected = [view.clone() for view in plain]
    expected[1][0, :, 3:9, 2:7] = 0
    expected[2][1, :, 0:1, 0:8] = 0
    for a, b in zip(erased, expected):
        assert torch.equal(a, b)


def test_each_view_has_its_own_policy():
    data = batch([STILL, dict(STILL, grey_prob=1.0), STILL])
    out = preprocessor()(data, True)['inputs']
    grey = out[1] * torch.tensor(STD).view(3, 1, 1) + torch.tensor(MEAN).view(3, 1, 1)
    torch.testing.assert_close(grey[:, 0], grey[:, 2], atol=1e-3, rtol=0)
    assert (out[0] - preprocessor()(data, False)['inputs'][0]).abs().max() < 1e-5


def test_augments_in_training_only():
    data = batch([dict(blur_prob=1.0)] * 3)
    still = preprocessor()(dict(data, colours=batch()['colours']), True)['inputs'][0]
    assert (preprocessor()(data, training=False)['inputs'][0] - still).abs().max() < 1e-5
    assert (preprocessor()(data, training=True)['inputs'][0] - still).abs().max() > 0.1


def test_the_finest_levels_come_from_the_batch():
    data = batch()
    data['finest_levels'][:] = torch.tensor([1, 2, 0])
    assert preprocessor()(data, True)['finest_levels'] == [1, 2, 0]


def test_autocast_changes_nothing():
    """Mixed precision prepares the batch inside autocast, where a blur would run in half precision."""
    data = batch([dict(blur_prob=1.0)] * 3)
    moving = preprocessor()
    expected = moving(data, training=True)['inputs']
    with torch.autocast('cpu', dtype=torch.bfloat16):
        views = moving(data, training=True)['inputs']
    for view, other in zip(views, expected):
        assert view.dtype == torch.float32 and torch.equal(view, other)


def test_nothing_makes_the_host_wait(monkeypatch):
    """As on a GPU, the host never needs a result from the device."""
    monkeypatch.setattr(SoCoDataPreprocessor, 'is_compiled', lambda self, images: False)
    data = batch(LIVELY, n=6)
    data['cutouts'][0, 1, 0] = torch.tensor([2, 3, 7, 9])
    lively = preprocessor()
    given = [*data['colours'].values(), data['cutouts'], data['bboxes'], data['finest_levels']]
    with HostSyncs(given) as syncs:
        views = lively(data, training=True)['inputs']
    assert syncs.found == []
    with HostSyncs([]) as syncs:
        views[0][views[0] > 0].sum().item()
    assert len(syncs.found) == 2  # waiting is detected


def test_torchs_operations_prepare_what_the_kernel_prepares(device, monkeypatch):
    """Compares on the CPU and, if available, on a GPU."""
    data = batch(LIVELY, n=4)
    data['cutouts'][0, 1, 0] = torch.tensor([2, 3, 7, 9])
    lively = preprocessor()
    compiled = lively(data, training=True)['inputs']
    monkeypatch.setattr(SoCoDataPreprocessor, 'is_compiled', lambda self, images: False)
    views = lively.to(device)(data, training=True)['inputs']
    for view, other, images in zip(views, compiled, data['inputs']):
        assert view.device.type == device.type and view.shape == images.shape
        gaps = (view.cpu() - other).abs()  # the last bit may decide whether a value is inverted
        assert gaps.max() < 0.05 and (gaps > 1e-3).float().mean() < 1e-3


def test_pictures_of_the_views_are_the_photos():
    data = batch()
    prepare = preprocessor()
    for images, view in zip(data['inputs'], prepare(data, training=True)['inputs']):
        assert torch.equal(prepare.to_pixels(view), images.flip(1).permute(0, 2, 3, 1))


def test_image_views_are_soco_views_without_boxes():
    data = batch([dict(), dict(), dict()])
    views = ImageViewsPreprocessor(MEAN, STD)(data, training=True)
    expected = SoCoDataPreprocessor(MEAN, STD)(data, training=True)['inputs']
    assert set(views) == {'inputs', 'data_samples'} and views['data_samples'] is None
    assert all(torch.equal(a, b) for a, b in zip(views['inputs'], expected))


def test_a_network_for_bgr_sees_the_same_colours_in_its_own_order():
    """Colours are changed in RGB; mean and std are in the network's order."""
    data = batch(LIVELY, n=4)
    rgb = SoCoDataPreprocessor(MEAN, STD)
    bgr = SoCoDataPreprocessor(MEAN[::-1], STD[::-1], bgr_to_rgb=False)
    for training in (True, False):
        views = bgr(data, training)['inputs']
        for view, other in zip(views, rgb(data, training)['inputs']):
            assert torch.equal(view, other.flip(1))
            assert torch.equal(bgr.to_pixels(view), rgb.to_pixels(other))
