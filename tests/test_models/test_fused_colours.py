"""The compiled colours against plain torch, and what happens where they cannot be had."""
import numpy as np
import pytest
import torch

from projects.soco.datasets.colours import PhotometricPolicy
from projects.soco.evaluation.rehearsal import HostTensors, pretend_gpu
from projects.soco.models import fused_colours
from projects.soco.models.data_preprocessor import SoCoDataPreprocessor
from projects.soco.models.fused_colours import FusedColours
from projects.soco.models.photometric import Plan, augment, mix


@pytest.fixture(scope='module')
def batch() -> tuple[torch.Tensor, Plan]:
    """64 images with every operation in every place."""
    generator = torch.Generator().manual_seed(5)
    images = torch.rand(64, 3, 9, 8, generator=generator)
    images[0] = 0.3  # grey, which has no hue
    colours = PhotometricPolicy(blur_prob=0.4, solarize_prob=0.5, grey_prob=0.5).colours(
        np.random.default_rng(5).random((64, 13), dtype=np.float32))
    plan = Plan.from_colours({name: torch.from_numpy(values) for name, values in colours.items()})
    assert plan.mixes.any(axis=(0, 2)).all() and plan.hue.any()
    return images, plan


@pytest.fixture
def warnings(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    told: list[str] = []
    monkeypatch.setattr(fused_colours, 'print_log', lambda message, *args: told.append(message))
    return told


@pytest.mark.slow
def test_the_compiled_graph_is_the_plain_way(batch, warnings):
    """Without the code of the last step, which takes a compiler; `tools/gpu_check.sh` has that."""
    images, plan = batch
    fused = FusedColours(backend='aot_eager')
    first, again = (augment(images.clone(), plan, fused) for _ in range(2))
    expected = augment(images.clone(), plan)
    assert fused.compiled is not None and fused.checked == {images.shape} and warnings == []
    assert torch.equal(first, again)
    gaps = (first - expected).abs()  # the last bit may decide on which side of 128 a value is
    assert gaps.max() < 1 and (gaps > 2e-5).float().mean() < 2e-4
    other = Plan(plan.weights.flip(0), -plan.shifts, *plan[2:])  # no plan is part of the graph
    torch.testing.assert_close(fused(images.clone(), other),
                               fused_colours.mix_all(images.clone(), other.weights, other.shifts))


@pytest.mark.parametrize('compiled, reason', [
    (lambda images, *plan: images.zero_(), 'differs by'),
    (lambda images, *plan: images.mul_(float('nan')), 'differs by nan'),
    (lambda images, *plan: images.zero_() and 1 / 0, 'RuntimeError')])
def test_plain_torch_takes_over(batch, warnings, monkeypatch, compiled, reason):
    images, plan = batch
    monkeypatch.setattr(torch, 'compile', lambda *args, **kwargs: compiled)
    fused = FusedColours()
    for _ in range(2):
        assert torch.equal(fused(images.clone(), plan), mix(images.clone(), plan))
    assert len(warnings) == 1 and reason in warnings[0] and 'compile_colours=False' in warnings[0]


@pytest.mark.parametrize('device', ['cpu', 'cuda'])
def test_only_training_on_a_gpu_compiles(device, monkeypatch):
    calls = []
    monkeypatch.setattr(FusedColours, '__call__', lambda self, *args: calls.append(1) or mix(*args))
    monkeypatch.setattr(SoCoDataPreprocessor, 'is_compiled', staticmethod(lambda images: False))
    data = dict(cutouts=torch.zeros(2, 1, 1, 4), colours=dict(
        weights=torch.tensor([1., 0, 0]).repeat(2, 1, 7, 1), shifts=torch.zeros(2, 1),
        sigmas=torch.zeros(2, 1), solarize=torch.zeros(2, 1, dtype=torch.bool)))
    for on, training in ((True, True), (True, False), (False, True)):
        preprocessor = SoCoDataPreprocessor([0.] * 3, [1.] * 3, compile_colours=on).train(training)
        calls.clear()
        with pretend_gpu() as fake, HostTensors(fake):
            images, out = (torch.zeros(2, 3, 4, 4, dtype=dtype, device=device)
                           for dtype in (torch.uint8, torch.float32))
            for name in ('mean', 'scale'):
                setattr(preprocessor, name, torch.ones(1, 3, 1, 1, device=device))
            preprocessor.prepare(images, 0, data, out)
        assert len(calls) == (device == 'cuda' and training and on), (on, training)
