"""DeblurGAN's generator against its layer list."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from reblurkit.errors import ShapeError
from reblurkit.models import DeblurGAN
from reblurkit.models.deblur.deblurgan import has_one_convolution_per_block


def published(state, blocks, blurry):
    def normalise(image):
        mean, variance = image.mean((2, 3), keepdim=True), image.var((2, 3), correction=0, keepdim=True)
        return (image - mean) / torch.sqrt(variance + 1e-5)

    def conv(name, image, reflect=0, **options):
        image = F.pad(image, (reflect,) * 4, mode="reflect")
        return F.conv2d(image, state[f"model.{name}.weight"], state[f"model.{name}.bias"], **options)

    def up(name, image):
        weight, bias = state[f"model.{name}.weight"], state[f"model.{name}.bias"]
        return F.conv_transpose2d(image, weight, bias, stride=2, padding=1, output_padding=1)

    centred = blurry * 2 - 1
    image = normalise(conv("1", centred, reflect=3)).relu()
    image = normalise(conv("4", image, stride=2, padding=1)).relu()
    image = normalise(conv("7", image, stride=2, padding=1)).relu()
    for block in range(10, 10 + blocks):
        inner = normalise(conv(f"{block}.conv_block.1", image, reflect=1)).relu()
        image = image + normalise(conv(f"{block}.conv_block.6", inner, reflect=1))
    image = normalise(up(f"{10 + blocks}", image)).relu()
    image = normalise(up(f"{13 + blocks}", image)).relu()
    image = torch.tanh(conv(f"{17 + blocks}", image, reflect=3))
    return (torch.clamp(centred + image, -1, 1) + 1) / 2


def test_computes_the_published_layers():
    network = DeblurGAN(blocks=2, width=4).double().eval()
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.05)
    blurry = torch.rand(2, 3, 12, 20, dtype=torch.float64)
    expected = published(network.state_dict(), 2, blurry)
    torch.testing.assert_close(network(blurry), expected, rtol=0, atol=1e-12)


def official_keys(second):
    layers = ["1", "4", "7", *(f"{k}.conv_block.{place}" for k in range(10, 19) for place in (1, second))]
    return {f"model.{layer}.{entry}" for layer in [*layers, "19", "22", "26"] for entry in ("weight", "bias")}


def test_keys_of_the_published_files():
    with torch.device("meta"):
        keys = set(DeblurGAN().state_dict())
        assert set(DeblurGAN(dropout=0).state_dict()) == keys  # dropout is a mode, not another layout
    assert keys == official_keys(second=6)
    assert {DeblurGAN.official_key(key) for key in official_keys(second=5)} == keys
    assert {DeblurGAN.official_key(key) for key in keys} == keys


def test_files_with_one_convolution_per_block_are_recognised():
    one = {key for key in official_keys(6) if "conv_block.6" not in key}
    statistics = {f"model.10.conv_block.{place}.running_mean" for place in (2, 7)}
    assert has_one_convolution_per_block(one)
    assert has_one_convolution_per_block({f"module.{key}" for key in one} | statistics)
    assert not has_one_convolution_per_block(official_keys(5))
    assert not has_one_convolution_per_block(official_keys(6) | statistics)
    assert not has_one_convolution_per_block({"layer1.weight"})


def test_without_a_correction_the_output_is_the_input():
    network, blurry = DeblurGAN(blocks=1, width=2), torch.rand(1, 3, 8, 8)
    torch.nn.init.zeros_(network.model[-2].weight)
    torch.testing.assert_close(network(blurry), blurry)
    plain = DeblurGAN(blocks=1, width=2, global_residual=False)
    torch.nn.init.zeros_(plain.model[-2].weight)
    assert torch.equal(plain(blurry), torch.full_like(blurry, 0.5))


def test_dropout_follows_the_mode():
    network, blurry = DeblurGAN(blocks=2, width=4), torch.rand(1, 3, 16, 16)
    assert not torch.equal(network(blurry), network(blurry))
    off = DeblurGAN(blocks=2, width=4, dropout=0)
    off.load_state_dict(network.state_dict())
    network.eval()
    assert torch.equal(network(blurry), network(blurry))
    assert torch.equal(network(blurry), off(blurry))


def test_starts_as_the_authors():
    for name, parameter in DeblurGAN(blocks=1).named_parameters():
        if name.endswith("bias"):
            assert parameter.abs().max() == 0
        else:
            assert parameter.std().item() == pytest.approx(0.02, rel=0.05)


def test_images_that_are_too_small_are_refused():
    with pytest.raises(ShapeError, match="at least 8, but the image is 4 x 8"):
        DeblurGAN(blocks=1, width=2)(torch.rand(1, 3, 4, 8))
