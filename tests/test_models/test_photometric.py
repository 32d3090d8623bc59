import itertools

import numpy as np
import pytest
import torch
import torchvision.transforms.functional as TF
from official_data import colour_transform

from projects.soco.datasets.colours import PhotometricPolicy
from projects.soco.models import photometric
from projects.soco.models.photometric import Plan, augment


def plan_of(policy: PhotometricPolicy, uniforms: torch.Tensor) -> Plan:
    return Plan.from_colours({name: torch.from_numpy(values)
                              for name, values in policy.colours(uniforms.numpy()).items()})



@pytest.fixture
def images() -> torch.Tensor:
    return torch.rand(5, 3, 24, 20, generator=torch.Generator().manual_seed(1))


def blend_by(*form: float):
    """Return `blend` as a step with one amount f per image: each weight is `a + b * f`."""
    table = np.float32(form).reshape(3, 2)
    return lambda images, amounts: photometric.blend(
        images, as_weights(table[:, 0] + np.float32(amounts)[:, None] * table[:, 1]))


def as_weights(values) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float32).view(-1, 3, 1, 1, 1)


def turn_hue(images: torch.Tensor, amounts) -> torch.Tensor:
    return photometric.adjust_hue(images, torch.tensor(amounts, dtype=torch.float32).view(-1, 1, 1))


BRIGHTNESS = blend_by(0, 1, 0, 0, 0, 0)
CONTRAST = blend_by(0, 1, 0, 0, 1, -1)
SATURATION = blend_by(0, 1, 1, -1, 0, 0)


@pytest.mark.parametrize('ours, theirs, amounts', [
    (BRIGHTNESS, TF.adjust_brightness, [0.6, 0.8, 1.0, 1.2, 1.4]),
    (CONTRAST, TF.adjust_contrast, [0.6, 0.8, 1.0, 1.2, 1.4]),
    (SATURATION, TF.adjust_saturation, [0.8, 0.9, 1.0, 1.1, 1.2]),
    (turn_hue, TF.adjust_hue, [-0.5, -0.03, 0.0, 0.05, 0.1]),
])
def test_each_step_is_torchvisions_with_an_amount_per_image(images, ours, theirs, amounts):
    expected = torch.stack([theirs(image, amount) for image, amount in zip(images, amounts)])
    tolerance = 1e-4 if theirs in (TF.adjust_brightness, TF.adjust_hue) else 2e-3  # luma has 3 digits
    torch.testing.assert_close(ours(images, amounts), expected, atol=tolerance, rtol=0)


def test_hue_leaves_grey_alone():
    grey = torch.linspace(0, 1, 16).view(1, 1, 4, 4).repeat(1, 3, 1, 1)
    torch.testing.assert_close(turn_hue(grey.clone(), [0.1]), grey)


def test_blur_is_torchvisions_inside_and_repeats_the_border(images):
    sigmas = [0.1, 0.5, 1.0, 1.5, 2.0]
    padded = torch.nn.functional.pad(images, (8, ) * 4, mode='replicate')
    blurred = photometric.gaussian_blur(images, np.float32(sigmas))
    for image, sigma, ours in zip(padded, sigmas, blurred):
        expected = TF.gaussian_blur(image, [17, 17], [sigma, sigma])[:, 8:-8, 8:-8]
        torch.testing.assert_close(ours, expected, atol=0.5 / 255, rtol=0)  # half a grey level


@pytest.mark.parametrize('settings', [dict(), dict(blur_prob=0.4, solarize_prob=0.5, grey_prob=0.5)])
def test_the_compiled_way_is_the_same(settings):
    generator = torch.Generator().manual_seed(5)
    pixels = torch.randint(0, 256, (200, 3, 11, 16), dtype=torch.uint8, generator=generator)
    pixels[0] = 77  # grey, which has no hue
    plan = plan_of(PhotometricPolicy(**settings), torch.rand(200, 13, generator=generator))
    mean, scale = torch.rand(2, 1, 3, 1, 1, generator=generator)
    expected = (augment(pixels.float() / 255, plan) - mean) * scale
    painted = torch.empty_like(expected)
    photometric.paint_on_cpu(pixels, plan, mean, scale, painted)
    gaps = (painted - expected).abs()  # the last bit may decide on which side of 128 a value is
    assert gaps.max() < 0.01 and (gaps > 2e-5).float().mean() < 2e-4


def test_solarize_and_grey(images):
    images[0, 0, 0, :2] = torch.tensor([127 / 255, 128 / 255])
    torch.testing.assert_close(photometric.solarize(images.clone()), TF.solarize(images, 128 / 255))
    grey = photometric.blend(images.clone(), as_weights([[0, 1, 0]] * 5))
    torch.testing.assert_close(grey, TF.rgb_to_grayscale(images, 3), atol=1e-3, rtol=0)


def test_draws_have_the_recipes_distribution():
    policy = PhotometricPolicy(blur_prob=0.1, solarize_prob=0.2)
    params = policy.draw(np.random.default_rng(0).random((20000, 13), dtype=np.float32))
    amounts = params['amounts']
    for column, (low, high) in enumerate([(0.6, 1.4), (0.6, 1.4), (0.8, 1.2), (-0.1, 0.1)]):
        assert low <= amounts[:, column].min() and amounts[:, column].max() <= high
        assert amounts[:, column].mean() == pytest.approx((low + high) / 2, abs=0.01)
        assert amounts[:, column].std() == pytest.approx((high - low) / 12**0.5, rel=0.02)
    for name, share in [('jitter', 0.8), ('grey', 0.2), ('blur', 0.1), ('solarize', 0.2)]:
        assert params[name].mean() == pytest.approx(share, abs=0.015)
    assert params['sigma'].min() >= 0.1 and params['sigma'].max() <= 2.0
    # each of the four steps is first, second, third and last equally often
    for step in range(4):
        share = (params['order'] == step).mean(axis=0)
        assert share.tolist() == pytest.approx([0.25] * 4, abs=0.015)


def test_an_images_result_does_not_depend_on_its_batch(images):
    policy = PhotometricPolicy(blur_prob=0.5, solarize_prob=0.5, grey_prob=0.5)
    uniforms = torch.rand(5, 13, generator=torch.Generator().manual_seed(2))
    together = augment(images.clone(), plan_of(policy, uniforms))
    alone = torch.cat([augment(images[i:i + 1].clone(), plan_of(policy, uniforms[i:i + 1]))
                       for i in range(5)])
    torch.testing.assert_close(together, alone)
    assert (together - images).abs().amax(dim=(1, 2, 3)).min() > 0.01


@pytest.mark.parametrize('order', itertools.permutations(range(4)))
def test_the_steps_come_in_their_order(order):
    image = torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(sum(order[:2])))
    policy = PhotometricPolicy(jitter_prob=1.0, grey_prob=0.0, blur_prob=0.0)
    uniforms = torch.full((1, 13), 0.9)
    uniforms[0, 5:9] = torch.tensor(order).argsort() / 4
    expected = image.clone()
    steps = (BRIGHTNESS, CONTRAST, SATURATION, turn_hue)
    amounts = (1 + 0.4 * 0.8, 1 + 0.4 * 0.8, 1 + 0.2 * 0.8, 0.1 * 0.8)
    for step in order:
        expected = steps[step](expected, [amounts[step]])
    torch.testing.assert_close(augment(image, plan_of(policy, uniforms)), expected)


def test_nothing_at_probability_zero(images):
    policy = PhotometricPolicy(jitter_prob=0.0, grey_prob=0.0, blur_prob=0.0)
    assert torch.equal(augment(images.clone(), plan_of(policy, torch.rand(5, 13))), images)


def test_unknown_setting_names_the_view():
    with pytest.raises(ValueError, match=r'views\[1\].*blurr'):
        PhotometricPolicy.of_views([dict(), dict(blurr=1)])


def describe(images: torch.Tensor) -> dict[str, torch.Tensor]:
    """Return colour statistics (N,): one for each quantity that a step changes."""
    r, g, b = images.unbind(dim=1)
    luma = 0.299 * r + 0.587 * g + 0.114 * b
    value, low = images.amax(dim=1), images.amin(dim=1)
    opponent = torch.stack([r - (g + b) / 2, (g - b) * 3**0.5 / 2]).mean(dim=(2, 3))
    return dict(
        brightness=luma.mean(dim=(1, 2)), contrast=luma.std(dim=(1, 2)) / luma.mean(dim=(1, 2)),
        saturation=(value - low).mean(dim=(1, 2)) / value.mean(dim=(1, 2)),
        hue=torch.atan2(opponent[1], opponent[0] + (opponent.abs().amax(dim=0) < 1e-3)),
        sharpness=luma.diff(dim=2).abs().mean(dim=(1, 2)) / luma.std(dim=(1, 2)).clamp_min(1e-3))


# PIL truncates after each step, so it ends one or two grey levels darker; its hue has 255 steps.
ROUNDING = dict(brightness=2 / 255, contrast=0.01, saturation=0.01, hue=0.02, sharpness=0.005)


@pytest.mark.parametrize('settings', [
    dict(), dict(blur_prob=0.1, solarize_prob=0.2),
    # without the other steps, which would hide a range that is too narrow
    dict(jitter_prob=1.0, grey_prob=0.0, blur_prob=0.0),
    dict(jitter_prob=1.0, grey_prob=0.0, blur_prob=0.0, brightness=0.0, contrast=0.0, hue=0.0)
])
def test_the_official_augmentation_has_the_same_distribution(settings):
    """Compares means, spreads and quantiles with torchvision and PIL on the same picture."""
    generator = torch.Generator().manual_seed(3)
    coarse = torch.rand(1, 3, 8, 8, generator=generator) * torch.tensor([0.9, 0.6, 0.4]).view(3, 1, 1)
    picture = torch.nn.functional.interpolate(coarse, (24, 24), mode='nearest')
    picture = (picture * 255).round().div(255)
    uniforms = torch.rand(6000, 13, generator=generator)
    ours = augment(picture.repeat(6000, 1, 1, 1), plan_of(PhotometricPolicy(**settings), uniforms))
    official = colour_transform(**settings)
    image = TF.to_pil_image(picture[0])
    theirs = torch.stack([TF.to_tensor(official(image)) for _ in range(2000)])
    theirs = describe(theirs)
    for name, own in describe(ours).items():
        spread, slack = theirs[name].std(), ROUNDING[name]
        assert abs(own.mean() - theirs[name].mean()) < 0.1 * spread + slack, name
        assert abs(own.std() - spread) < 0.12 * spread + slack / 4, name
        levels = torch.tensor([0.1, 0.25, 0.5, 0.75, 0.9])
        gaps = (own.quantile(levels) - theirs[name].quantile(levels)).abs()
        assert gaps.max() < 0.15 * spread + slack, (name, gaps / spread)
