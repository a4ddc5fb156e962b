"""The kernel between two images, against kernels that are known and a system of equations written out."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from kornia.filters import filter2d, get_motion_kernel2d
from skimage import data
from torch.nn import functional as F

from reblurkit.blur import ShakeBlur
from reblurkit.errors import ArgumentError, ShapeError
from reblurkit.metrics import grid_of_places, remaining_blur_kernel, spread

CENTER = (110, 110)


@pytest.fixture(scope="module")
def sharp():
    return torch.from_numpy(data.astronaut()[:220, 150:370].copy()).permute(2, 0, 1)[None] / 255


def correlation(one, other):
    return torch.corrcoef(torch.stack([one.flatten().double(), other.flatten().double()]))[0, 1].item()


@pytest.mark.parametrize("size", [9, 15, 21])
@pytest.mark.parametrize("seed", range(3))
def test_a_known_kernel_comes_back_through_noise(sharp, size, seed):
    blur = ShakeBlur(size, 0.5, seed=seed, linear=False)
    kernel = blur.draw(1)
    blurry = blur.blur(sharp, kernel) + 0.01 * torch.randn(sharp.shape)
    found = remaining_blur_kernel(blurry, sharp, size=21)
    expected = F.pad(kernel, [(21 - size) // 2] * 4)
    assert correlation(found, expected) > 0.95
    assert found.min() >= 0
    assert found.sum().item() == pytest.approx(1)


def test_without_noise_it_is_nearly_exact(sharp):
    kernel = get_motion_kernel2d(9, 30.0)
    found = remaining_blur_kernel(filter2d(sharp, kernel), sharp, size=9)
    assert correlation(found, kernel) > 0.999
    assert spread(found).item() == pytest.approx(spread(kernel).item(), rel=0.02)


def test_an_asymmetric_kernel_is_a_correlation(sharp):
    kernel = torch.zeros(1, 5, 5)
    kernel[0, 0, 1], kernel[0, 2, 2] = 0.25, 0.75
    found = remaining_blur_kernel(filter2d(sharp, kernel), sharp, size=5)[0]
    torch.testing.assert_close(found, kernel[0].double(), rtol=0, atol=0.01)


def test_the_sharp_image_itself_leaves_a_dot(sharp):
    found = remaining_blur_kernel(sharp, sharp, size=11)
    assert found[0, 5, 5] > 0.99
    assert spread(found).item() < 0.2


def test_equals_the_regularised_system_written_out(sharp):
    """Rows of pixels and columns of offsets by hand, solved by least squares with the regularisation as more rows."""
    blurry = filter2d(sharp, get_motion_kernel2d(5, 60.0)) + 0.02 * torch.randn(sharp.shape)
    grey, target = (image[0].double().mean(0).numpy() for image in (sharp, blurry))
    rows, values = [], []
    for y in range(100, 120):
        for x in range(100, 120):
            for down, right in ((1, 0), (0, 1)):
                if y + down < 120 and x + right < 120:
                    step = slice(y + down - 1, y + down + 2), slice(x + right - 1, x + right + 2)
                    rows.append((grey[step] - grey[y - 1 : y + 2, x - 1 : x + 2]).flatten())
                    values.append(target[y + down, x + right] - target[y, x])
    rows, values = np.array(rows), np.array(values)
    beta = 0.01 * (rows**2).sum() / 9
    padded = np.vstack([rows, math.sqrt(beta) * np.eye(9)])
    expected = np.linalg.lstsq(padded, np.concatenate([values, np.zeros(9)]), rcond=None)[0]
    expected[expected < expected.max() / 20] = 0
    expected /= expected.sum()
    found = remaining_blur_kernel(blurry, sharp, size=3, center=CENTER, patch=20)
    np.testing.assert_allclose(found.flatten().numpy(), expected, rtol=1e-9, atol=1e-12)


def test_places_of_a_batch(sharp):
    left, right = get_motion_kernel2d(7, 0.0), get_motion_kernel2d(7, 90.0)
    half = torch.arange(220).lt(110)
    images = torch.cat([sharp, sharp.flip(-2)])
    blurry = torch.where(half, filter2d(images, left), filter2d(images, right))
    places = grid_of_places(220, 220, 2, 2)
    assert places == [(55, 55), (55, 165), (165, 55), (165, 165)]
    kernels = remaining_blur_kernel(blurry, images, size=7, center=places, patch=60)
    assert kernels.shape == (2, 4, 7, 7)
    for number, place in enumerate(places):
        alone = remaining_blur_kernel(blurry, images, size=7, center=place, patch=60)
        assert torch.equal(kernels[:, number], alone)
        assert correlation(alone[0], left if place[1] < 110 else right) > 0.98


def test_a_flat_place_has_no_kernel(sharp):
    flat = torch.full_like(sharp, 0.5)
    assert remaining_blur_kernel(flat, flat, size=5).isnan().all()


def test_spread():
    dot, two = torch.zeros(2, 5, 5)
    dot[4, 1] = 1
    two[2, 0] = two[2, 4] = 1  # 2 pixels to both sides
    assert spread(torch.stack([dot, two])).tolist() == [0, 2]
    cloud = F.pad(two, [3] * 4) + 0.1
    assert spread(cloud, least=0.2).item() == 2 < spread(cloud).item()
    x = torch.arange(41, dtype=torch.float64) - 20
    gaussian = torch.exp(-x.square() / 18)
    assert spread(torch.outer(gaussian, gaussian)).item() == pytest.approx(3 * math.sqrt(2), rel=1e-4)


def test_wrong_input(sharp):
    with pytest.raises(ArgumentError, match="odd number of pixels, at least 3, but is 4"):
        remaining_blur_kernel(sharp, sharp, size=4)
    with pytest.raises(ShapeError, match=r"around \(5, 5\) the image of 220 x 220 has no room for a patch of 105"):
        remaining_blur_kernel(sharp, sharp, center=(5, 5))
    with pytest.raises(ShapeError, match="must have the same shape"):
        remaining_blur_kernel(sharp, sharp[..., :100])
    with pytest.raises(ArgumentError, match="must be a place"):
        remaining_blur_kernel(sharp, sharp, center=[(1, 2, 3)])
    with pytest.raises(ShapeError, match=r"must be \(..., H, W\)"):
        spread(torch.ones(3))
    with pytest.raises(ArgumentError, match=r"`least` must be in \[0, 1\], but is 2"):
        spread(torch.ones(3, 3), least=2)
