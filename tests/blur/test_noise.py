from __future__ import annotations

import numpy as np
import pytest
import torch
from kornia.enhance import jpeg_codec_differentiable
from scipy.stats import kstest
from skimage import data

from reblurkit.blur import CameraNoise
from reblurkit.errors import ArgumentError, ShapeError


def encoded(light):
    return 12.92 * light if light <= 0.0031308 else 1.055 * light ** (1 / 2.4) - 0.055


def decoded(image):
    return np.where(image > 0.04045, ((image + 0.055) / 1.055) ** 2.4, image / 12.92)


def gains(noise, light, shot, read, seeds):
    """Of every image the deviation of its noise in linear light, over what the formula says for a gain of 1."""
    value = encoded(light)
    images = torch.full((len(seeds), 3, 48, 48), value, dtype=torch.float64)
    noisy = decoded(noise.degrade(images, seeds).numpy())
    assert noisy.mean() == pytest.approx(light, rel=0.01)
    step = float(decoded(np.array(value + 1 / 255)) - light)  # rounding to 8 bits adds a twelfth of a level's square
    variance = noisy.var((1, 2, 3)) - step**2 / 12
    return np.sqrt(variance.clip(0) / (read**2 + shot**2 * light))


@pytest.mark.parametrize(("shot", "read"), [(0.08, 0.001), (0.0, 0.03), (0.05, 0.03)])
def test_the_variance_in_linear_light_is_as_stated(shot, read):
    noise, seeds = CameraNoise(shot, read), list(range(60))
    dark, bright = (gains(noise, light, shot, read, seeds) for light in (0.2, 0.5))
    for gain in (dark, bright):
        assert kstest(gain.clip(0, 1), "uniform").pvalue > 0.05
    strong = dark > 0.2  # of weaker noise the rounding is most
    np.testing.assert_allclose(dark[strong], bright[strong], rtol=0.08)


def test_without_noise_images_are_rounded_to_8_bits():
    image = torch.rand(2, 3, 9, 11)
    noisy = CameraNoise(shot=0, read=0)(image)
    torch.testing.assert_close(noisy, (image * 255).round() / 255, rtol=0, atol=1e-7)


@pytest.mark.parametrize("quality", [30, 90])
def test_a_jpeg_is_that_of_kornia(quality):
    """Kornia computes blocks and tables itself, with a smooth rounding; grey, as it enlarges colours differently."""
    photo = torch.from_numpy(data.coffee()[:112, :96].copy()).double().mean(-1).round().expand(1, 3, -1, -1) / 255
    ours = CameraNoise(shot=0, read=0, jpeg=(quality, quality), jpeg_share=1)(photo)

    def error(other):
        return (ours - jpeg_codec_differentiable(photo, torch.tensor([float(other)]).double())).abs().mean()

    assert error(quality) < 0.6 * min(error(quality - 10), error(quality + 5), (ours - photo).abs().mean())


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_the_gpu_gives_nearly_the_same_jpeg():
    photo = torch.from_numpy(data.coffee()[:112, :96].copy()).permute(2, 0, 1)[None] / 255
    jpeg = CameraNoise(shot=0, read=0, jpeg=(60, 60), jpeg_share=1)
    on_cpu, on_gpu = jpeg(photo), jpeg(photo.cuda()).cpu()
    assert (on_cpu - on_gpu).abs().mean() < 0.5 * (on_cpu - photo).abs().mean()


def test_share_and_quality_of_jpegs():
    photo = torch.from_numpy(data.coffee()[100:116, 100:116].copy()).permute(2, 0, 1) / 255
    images = photo.expand(300, -1, -1, -1)
    altered = CameraNoise(0, 0, jpeg_share=0.3, seed=0)(images) != images
    assert 0.22 < altered.flatten(1).any(1).float().mean() < 0.38
    every = CameraNoise(0, 0, jpeg=(40, 42), jpeg_share=1, seed=0)(images)
    by_quality = [CameraNoise(0, 0, jpeg=(q, q), jpeg_share=1)(photo[None])[0] for q in (40, 41, 42)]
    counts = [sum(torch.equal(image, one) for image in every) for one in by_quality]
    assert sum(counts) == 300
    assert min(counts) > 70


def test_an_image_does_not_depend_on_its_batch():
    noise, image, seeds = CameraNoise(jpeg_share=0.5), torch.rand(7, 3, 31, 29), list(range(40, 47))
    noisy = noise.degrade(image, seeds)
    for rows in ([0], [1, 2], [6, 0, 3]):
        assert torch.equal(noise.degrade(image[rows], [seeds[row] for row in rows]), noisy[rows])


def test_seeds():
    image, state = torch.rand(2, 3, 8, 8), torch.get_rng_state()
    first, second = CameraNoise(seed=1), CameraNoise(seed=1)
    one = first(image)
    assert torch.equal(one, second(image))
    assert not torch.equal(one, first(image))
    assert torch.equal(torch.get_rng_state(), state)
    generator = torch.Generator().manual_seed(4)
    assert torch.equal(first(image, generator), first(image, torch.Generator().manual_seed(4)))
    same = CameraNoise(seed=0)(image[:1].expand(2, -1, -1, -1))
    assert not torch.equal(same[0], same[1])


def test_wrong_input():
    with pytest.raises(ArgumentError, match=r"`shot` must be a number in \[0, 1\], but is -1"):
        CameraNoise(shot=-1)
    for jpeg in ((90, 70), (0, 50), (50,), (50.0, 60)):
        with pytest.raises(ArgumentError, match="`jpeg` must be two whole numbers from 1 to 100, the smaller"):
            CameraNoise(jpeg=jpeg)
    with pytest.raises(ArgumentError, match="`seed` must be a whole number"):
        CameraNoise(seed=0.5)
    with pytest.raises(ShapeError, match=r"expected RGB images and a seed for each, but came \(1, 1, 8, 8\)"):
        CameraNoise()(torch.rand(1, 1, 8, 8))
    with pytest.raises(ShapeError, match="and 1 seeds"):
        CameraNoise().degrade(torch.rand(2, 3, 8, 8), [1])


def test_numbers_of_numpy_are_taken():
    image = torch.rand(2, 3, 16, 16)
    plain = CameraNoise(0.5, 0.25, jpeg=(30, 40), jpeg_share=1, seed=3)(image)
    numbers = {"jpeg": (np.int64(30), np.int64(40)), "jpeg_share": np.float32(1), "seed": np.int64(3)}
    assert CameraNoise(np.float32(0.5), np.float32(0.25), **numbers)(image).equal(plain)
