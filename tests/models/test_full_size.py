"""FullSize: any size in, the same size out, and tiles that cannot be told from the whole."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from skimage import data
from torch import nn

from reblurkit.errors import ArgumentError, ShapeError
from reblurkit.losses import MultiScaleLoss
from reblurkit.models import FullSize, UNet, create_model, list_models
from tests.conftest import MultiScaleNet, PlainNet


class Strided(nn.Module):
    """Fails on sizes that do not divide by ``factor``, and notes the sizes that it sees; 9 pixels see one."""

    def __init__(self, factor=4):
        super().__init__()
        self.body = nn.Sequential(
            nn.PixelUnshuffle(factor),
            nn.Conv2d(3 * factor**2, 8, 1),
            nn.GELU(),
            nn.Conv2d(8, 3 * factor**2, 1),
            nn.PixelShuffle(factor),
        )
        self.sizes = []

    def forward(self, image):
        self.sizes.append(tuple(image.shape[-2:]))
        return image + self.body(image)


class Declared(Strided):
    multiple = 4


def convolutions(radius):
    """Convolutions without padding effects inside: a pixel sees ``radius`` pixels on each side."""
    layers = [layer for _ in range(radius) for layer in (nn.Conv2d(3, 3, 3, padding=1, bias=False), nn.Tanh())]
    network = nn.Sequential(*layers)
    for layer in layers[::2]:
        nn.init.dirac_(layer.weight)
        layer.weight.data += 0.1 * torch.randn_like(layer.weight)
    return network


# --- padding


@pytest.mark.parametrize("size", [(1, 1), (1, 30), (2, 3), (7, 5), (16, 20), (45, 67)])
@pytest.mark.parametrize("multiple", [4, 16, 32])
def test_every_size_is_kept_and_padded_by_reflection(size, multiple):
    image = torch.rand(2, 3, *size)
    network = Strided(4)
    output = FullSize(network, multiple)(image)
    assert output.shape == image.shape
    pads = [(0, 0), (0, 0), *((0, -side % multiple) for side in size)]
    padded = torch.from_numpy(np.pad(image.numpy(), pads, mode="reflect"))
    assert network.sizes == [tuple(padded.shape[-2:])]
    assert torch.equal(output, network(padded)[..., : size[0], : size[1]])


@pytest.mark.parametrize("name", ["unet", "reblur-n1"])
def test_networks_of_the_package(name):
    network = create_model(name, **({"blocks": 1, "widths": (4, 6, 8)} if name == "unet" else {"width": 4}))
    image = torch.rand(2, 3, 36, 20)
    assert torch.equal(FullSize(network)(image), network(image))
    image = torch.rand(2, 3, 33, 21)
    torch.testing.assert_close(FullSize(network)(image)[..., :17, :5], network(image)[..., :17, :5])
    assert FullSize(network, tile=16, overlap=8)(image).shape == image.shape


def test_the_network_says_what_it_needs():
    network = Declared()
    assert FullSize(network)(torch.rand(1, 3, 9, 10)).shape == (1, 3, 9, 10)
    assert FullSize(network, multiple=8)(torch.rand(1, 3, 9, 10)).shape == (1, 3, 9, 10)
    assert network.sizes == [(12, 12), (16, 16)]
    network.multiple = 12  # also per object
    assert FullSize(network).multiple == 12


def test_networks_with_a_shortest_side():
    network = Declared()
    network.smallest = 30
    image = torch.rand(1, 3, 9, 50)
    padded = torch.from_numpy(np.pad(image.numpy(), [(0, 0), (0, 0), (0, 23), (0, 2)], mode="reflect"))
    assert torch.equal(FullSize(network)(image), network(padded)[..., :9, :50])
    assert FullSize(network, tile=32, overlap=8)(image).shape == image.shape
    assert network.sizes == [(32, 52)] * 2 + [(32, 32)] * 2
    with pytest.raises(ArgumentError, match="`tile` must be at least 30 with this"):
        FullSize(network, tile=28, overlap=8)


def test_the_last_of_several_scales():
    network, image = MultiScaleNet().eval(), torch.rand(1, 3, 10, 9)
    padded = nn.functional.pad(image, (0, 3, 0, 2), mode="reflect")
    assert torch.equal(FullSize(network, 4)(image), network(padded)[-1][..., :10, :9])
    assert FullSize(network, 4, tile=8, overlap=4)(image).shape == image.shape


def test_all_scales_in_training_for_losses_that_use_them():
    network, image = MultiScaleNet().train(), torch.rand(1, 3, 10, 9)
    wrapped, padded = FullSize(network, 4, tile=16, overlap=4), nn.functional.pad(image, (0, 3, 0, 2), mode="reflect")
    scales = wrapped(image)
    assert [tuple(scale.shape[-2:]) for scale in scales] == [(3, 3), (5, 5), (10, 9)]
    for scale, whole in zip(scales, network(padded), strict=True):
        assert torch.equal(scale, whole[..., : scale.shape[-2], : scale.shape[-1]])
    loss, crop = MultiScaleLoss(), torch.rand(2, 1, 3, 16, 16)
    assert loss(wrapped(crop[0]), crop[1]) == loss(network(crop[0]), crop[1]) > loss(network(crop[0])[-1], crop[1])
    with pytest.raises(ArgumentError, match=r"cannot be put together from tiles of 16 pixels: .*call .eval()"):
        wrapped(torch.rand(1, 3, 40, 16))
    assert torch.equal(wrapped.eval()(image), scales[-1])
    assert not FullSize(network).training


class Centre(PlainNet):
    def forward(self, frames):
        return super().forward(frames[:, frames.shape[1] // 2])


def test_clips_and_pairs_of_images():
    clip, network = torch.rand(2, 5, 3, 11, 13), Centre()
    padded = torch.from_numpy(np.pad(clip.numpy(), [(0, 0)] * 3 + [(0, 5), (0, 3)], mode="reflect"))
    assert torch.equal(FullSize(network, 16)(clip), network(padded)[..., :11, :13])
    assert FullSize(network, tile=8, overlap=4)(clip).shape == (2, 3, 11, 13)

    class Flow(nn.Module):
        def forward(self, source, target):
            return (source - target)[:, :2]

    pair = torch.rand(2, 1, 3, 11, 13)
    for options in ({"multiple": 8}, {"tile": 8, "overlap": 4}):
        torch.testing.assert_close(FullSize(Flow(), **options)(*pair), (pair[0] - pair[1])[:, :2])
    with pytest.raises(ShapeError, match=r"of one size and not empty, but are \(1, 3, 11, 13\) and \(1, 3, 11, 12\)"):
        FullSize(Flow())(pair[0], pair[1, ..., :12])


# --- tiles


@pytest.mark.parametrize(("tile", "overlap", "radius"), [(48, 16, 8), (20, 9, 4), (32, 5, 2), (40, 30, 15), (8, 0, 0)])
@pytest.mark.parametrize("size", [(100, 61), (50, 21)])
def test_tiles_equal_the_whole_for_networks_that_see_no_more_than_the_overlap(tile, overlap, radius, size):
    network, image = convolutions(radius), torch.rand(2, 3, *size)
    with torch.no_grad():
        whole, tiled = FullSize(network)(image), FullSize(network, tile=tile, overlap=overlap)(image)
    torch.testing.assert_close(tiled, whole, rtol=0, atol=1e-6)
    if radius and size[0] == 100:  # and it can tell: tiles that share nothing differ
        with torch.no_grad():
            torn = FullSize(network, tile=tile, overlap=0)(image)
        assert (torn - whole).abs().max() > 1e-3


@pytest.mark.parametrize(
    "options", [{"tile": 16, "overlap": 0}, {"tile": 16, "overlap": 12}, {"tile": 20, "overlap": 7}]
)
def test_tiles_lie_on_the_networks_grid(options):
    network, image = Declared(), torch.rand(1, 3, 37, 50)
    whole = FullSize(network)(image)
    network.sizes.clear()
    torch.testing.assert_close(FullSize(network, **options)(image), whole, rtol=0, atol=1e-6)
    assert set(network.sizes) == {(options["tile"], options["tile"])}


@pytest.mark.parametrize("length", [17, 40, 64, 101])
@pytest.mark.parametrize(
    ("tile", "overlap", "multiple"), [(16, 8, 1), (16, 15, 1), (16, 0, 4), (16, 12, 4), (16, 5, 2)]
)
def test_weights_of_every_place_sum_to_one(length, tile, overlap, multiple):
    spans = FullSize(nn.Identity(), multiple, tile, overlap)._cover(length)
    weights = torch.stack([span.weights for span in spans])
    torch.testing.assert_close(weights.double().sum(0), torch.ones(length, dtype=torch.float64), rtol=0, atol=2e-7)
    assert (weights >= 0).all()
    for span in spans:
        assert span.start % multiple == 0
        assert span.start <= span.used.start < span.used.stop <= span.start + tile
        assert (span.weights[span.used] > 0).all()


class Pooled(nn.Module):
    """Its output depends on all of its input alike: the worst that tiles can meet."""

    def forward(self, image):
        return image.mean((-2, -1), keepdim=True).expand_as(image)


def test_no_seams_in_a_photo():
    photo = torch.as_tensor(data.astronaut()[100:228, 100:228] / 255.0, dtype=torch.float32).permute(2, 0, 1)[None]
    jumps = {}
    for overlap in (0, 32):
        change = FullSize(Pooled(), tile=64, overlap=overlap)(photo) - Pooled()(photo)
        jumps[overlap] = max(change.diff(dim=axis).abs().amax().item() for axis in (-2, -1))
    assert jumps[0] > 0.2, "of 1, side by side"
    assert jumps[32] < 0.02, "blended over 16 pixels"


def test_tiles_of_images_that_fit_into_one():
    network = Declared()
    image = torch.rand(1, 3, 30, 31)
    whole = FullSize(network)(image)
    network.sizes.clear()
    assert torch.equal(FullSize(network, tile=64)(image), whole)
    assert network.sizes == [(32, 32)]


@pytest.mark.parametrize("options", [{}, {"tile": 16, "overlap": 8}])
def test_gradients(options):
    network = Declared().double()
    image = torch.rand(1, 3, 21, 18, dtype=torch.float64, requires_grad=True)
    wanted = torch.rand_like(image)
    (FullSize(network, **options)(image) * wanted).sum().backward()
    padded = nn.functional.pad(image, (0, 2, 0, 3), mode="reflect")
    (expected,) = torch.autograd.grad((network(padded)[..., :21, :18] * wanted).sum(), image)
    torch.testing.assert_close(image.grad, expected, rtol=0, atol=1e-6)
    assert all(parameter.grad is not None for parameter in network.parameters())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_dtypes(dtype):
    network = Declared().to(dtype)
    image = torch.rand(1, 3, 37, 22).to(dtype)
    whole = FullSize(network)(image)
    tiled = FullSize(network, tile=16, overlap=8)(image)
    assert whole.dtype == tiled.dtype == dtype
    # the tiles' weights round once, to the result
    torch.testing.assert_close(tiled, whole, rtol=torch.finfo(dtype).eps if dtype != torch.float64 else 1e-6, atol=0)


def test_images_that_are_not_contiguous():
    network, image = Declared(), torch.rand(2, 40, 37, 3).permute(0, 3, 1, 2)[..., ::2]
    for options in ({}, {"tile": 16, "overlap": 8}):
        full_size = FullSize(network, **options)
        torch.testing.assert_close(full_size(image), full_size(image.contiguous()), rtol=0, atol=1e-6)


def test_it_is_transparent():
    network = PlainNet()
    full_size = FullSize(network, 4).eval()
    assert not network.training
    assert [name for name, _ in full_size.named_parameters()] == [f"network.{n}" for n, _ in network.named_parameters()]


# --- bad arguments


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"multiple": 0}, "`multiple` must be a whole number of at least 1, but is 0"),
        ({"multiple": 1.5}, "`multiple` must be a whole number"),
        ({"overlap": -1}, "`overlap` must be at least 0"),
        ({"multiple": 16, "tile": 500}, "`tile` must divide by 16, .* but is 500; try 496"),
        ({"multiple": 16, "tile": 8}, "`tile` must divide by 16, .* but is 8; try 48"),
        ({"tile": 32}, "`tile` must be at least 33 with this overlap and network, but is 32"),
        ({"tile": 32, "multiple": 16, "overlap": 20}, "at least 36"),
        ({"tile": 0}, "`tile`"),
    ],
)
def test_wrong_arguments(options, message):
    with pytest.raises(ArgumentError, match=message):
        FullSize(PlainNet(), **options)


def test_networks_that_do_not_say_what_they_need():
    with pytest.raises(
        ShapeError, match=r"Strided failed on 9 x 10 pixels: .*; if sizes must divide by .* `multiple = 8`"
    ):
        FullSize(Strided())(torch.rand(1, 3, 9, 10))
    with pytest.raises(RuntimeError, match="expects height to be divisible"):
        FullSize(Strided(), multiple=2)(torch.rand(1, 3, 10, 10))


@pytest.mark.parametrize("options", [{}, {"tile": 8, "overlap": 4}])
def test_networks_that_change_the_size(options):
    with pytest.raises(
        ShapeError, match=r"MaxPool2d must keep the size of its input, .* returned \(1, 3, .*multiple = "
    ):
        FullSize(nn.MaxPool2d(2), **options)(torch.rand(1, 3, 16, 16))


@pytest.mark.parametrize("shape", [(4, 4), (1, 3, 0, 4)])
def test_wrong_images(shape):
    with pytest.raises(ShapeError, match=r"images must be \(..., channels, H, W\) of one size and not empty"):
        FullSize(UNet(1, (4, 6, 8)))(torch.rand(shape))


def test_what_is_no_network_or_no_image():
    with pytest.raises(ArgumentError, match="but is 'unet'; create_model"):
        FullSize("unet")
    network, image = FullSize(PlainNet()), torch.rand(1, 3, 9, 9)
    with pytest.raises(ArgumentError, match="divide 8-bit images by 255"):
        network((255 * image).byte())
    for images in ((), ([image],), (image.numpy(),)):
        with pytest.raises(ArgumentError, match="images must be tensors"):
            network(*images)


@pytest.mark.parametrize("options", [{"tile": 64.0}, {"tile": "64"}, {"tile": 64, "overlap": 16.5}])
def test_pixels_are_whole(options):
    with pytest.raises(ArgumentError, match="whole number"):
        FullSize(PlainNet(), **options)


def test_networks_that_pad_for_themselves_have_tiles_on_their_grid():
    network = create_model("unet", blocks=1, widths=(4, 4, 4)).eval()
    image = torch.rand(1, 3, 99, 150)
    with torch.no_grad():
        whole = FullSize(network)(image)
        torch.testing.assert_close(FullSize(network, tile=64)(image), whole)
    with pytest.raises(ArgumentError, match="`tile` must divide by 4"):
        FullSize(network, tile=62)


@pytest.mark.parametrize("name", list_models("deblur"))
def test_every_deblurring_network_says_on_which_grid_it_works(name):
    with torch.device("meta"):
        assert create_model(name).multiple >= 2
