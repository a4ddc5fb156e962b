"""MultiScale: each size of the image has a say where the network finds blur at that size."""

from __future__ import annotations

import pytest
import torch
from skimage.data import coffee
from torch import nn
from torch.nn import functional as F

from reblurkit.blur import ShakeBlur
from reblurkit.errors import ArgumentError
from reblurkit.models import DBN, FullSize, MultiScale, UNet, load_pretrained
from tests.conftest import MultiScaleNet


class AtSize(nn.Module):
    """Changes images of one height alone, by a constant; of all, by as much as is told."""

    def __init__(self, changes):
        super().__init__()
        self.changes = changes
        self.sizes = []

    def forward(self, image):
        self.sizes.append(tuple(image.shape[-2:]))
        return image + self.changes.get(image.shape[-2], 0.0)


@pytest.mark.parametrize("height", [64, 32, 16])
def test_the_size_at_which_the_network_sees_blur_decides(height):
    image = torch.rand(2, 3, 64, 96)
    network = AtSize({height: 0.1})
    torch.testing.assert_close(MultiScale(network)(image), image + 0.1)
    assert network.sizes == [(64, 96), (32, 48), (16, 24)]


def test_proposals_are_weighted_by_their_squared_mean_squares():
    image = torch.rand(1, 3, 64, 64, dtype=torch.float64)
    deblurred = MultiScale(AtSize({64: 0.2, 32: 0.1}), scales=2)(image)
    expected = (0.2**5 + 0.1**5) / (0.2**4 + 0.1**4)
    torch.testing.assert_close(deblurred, image + expected)


def test_the_weights_are_local_and_smooth():
    class Halves(nn.Module):
        """Changes the left half at full size, the right half at half size."""

        def forward(self, image):
            width = image.shape[-1]
            left = (torch.arange(width) < width // 2) == (width == 512)
            return image + 0.1 * left

    image = torch.rand(1, 3, 32, 512)
    change = (MultiScale(Halves(), scales=2)(image) - image).mean((0, 1, 2))
    torch.testing.assert_close(change[:96], torch.full((96,), 0.1), rtol=0, atol=1e-3)
    torch.testing.assert_close(change[-96:], torch.full((96,), 0.1), rtol=0, atol=1e-3)
    away_from_the_edge = torch.cat([change[:250], change[262:]])
    assert away_from_the_edge.diff().abs().max() < 0.004


def test_where_nothing_changes_the_image_stays():
    image = torch.rand(1, 3, 40, 56)
    assert torch.equal(MultiScale(nn.Identity())(image), image)


@pytest.mark.parametrize("size", [(1, 1), (5, 200), (33, 47), (64, 64)])
@pytest.mark.parametrize("scales", [1, 2, 5])
def test_any_size(size, scales):
    torch.manual_seed(0)
    network = UNet(blocks=1, widths=(8, 8, 8))
    image = torch.rand(1, 3, *size)
    deblurred = MultiScale(network, scales)(image)
    assert deblurred.shape == image.shape
    assert deblurred.isfinite().all()
    if scales == 1:
        torch.testing.assert_close(deblurred, FullSize(network)(image))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_the_networks_precision_is_kept(dtype):
    network = UNet(blocks=1, widths=(8, 8, 8)).to(dtype)
    image = torch.rand(1, 3, 64, 64)
    deblurred = MultiScale(network)(image.to(dtype))
    assert deblurred.dtype == dtype
    torch.testing.assert_close(deblurred.float(), MultiScale(network.float())(image), rtol=0, atol=0.05)


def test_gradients_reach_the_network_and_are_finite_where_it_changes_nothing():
    network = nn.Conv2d(3, 3, 3, padding=1)
    nn.init.dirac_(network.weight)
    nn.init.zeros_(network.bias)
    F.l1_loss(MultiScale(network)(torch.rand(1, 3, 48, 48)), torch.rand(1, 3, 48, 48)).backward()
    assert network.weight.grad.isfinite().all()
    assert network.weight.grad.abs().max() > 0


def test_of_a_list_of_scales_the_last_counts():
    network = MultiScaleNet().eval()
    image = torch.rand(1, 3, 64, 64)
    torch.testing.assert_close(MultiScale(network, 1)(image), network(image)[-1])
    assert MultiScale(network)(image).shape == image.shape


def test_in_tiles_it_is_nearly_the_same():
    torch.manual_seed(0)
    image = F.interpolate(torch.rand(1, 3, 30, 40), (240, 320), mode="bicubic").clamp(0, 1)
    network = MultiScale(load_pretrained().network)
    with torch.inference_mode():
        whole, tiled = network(image), FullSize(network, tile=160)(image)
    assert (whole - tiled).abs().mean() < 0.1 * (whole - image).abs().mean()


@pytest.mark.parametrize("scales", [0, 6, 1.5, "3", None])
def test_numbers_of_scales_that_are_none(scales):
    with pytest.raises(ArgumentError, match="`scales` must be a whole number from 1 to 5, but is"):
        MultiScale(nn.Identity(), scales)


def test_networks_of_several_frames_are_refused():
    with pytest.raises(ArgumentError, match="for networks of single images, but DBN takes 5 frames"):
        MultiScale(DBN(width=4))


def test_it_compiles_in_one_piece():
    network = MultiScale(UNet(blocks=1, widths=(8, 8, 8)).eval())
    image = torch.rand(1, 3, 64, 80)
    compiled = torch.compile(network, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(image), network(image))


def test_it_removes_blur_that_is_too_long_for_the_network():
    sharp = torch.from_numpy(coffee().copy()).permute(2, 0, 1)[None, :, :384, 100:484] / 255
    blurry = ShakeBlur(41, 0.6, seed=2)(sharp)
    network = load_pretrained().network

    def gain(deblurred):
        errors = [(image.clamp(0, 1) - sharp).square().mean() for image in (blurry, deblurred)]
        return float(10 * torch.log10(errors[0] / errors[1]))

    with torch.inference_mode():
        alone, several = gain(network(blurry)), gain(MultiScale(network)(blurry))
    assert several > alone + 0.3
