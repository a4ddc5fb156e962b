from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.ndimage import correlate
from skimage import data

from reblurkit.blur import ShakeBlur
from reblurkit.errors import ArgumentError, ShapeError


def test_kernels_sum_to_one_and_are_centred():
    for strength in (0, 0.3, 1):
        blur = ShakeBlur(21, strength, seed=1)
        for kernel in (blur.kernel() for _ in range(20)):
            assert kernel.shape == (21, 21)
            assert kernel.min() >= 0
            assert kernel.sum().item() == pytest.approx(1, abs=1e-12)
            rows, columns = torch.meshgrid(torch.arange(21), torch.arange(21), indexing="ij")
            centre = (kernel * rows).sum().item(), (kernel * columns).sum().item()
            assert centre == pytest.approx((10, 10), abs=1e-9)


def test_strength_bends_the_path():
    """Of a straight stroke the second principal component has no width."""

    def width(strength):
        blur, widths = ShakeBlur(31, strength, seed=0), []
        for kernel in (blur.kernel().numpy() for _ in range(50)):
            points = np.stack(np.meshgrid(range(31), range(31))).reshape(2, -1)
            widths.append(np.linalg.eigvalsh(np.cov(points, aweights=kernel.ravel()))[0])
        return np.mean(widths)

    assert width(0) < 0.5 < 4 * width(0) < width(0.3)


def test_a_seed_makes_the_sequence_reproducible():
    first, second = ShakeBlur(9, 0.5, seed=3), ShakeBlur(9, 0.5, seed=3)
    kernels = [first.kernel() for _ in range(3)]
    assert all(torch.equal(kernel, second.kernel()) for kernel in kernels)
    assert not torch.equal(kernels[0], kernels[1])


def test_a_seed_leaves_the_global_random_state_alone():
    state = torch.get_rng_state()
    ShakeBlur(9, 0.5, seed=3)(torch.rand(1, 3, 8, 8, generator=torch.Generator()))
    assert torch.equal(torch.get_rng_state(), state)


def test_light_adds_up_in_linear_light():
    """Against SciPy's filter and the sRGB curve of IEC 61966-2-1."""
    photo = data.astronaut()[:64, :48].astype(np.float64) / 255
    blur = ShakeBlur(11, 0.5, seed=0)
    kernel = ShakeBlur(11, 0.5, seed=0).kernel().numpy()
    linear = np.where(photo > 0.04045, ((photo + 0.055) / 1.055) ** 2.4, photo / 12.92)
    blurred = np.stack([correlate(linear[..., c], kernel, mode="nearest") for c in range(3)], -1)
    expected = np.where(blurred > 0.0031308, 1.055 * blurred ** (1 / 2.4) - 0.055, 12.92 * blurred)
    ours = blur(torch.from_numpy(photo).permute(2, 0, 1)[None])[0].permute(1, 2, 0).numpy()
    np.testing.assert_allclose(ours, expected, atol=1e-6)


def test_without_linear_light_any_number_of_channels_is_filtered_as_it_is():
    image = torch.rand(2, 5, 12, 9, dtype=torch.float64)
    ours = ShakeBlur(5, 0.5, seed=0, linear=False)(image)
    blur = ShakeBlur(5, 0.5, seed=0)
    for index in range(2):
        kernel = blur.kernel().numpy()
        expected = correlate(image[index, 4].numpy(), kernel, mode="nearest")
        np.testing.assert_allclose(ours[index, 4].numpy(), expected, atol=1e-12)


def test_grey_images_and_constants_stay_what_they_are():
    blur = ShakeBlur(7, 1, seed=0)
    assert blur(torch.rand(1, 1, 8, 8)).shape == (1, 1, 8, 8)
    constant = torch.full((1, 3, 9, 9), 0.4)
    torch.testing.assert_close(blur(constant), constant, rtol=0, atol=1e-6)
    image = torch.rand(1, 3, 6, 6)
    torch.testing.assert_close(ShakeBlur(1, 1)(image), image, rtol=0, atol=1e-6)


def test_gradients_pass_to_the_image():
    image = 0.1 + 0.8 * torch.rand(1, 3, 5, 6, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda x: ShakeBlur(3, 0.5, seed=0)(x), image.requires_grad_())


def test_wrong_input():
    with pytest.raises(ArgumentError, match="odd and at least 1, but is 4"):
        ShakeBlur(4, 0.5)
    with pytest.raises(ArgumentError, match=r"in \[0, 1\], but is 2"):
        ShakeBlur(5, 2)
    with pytest.raises(ShapeError, match="pass linear=False"):
        ShakeBlur(5, 0.5)(torch.rand(1, 2, 8, 8))
    with pytest.raises(ShapeError, match="batch of images"):
        ShakeBlur(5, 0.5)(torch.rand(3, 8, 8))
