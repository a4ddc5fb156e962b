"""Adaptation to a photo's own blur."""

from __future__ import annotations

import copy

import pytest
import torch

from reblurkit.adaptation import adapt_to_blur
from reblurkit.errors import ArgumentError, ShapeError
from reblurkit.metrics import PSNR
from reblurkit.models import load_pretrained
from tests.blur.test_kernel_estimate import blurred, kernel_of, scene
from tests.conftest import PlainNet


def psnr(image, sharp):
    metric = PSNR()
    metric.update(image, sharp)
    return float(metric.compute())


@pytest.fixture(scope="module")
def photo():
    sharp = scene(seed=2, side=256, shapes=300)
    return blurred(sharp, kernel_of(15, 2), noise=0.004), sharp


def test_the_network_in_the_box_gains_on_a_shaken_photo(photo):
    blurry, sharp = photo
    network = load_pretrained().network.eval()
    before = copy.deepcopy(network.state_dict())
    state = torch.get_rng_state()
    adapted = adapt_to_blur(network, blurry, steps=8)
    assert bool(adapted.adapted)
    assert psnr(adapted.image, sharp) > psnr(adapted.plain, sharp) + 0.5
    assert adapted.losses[0, 1] < adapted.losses[0, 0]
    assert torch.equal(adapted.plain, network(blurry).clamp(0, 1))
    assert torch.equal(torch.get_rng_state(), state)
    for name, value in network.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_a_photo_without_one_blur_keeps_its_plain_image():
    sharp = scene(seed=6, side=320, shapes=400)
    line = torch.zeros(15, 15)
    line[7] = 1 / 15
    blurry = torch.cat([blurred(sharp, line)[..., :160], blurred(sharp, line.T)[..., 160:]], -1)
    adapted = adapt_to_blur(PlainNet(), blurry, steps=1, kernel_size=17, least_agreement=0.99)
    assert not adapted.adapted
    assert torch.equal(adapted.image, adapted.plain)
    assert adapted.losses[0, 0] == adapted.losses[0, 1]


def test_each_photo_of_a_batch_is_adapted_to_for_itself_also_in_inference_mode(photo):
    blurry = torch.cat([photo[0], photo[0].flip(-1)])
    options = {"steps": 2, "kernel_size": 15, "least_agreement": 0.0}
    with torch.inference_mode():
        together = adapt_to_blur(PlainNet(), blurry.clone(), **options)
    assert together.image.shape == blurry.shape
    assert together.agreement.shape == together.adapted.shape == (2,)
    torch.manual_seed(0)
    network = PlainNet()
    batch = adapt_to_blur(network, blurry, **options)
    for index in range(2):
        alone = adapt_to_blur(network, blurry[[index]], **options)
        torch.testing.assert_close(batch.image[[index]], alone.image, rtol=0, atol=1e-6)


def test_a_small_photo_gets_small_kernels():
    adapted = adapt_to_blur(PlainNet(), scene(side=88, shapes=40), steps=1, least_agreement=0.0)
    assert adapted.image.shape == (1, 3, 88, 88)


def test_a_rate_that_ruins_the_network_keeps_the_plain_image(photo):
    adapted = adapt_to_blur(PlainNet(), photo[0], steps=3, lr=1e30, kernel_size=15, least_agreement=0.0)
    assert torch.equal(adapted.image, adapted.plain)


@pytest.mark.parametrize(
    ("image", "options", "error", "message"),
    [
        (torch.rand(1, 3, 64, 64), {}, ShapeError, "at least 80 pixels a side"),
        (torch.rand(1, 3, 128, 128), {"kernel_size": 31}, ShapeError, "at least 248 pixels a side"),
        (torch.rand(1, 1, 128, 128), {}, ShapeError, "RGB photos"),
        (255 * torch.rand(1, 3, 128, 128), {}, ArgumentError, r"\[0, 1\]"),
        (torch.rand(1, 3, 128, 128), {"steps": 0}, ArgumentError, "`steps` must be a whole number"),
        (torch.rand(1, 3, 128, 128), {"lr": -1}, ArgumentError, "`lr` must be"),
        (torch.rand(1, 3, 128, 128), {"kernel_size": 8}, ArgumentError, "odd number of pixels"),
        (torch.rand(1, 3, 128, 128), {"least_agreement": 2}, ArgumentError, "`least_agreement`"),
    ],
)
def test_bad_input_gets_one_line(image, options, error, message):
    with pytest.raises(error, match=message):
        adapt_to_blur(PlainNet(), image, **options)
