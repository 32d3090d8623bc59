import pytest
import torch
import torchvision.transforms.functional as TF

from projects.soco.models import photometric
from projects.soco.models.photometric import PhotometricPolicy, build_policies


@pytest.fixture
def images() -> torch.Tensor:
    return torch.rand(5, 3, 24, 20, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize('ours, theirs, amounts', [
    (photometric.adjust_brightness, TF.adjust_brightness, [0.6, 0.8, 1.0, 1.2, 1.4]),
    (photometric.adjust_contrast, TF.adjust_contrast, [0.6, 0.8, 1.0, 1.2, 1.4]),
    (photometric.adjust_saturation, TF.adjust_saturation, [0.8, 0.9, 1.0, 1.1, 1.2]),
    (photometric.adjust_hue, TF.adjust_hue, [-0.1, -0.03, 0.0, 0.05, 0.1]),
])
def test_each_step_is_torchvisions_with_an_amount_per_image(images, ours, theirs, amounts):
    expected = torch.stack([theirs(image, amount) for image, amount in zip(images, amounts)])
    tolerance = 2e-3 if theirs is TF.adjust_contrast else 1e-4  # torchvision's grey weights: 3 digits
    torch.testing.assert_close(ours(images, torch.tensor(amounts)), expected, atol=tolerance, rtol=0)


def test_hue_leaves_grey_alone():
    grey = torch.linspace(0, 1, 16).view(1, 1, 4, 4).expand(1, 3, 4, 4)
    torch.testing.assert_close(photometric.adjust_hue(grey, torch.tensor([0.1])), grey)


def test_blur_is_torchvisions_inside_and_repeats_the_border(images):
    sigmas = torch.tensor([0.1, 0.5, 1.0, 1.5, 2.0])
    blurred = photometric.gaussian_blur(images, sigmas, max_sigma=2.0)
    padded = torch.nn.functional.pad(images, (6, ) * 4, mode='replicate')
    for image, sigma, ours in zip(padded, sigmas.tolist(), blurred):
        expected = TF.gaussian_blur(image, [13, 13], [sigma, sigma])[:, 6:-6, 6:-6]
        torch.testing.assert_close(ours, expected, atol=1e-5, rtol=0)


def test_solarize_and_grey(images):
    torch.testing.assert_close(photometric.solarize(images), TF.solarize(images, 128 / 255))
    grey = photometric.to_grey(images)
    torch.testing.assert_close(grey, TF.rgb_to_grayscale(images, 3), atol=1e-3, rtol=0)


def test_draws_have_the_recipes_distribution():
    policy = PhotometricPolicy(blur_prob=0.1, solarize_prob=0.2)
    params = policy.draw(torch.rand(20000, 13))
    amounts = params['amounts']
    for column, (low, high) in enumerate([(0.6, 1.4), (0.6, 1.4), (0.8, 1.2), (-0.1, 0.1)]):
        assert low <= amounts[:, column].min() and amounts[:, column].max() <= high
        assert amounts[:, column].mean() == pytest.approx((low + high) / 2, abs=0.01)
        assert amounts[:, column].std() == pytest.approx((high - low) / 12**0.5, rel=0.02)
    for name, share in [('jitter', 0.8), ('grey', 0.2), ('blur', 0.1), ('solarize', 0.2)]:
        assert params[name].float().mean() == pytest.approx(share, abs=0.015)
    assert 0.1 <= params['sigma'].min() and params['sigma'].max() <= 2.0
    # every one of the four steps comes first, second, third and last equally often
    for step in range(4):
        share = (params['order'] == step).float().mean(dim=0)
        assert share.tolist() == pytest.approx([0.25] * 4, abs=0.015)


def test_an_images_result_does_not_depend_on_its_batch(images):
    policy = PhotometricPolicy(blur_prob=0.5, solarize_prob=0.5, grey_prob=0.5)
    uniforms = torch.rand(5, 13)
    together = policy(images, uniforms)
    alone = torch.cat([policy(images[i:i + 1], uniforms[i:i + 1]) for i in range(5)])
    torch.testing.assert_close(together, alone)
    assert (together - images).abs().amax(dim=(1, 2, 3)).min() > 0.01


def test_the_order_of_the_steps_is_felt():
    image = torch.rand(1, 3, 8, 8)
    policy = PhotometricPolicy(jitter_prob=1.0, grey_prob=0.0, blur_prob=0.0)
    uniforms = torch.full((1, 13), 0.9)
    uniforms[0, 5:9] = torch.tensor([0.1, 0.2, 0.3, 0.4])  # brightness, contrast, saturation, hue
    amounts = [torch.tensor([1 + 0.4 * 0.8]), torch.tensor([1 + 0.4 * 0.8]),
               torch.tensor([1 + 0.2 * 0.8]), torch.tensor([0.1 * 0.8])]
    forward, backward = image, image
    for step, amount in zip(policy._steps, amounts):
        forward = step(forward, amount)
    for step, amount in reversed(list(zip(policy._steps, amounts))):
        backward = step(backward, amount)
    torch.testing.assert_close(policy(image, uniforms), forward)
    uniforms[0, 5:9] = torch.tensor([0.4, 0.3, 0.2, 0.1])
    torch.testing.assert_close(policy(image, uniforms), backward)
    assert (forward - backward).abs().max() > 0.01


def test_unknown_setting_names_the_view():
    with pytest.raises(ValueError, match=r'views\[1\].*blurr'):
        build_policies([dict(), dict(blurr=1)])
