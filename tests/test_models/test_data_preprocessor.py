import pytest
import torch
from syncs import HostSyncs

from projects.soco.models import ImageViewsPreprocessor, SoCoDataPreprocessor

MEAN, STD = [123.675, 116.28, 103.53], [58.395, 57.12, 57.375]
STILL = dict(jitter_prob=0.0, grey_prob=0.0, blur_prob=0.0)


def batch(sizes=(16, 16, 8), n: int = 2, k: int = 3) -> dict:
    return dict(
        inputs=[torch.randint(0, 256, (n, 3, s, s), dtype=torch.uint8) for s in sizes],
        bboxes=torch.rand(n, len(sizes) - 1, 2, k, 4),
        cutouts=torch.zeros(n, len(sizes), k, 4, dtype=torch.int16),
        uniforms=torch.rand(n, len(sizes), 13))


def preprocessor(views=(STILL, STILL, STILL)) -> SoCoDataPreprocessor:
    return SoCoDataPreprocessor(MEAN, STD, list(views))


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
    data = batch()
    out = preprocessor([STILL, dict(STILL, grey_prob=1.0), STILL])(data, True)['inputs']
    grey = out[1] * torch.tensor(STD).view(3, 1, 1) + torch.tensor(MEAN).view(3, 1, 1)
    torch.testing.assert_close(grey[:, 0], grey[:, 2], atol=1e-3, rtol=0)
    assert (out[0] - preprocessor()(data, True)['inputs'][0]).abs().max() == 0


def test_augments_in_training_only():
    data = batch()
    moving = preprocessor([dict(blur_prob=1.0)] * 3)
    still = preprocessor()(data, True)['inputs'][0]
    assert (moving(data, training=False)['inputs'][0] - still).abs().max() < 1e-5
    assert (moving(data, training=True)['inputs'][0] - still).abs().max() > 0.1


def test_number_of_views_must_fit():
    with pytest.raises(ValueError, match='makes 3 views.*describes 2'):
        preprocessor([STILL, STILL])(batch(), True)


def test_autocast_changes_nothing():
    """Mixed precision prepares the batch inside autocast, where a blur would turn to half."""
    data = batch()
    moving = preprocessor([dict(blur_prob=1.0)] * 3)
    expected = moving(data, training=True)['inputs']
    with torch.autocast('cpu', dtype=torch.bfloat16):
        views = moving(data, training=True)['inputs']
    for view, other in zip(views, expected):
        assert view.dtype == torch.float32 and torch.equal(view, other)


def test_nothing_makes_the_host_wait(monkeypatch):
    """As on a GPU: no result of the device steers the host."""
    monkeypatch.setattr(SoCoDataPreprocessor, 'is_compiled', lambda self, images: False)
    data = batch(n=6)
    data['cutouts'][0, 1, 0] = torch.tensor([2, 3, 7, 9])
    lively = preprocessor([dict(), dict(blur_prob=0.5, solarize_prob=0.5), dict(blur_prob=0.1)])
    with HostSyncs([data['uniforms'], data['cutouts'], data['bboxes']]) as syncs:
        views = lively(data, training=True)['inputs']
    assert syncs.found == []
    with HostSyncs([]) as syncs:
        views[0][views[0] > 0].sum().item()
    assert len(syncs.found) == 2  # it would have been seen


def test_torchs_operations_prepare_what_the_kernel_prepares(device, monkeypatch):
    """On the CPU, and on a GPU where there is one."""
    data = batch(n=4)
    data['cutouts'][0, 1, 0] = torch.tensor([2, 3, 7, 9])
    lively = preprocessor([dict(), dict(blur_prob=0.5, solarize_prob=0.5), dict(blur_prob=0.1)])
    compiled = lively(data, training=True)['inputs']
    monkeypatch.setattr(SoCoDataPreprocessor, 'is_compiled', lambda self, images: False)
    views = lively.to(device)(data, training=True)['inputs']
    for view, other, images in zip(views, compiled, data['inputs']):
        assert view.device.type == device.type and view.shape == images.shape
        gaps = (view.cpu() - other).abs()  # a last bit may decide whether a value is inverted
        assert gaps.max() < 0.05 and (gaps > 1e-3).float().mean() < 1e-3


def test_pictures_of_the_views_are_the_photos():
    data = batch()
    prepare = preprocessor()
    for images, view in zip(data['inputs'], prepare(data, training=True)['inputs']):
        assert torch.equal(prepare.to_pixels(view), images.flip(1).permute(0, 2, 3, 1))


def test_image_views_are_soco_views_without_boxes():
    data = batch()
    views = ImageViewsPreprocessor(MEAN, STD, [dict(), dict(), dict()])(data, training=True)
    expected = SoCoDataPreprocessor(MEAN, STD, [dict(), dict(), dict()])(data, training=True)['inputs']
    assert set(views) == {'inputs', 'data_samples'} and views['data_samples'] is None
    assert all(torch.equal(a, b) for a, b in zip(views['inputs'], expected))
