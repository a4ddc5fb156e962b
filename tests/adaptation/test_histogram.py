"""Histogram matching against scikit-image."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from skimage import data
from skimage.exposure import match_histograms

from reblurkit.adaptation.histogram import match_histogram
from reblurkit.data.images import read_image
from reblurkit.errors import ArgumentError, ShapeError


def to_tensor(photo):
    return torch.from_numpy(np.array(photo)).permute(2, 0, 1)[None]


def to_array(image):
    return image[0].permute(1, 2, 0).numpy()


@pytest.fixture(params=["bundled", "kodak", "gopro"])
def photos(request):
    """Two 8-bit photos of one size."""
    if request.param == "bundled":
        return to_tensor(data.astronaut()[:300, :400]), to_tensor(data.chelsea()[:, :400])
    folder = request.getfixturevalue("shared_data")
    names = {
        "kodak": ("photos/kodim05.png", "photos/kodim13.png"),
        "gopro": ("pairs/blur_gopro_cu.png", "pairs/sharp_gopro_cu.png"),
    }
    return tuple((255 * read_image(folder / name)[None]).round().byte() for name in names[request.param])


def test_8_bit_photos_match_as_in_scikit_image(photos):
    image, reference = photos
    wanted = match_histograms(to_array(image), to_array(reference), channel_axis=-1)
    ours = to_array(255 * match_histogram(image / 255, reference / 255))
    # scikit-image cuts decimals off to return 8 bits; we do not.
    assert (ours - wanted).min() > -1e-4
    assert (ours - wanted).max() < 1
    assert np.abs(ours - to_array(image)).mean() > 1, "matching did something"


def test_float_photos_match_as_in_scikit_image(photos):
    image, reference = (photo.double() / 255 for photo in photos)
    image = (image + 1e-3 * torch.rand_like(image)).clamp(0, 1)
    for dtype in (torch.float64, torch.float32):
        image, reference = image.to(dtype), reference.to(dtype)
        wanted = match_histograms(*(to_array(x.double()) for x in (image, reference)), channel_axis=-1)
        ours = match_histogram(image, reference, bins=None)
        assert ours.dtype is dtype
        np.testing.assert_allclose(to_array(ours), wanted, rtol=0, atol=1e-6)


def test_256_bins_quantise_the_mapping_and_not_the_image(photos):
    image, reference = (photo.float() / 255 for photo in photos)
    image = (image + (torch.rand_like(image) - 0.5) / 255).clamp(0, 1)
    rounded = (255 * image).round().byte()
    wanted = match_histograms(to_array(rounded), to_array((255 * reference).byte()), channel_axis=-1)
    matched = match_histogram(image, reference)
    assert len(matched.unique()) > 1000
    ordered = image[0, 0].flatten().sort()
    assert matched[0, 0].flatten()[ordered.indices].diff().min() >= -1e-6, "monotone"
    # Half a level of input is worth more than one level of output only where the reference lacks levels.
    assert (np.abs(to_array(255 * matched) - wanted) <= 1.5).mean() > 0.9


@pytest.mark.parametrize("bins", [256, 16, None])
def test_an_image_matched_to_itself_does_not_change(bins):
    image = torch.rand(2, 3, 17, 19)
    assert torch.equal(match_histogram(image, image, bins=bins), image)


@pytest.mark.parametrize("bins", [256, None])
def test_images_and_channels_are_matched_one_by_one_and_flat_ones_too(bins):
    image, reference = torch.rand(2, 2, 3, 9, 9)
    image[0, 1] = 0.5
    reference[1, 2] = 0.25
    together = match_histogram(image, reference, bins=bins)
    for index in range(2):
        for channel in range(3):
            alone = match_histogram(image[index, channel][None, None], reference[index, channel][None, None], bins=bins)
            assert torch.equal(together[index, channel], alone[0, 0])
    assert (together[1, 2] - 0.25).abs().max() <= 0.5 / 255
    assert together.isfinite().all()


def test_the_result_lies_in_the_unit_range_and_has_no_graph():
    image = (3 * torch.rand(1, 3, 8, 8) - 1).requires_grad_()
    matched = match_histogram(image, torch.rand(1, 3, 8, 8))
    assert matched.min() >= 0
    assert matched.max() <= 1
    assert not matched.requires_grad


def test_bad_input():
    image = torch.rand(1, 3, 8, 8)
    with pytest.raises(ArgumentError, match="bins must be at least 2"):
        match_histogram(image, image, bins=1)
    with pytest.raises(ShapeError, match="same shape"):
        match_histogram(image, image[..., :7])
