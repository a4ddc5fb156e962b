"""Tiles that memory holds."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from reblurkit import inference
from reblurkit.errors import ArgumentError, ShapeError
from reblurkit.inference import Deblurrer
from reblurkit.models import FullSize, ReblurNet, UNet


class Limited(nn.Module):
    """A network on a machine that holds only so many pixels."""

    def __init__(self, pixels, multiple=8):
        super().__init__()
        self.pixels, self.multiple = pixels, multiple
        self.sides = []

    def forward(self, image):
        self.sides.append(image.shape[-1])
        if image.shape[-1] * image.shape[-2] > self.pixels:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes.")
        return image.flip(1)


@pytest.fixture
def silent(monkeypatch):
    """A system that does not say how much memory there is."""
    monkeypatch.setattr(inference, "free_memory", lambda device: None)


@pytest.mark.usefixtures("silent")
@pytest.mark.parametrize("pixels", [10**9, 150 * 150, 48 * 48])
def test_tiles_shrink_until_they_fit(pixels):
    network, blurry = Limited(pixels), torch.rand(1, 3, 200, 330)
    result = Deblurrer(network, tile="auto", device="cpu")(blurry)
    torch.testing.assert_close(result, blurry.flip(1))
    side = network.sides[-1]
    assert side**2 <= pixels or side >= 330
    assert side % 8 == 0 or side >= 330
    if pixels == 150 * 150:
        assert side > 150 * 3 // 4 - 8, "the largest of the sizes that are tried"


@pytest.mark.usefixtures("silent")
def test_other_errors_and_hopeless_ones_are_raised():
    class Broken(nn.Module):
        def forward(self, image):
            raise KeyError("image")

    with pytest.raises(KeyError):
        Deblurrer(Broken(), tile="auto", device="cpu")(torch.rand(1, 3, 40, 40))
    with pytest.raises(MemoryError):
        Deblurrer(Limited(9), tile="auto", device="cpu")(torch.rand(1, 3, 200, 330))


def test_memory_is_measured_and_the_largest_tile_taken(monkeypatch):
    network = UNet(blocks=1, widths=(8, 8, 8)).eval()
    blurry = torch.rand(1, 3, 600, 700)
    deblurrer = Deblurrer(network, tile="auto", device="cpu")
    whole = deblurrer(blurry)
    assert deblurrer.options.tile is None
    if deblurrer._cost is None:
        pytest.skip("only Linux says how much memory there is")
    assert 50 < deblurrer._cost < 5000, "bytes a pixel"
    budget = deblurrer._cost * 301**2 / inference._SHARE + inference._IMAGES * 600 * 700 / inference._SHARE
    monkeypatch.setattr(inference, "free_memory", lambda device: budget)
    tiled = deblurrer(blurry)
    assert deblurrer.options.tile == 300
    with torch.no_grad():
        torch.testing.assert_close(tiled, FullSize(network, tile=300)(blurry).clamp(0, 1))
    assert (tiled - whole).abs().max() < 0.1


@pytest.mark.usefixtures("silent")
def test_adaptation_takes_the_tiles_too():
    torch.manual_seed(0)
    network, reblur_net = UNet(blocks=1, widths=(4, 4, 4)), ReblurNet(width=4)
    blurry = torch.rand(1, 3, 90, 120)

    class Full(nn.Module):
        multiple = 4

        def __init__(self):
            super().__init__()
            self.network = network

        def forward(self, image):
            if image.shape[-1] > 70:
                raise MemoryError
            return self.network(image)

    found = Deblurrer(Full(), reblur_net=reblur_net, steps=2, lr=0.01, tile="auto", device="cpu")
    result = found(blurry)
    assert found.options.tile == 60
    expected = Deblurrer(network, reblur_net=reblur_net, steps=2, lr=0.01, tile=60, device="cpu")(blurry)
    torch.testing.assert_close(result, expected)


@pytest.mark.parametrize("frames", [1, 5])
@pytest.mark.parametrize("tile", [None, "auto"])
def test_images_are_checked_as_adapt_checks_them(frames, tile):
    class Middle(nn.Module):
        def forward(self, images):
            return images if images.ndim == 4 else images[:, 2]

    network = Middle()
    network.frames = frames
    deblurrer = Deblurrer(network, tile=tile, device="cpu")
    shape = (2, 3, 8, 9) if frames == 1 else (2, 5, 3, 8, 9)
    good = torch.rand(shape)
    for bad, error, message in (
        (good.numpy(), ArgumentError, "must be a tensor"),
        ((255 * good).to(torch.uint8), ArgumentError, "divide 8-bit images by 255"),
        (255 * good, ArgumentError, r"must lie in \[0, 1\], but its values span"),
        (good[0, 0], ShapeError, "must be a batch of images|deblurs images of shape"),
        (good[..., :2, :, :], ShapeError, "deblurs images of shape"),
        (torch.rand(2, 3, 3, 8, 9), ShapeError, "deblurs images of shape"),
        (torch.rand((2, 5, 3, 8, 9) if frames == 1 else (2, 3, 8, 9)), ShapeError, "deblurs images of shape"),
    ):
        with pytest.raises(error, match=message):
            deblurrer(bad)
    torch.testing.assert_close(deblurrer(good), good if frames == 1 else good[:, 2])


class Tinting(nn.Module):
    """Adds colour."""

    def forward(self, image):
        return image + torch.tensor([0.03, 0.0, -0.06])[:, None, None]


def test_photos_without_colour_stay_so_and_others_keep_theirs():
    colour = torch.rand(1, 3, 20, 24) / 2 + 0.2
    grey = colour[:, :1].expand(-1, 3, -1, -1)
    result = Deblurrer(Tinting(), device="cpu")(torch.cat([colour, grey]))
    torch.testing.assert_close(result[:1], Tinting()(colour))
    torch.testing.assert_close(result[1:], grey - 0.01)
    assert torch.equal(result[1, 0], result[1, 1])
    assert torch.equal(result[1, 0], result[1, 2])


def test_adapted_photos_without_colour_stay_so_and_so_does_what_is_shown_beside_them():
    network, reblur_net = UNet(blocks=1, widths=(8, 8, 8)), ReblurNet(blocks=1, width=8)
    deblurrer = Deblurrer(network, reblur_net=reblur_net, steps=1, lr=1e-3, device="cpu")
    grey = torch.rand(1, 1, 32, 32).expand(-1, 3, -1, -1)
    for image in (deblurrer(grey), deblurrer.plain):
        assert torch.equal(image, image[:, :1].expand(-1, 3, -1, -1))
