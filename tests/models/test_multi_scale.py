"""MultiScale: the size of the image at which the network finds most blur counts."""

from __future__ import annotations

import pytest
import torch
from skimage.data import coffee
from torch import nn
from torch.nn import functional as F

from reblurkit.blur import ShakeBlur
from reblurkit.errors import ArgumentError, ShapeError
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


def test_proposals_are_weighted_by_the_fourth_power_of_their_mean_squares():
    image = torch.rand(1, 3, 64, 64, dtype=torch.float64)
    deblurred = MultiScale(AtSize({64: 0.1, 32: 0.09, 16: 0.12}))(image)
    expected = (0.1**9 + 0.09**9 + 0.12**9) / (0.1**8 + 0.09**8 + 0.12**8)
    torch.testing.assert_close(deblurred, image + expected)


def test_each_image_of_a_batch_has_weights_of_its_own():
    torch.manual_seed(0)
    network = UNet(blocks=1, widths=(8, 8, 8))
    images = torch.rand(3, 3, 64, 64) * torch.tensor([1.0, 0.3, 0.1]).view(3, 1, 1, 1)
    each = torch.cat([MultiScale(network)(image[None]) for image in images])
    torch.testing.assert_close(MultiScale(network)(images), each)


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


@pytest.mark.parametrize("scales", [0, 6, 1.5, "3", None])
def test_numbers_of_scales_that_are_none(scales):
    with pytest.raises(ArgumentError, match="`scales` must be a whole number from 1 to 5, but is"):
        MultiScale(nn.Identity(), scales)


def test_networks_that_write_into_their_input():
    class InPlace(AtSize):
        def forward(self, image):
            return image.add_(self.changes.get(image.shape[-2], 0.0))

    image = torch.rand(1, 3, 64, 64)
    before = image.clone()
    torch.testing.assert_close(MultiScale(InPlace({32: 0.1}))(image), before + 0.1)
    assert torch.equal(image, before)


def test_networks_that_make_another_shape_are_refused():
    with pytest.raises(ShapeError, match="Conv2d must make images of shape"):
        MultiScale(nn.Conv2d(3, 1, 1))(torch.rand(1, 3, 40, 40))


def test_networks_that_make_whole_numbers_are_refused():
    class Bytes(nn.Module):
        def forward(self, image):
            return (255 * image).byte()

    with pytest.raises(ArgumentError, match=r"must make floating point values in \[0, 1\], but made torch.uint8"):
        MultiScale(Bytes())(torch.rand(1, 3, 40, 40))


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
