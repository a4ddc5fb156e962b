"""The kernel of a photo, found without the sharp photo."""

from __future__ import annotations

import pytest
import torch
from kornia.filters import filter2d

from reblurkit.blur import PhotoBlur, ShakeBlur, estimate_blur_kernel, kernel_estimate, kernel_similarity
from reblurkit.blur.light import from_light, to_light
from reblurkit.errors import ArgumentError, ShapeError


def scene(side=264, seed=0, shapes=120):
    """Rectangles of all colours on each other, ``(1, 3, side, side)``."""
    generator = torch.Generator().manual_seed(seed)
    image = torch.full((1, 3, side, side), 0.5)
    for _ in range(shapes):
        top, left, height, width = (torch.rand(4, generator=generator) * side * torch.tensor([1, 1, 0.3, 0.3])).long()
        image[..., top : top + height + 4, left : left + width + 4] = torch.rand(3, 1, 1, generator=generator)
    return image


def blurred(image, kernel, noise=0.002):
    light = filter2d(to_light(image), kernel[None].to(image), border_type="replicate")
    grain = torch.randn(image.shape, generator=torch.Generator().manual_seed(1))
    return (from_light(light) + noise * grain).clamp(0, 1)


def kernel_of(size, seed):
    return ShakeBlur(size, 0.4).kernel(torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("seed", range(3))
def test_a_photo_and_a_half_deblurred_one_give_the_kernel(seed):
    sharp, kernel = scene(seed=seed), kernel_of(15, seed)
    blurry = blurred(sharp, kernel)
    half = (blurry + sharp) / 2  # what a network leaves: halves of the streaks
    (found,) = estimate_blur_kernel(blurry, half, 21)
    assert float(found.sum()) == pytest.approx(1)
    assert float(found.min()) >= 0
    padded = torch.nn.functional.pad(kernel, (3, 3, 3, 3))
    assert float(kernel_similarity(found, padded)) > 0.9
    # As it lies, too: a deblurred photo must not move.
    assert float((found * padded).sum() / found.norm() / padded.norm()) > 0.85


def test_each_image_of_a_batch_has_its_kernel():
    sharp = torch.cat([scene(seed=0), scene(seed=1)])
    blurry = torch.cat([blurred(sharp[[i]], kernel_of(13, i)) for i in range(2)])
    together = estimate_blur_kernel(blurry, sharp, 17)
    for index in range(2):
        alone = estimate_blur_kernel(blurry[[index]], sharp[[index]], 17)
        torch.testing.assert_close(together[[index]], alone, rtol=0, atol=1e-9)


def test_a_flat_photo_has_no_kernel():
    flat = torch.full((1, 3, 80, 80), 0.5)
    assert estimate_blur_kernel(flat, flat, 9).isnan().all()
    blur = PhotoBlur.of(flat, flat, 9)
    assert blur.agreement == 0
    image = torch.rand(1, 3, 20, 20)
    torch.testing.assert_close(blur(image), image, rtol=0, atol=1e-5)  # no blur, and no NaN


@pytest.mark.parametrize(
    ("size", "shape", "error", "message"),
    [
        (8, (1, 3, 64, 64), ArgumentError, "odd number of pixels"),
        (21, (1, 3, 64, 64), ShapeError, "at least 84 pixels a side"),
        (9, (1, 1, 64, 64), ShapeError, "RGB images"),
        (9, (0, 3, 64, 64), ShapeError, "one or more"),
        ("9", (1, 3, 64, 64), ArgumentError, "odd number of pixels"),
        (9.0, (1, 3, 64, 64), ArgumentError, "odd number of pixels"),
        (float("nan"), (1, 3, 64, 64), ArgumentError, "odd number of pixels"),
        (10**9 + 1, (1, 3, 64, 64), ArgumentError, "from 3 to 127"),
    ],
)
def test_what_cannot_be_estimated_is_refused(size, shape, error, message):
    image = torch.rand(shape)
    with pytest.raises(error, match=message):
        estimate_blur_kernel(image, image, size)


@pytest.mark.parametrize("name", ["blurry", "deblurred"])
@pytest.mark.parametrize("function", [estimate_blur_kernel, PhotoBlur.of])
@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (lambda image: image * float("nan"), "must hold finite values"),
        (lambda image: image * 255, r"must lie in \[0, 1\]"),
        (lambda image: (255 * image).byte(), "floating point values"),
        (lambda image: [image], "must be a tensor"),
    ],
)
def test_images_that_are_none_are_refused(function, name, broken, message):
    images = {"blurry": torch.rand(1, 3, 80, 80), "deblurred": torch.rand(1, 3, 80, 80)}
    with pytest.raises(ArgumentError, match=f"`{name}` {message}" if "[" in message else message):
        function(**(images | {name: broken(images[name])}), size=9)


def test_a_device_without_values_is_told():
    image = torch.rand(1, 3, 80, 80, device="meta")
    with pytest.raises(ArgumentError, match="on the device meta"):
        estimate_blur_kernel(image, image, 9)


def test_half_precision_gives_nearly_the_same_kernel():
    sharp, kernel = scene(), kernel_of(13, 0)
    blurry = blurred(sharp, kernel)
    found = estimate_blur_kernel(blurry.half(), sharp.half(), 17)
    assert float(kernel_similarity(found, estimate_blur_kernel(blurry, sharp, 17))) > 0.99
    assert float(kernel_similarity(kernel.half(), kernel.half())) == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize(
    ("one", "other", "error"),
    [
        (torch.rand(2, 3, 3), torch.rand(3, 3, 3), ShapeError),
        (torch.rand(1, 3, 0), torch.rand(1, 3, 0), ShapeError),
        (torch.ones(3, 3).long(), torch.ones(3, 3).long(), ArgumentError),
        (torch.rand(3, 3), None, ArgumentError),
        (torch.rand(3, 3, device="meta"), torch.rand(3, 3), ArgumentError),
    ],
)
def test_what_is_no_pair_of_kernels_is_refused(one, other, error):
    with pytest.raises(error, match="kernels must"):
        kernel_similarity(one, other)


def test_similarity_is_one_for_a_shifted_kernel_and_symmetric():
    one, other = kernel_of(15, 0), kernel_of(15, 1)
    assert float(kernel_similarity(one, one.roll((1, 2), (0, 1)))) == pytest.approx(1, abs=1e-3)
    assert float(kernel_similarity(one, other)) == pytest.approx(float(kernel_similarity(other, one)))
    assert float(kernel_similarity(one, other)) < 0.9
    with pytest.raises(ShapeError, match="same size"):
        kernel_similarity(one, kernel_of(13, 0))


def test_a_photo_blurred_all_over_agrees_with_itself_and_gives_its_blur_to_others():
    sharp, kernel = scene(seed=4, side=320, shapes=400), kernel_of(13, 4)
    blur = PhotoBlur.of(blurred(sharp, kernel), sharp, 17)
    assert blur.agreement > 0.9
    assert blur.border == 8
    other = scene(seed=5)
    expected, given = blurred(other, kernel, noise=0), blur(other)
    assert float((given - expected).abs().mean()) < 0.25 * float((other - expected).abs().mean())


def test_two_halves_with_other_blurs_do_not_agree():
    sharp = scene(seed=6, side=320, shapes=400)
    line = torch.zeros(15, 15)
    line[7] = 1 / 15
    left, right = blurred(sharp, line), blurred(sharp, line.T)
    blurry = torch.cat([left[..., :160], right[..., 160:]], -1)
    assert PhotoBlur.of(blurry, (blurry + sharp) / 2, 17).agreement < 0.8


def test_draws_are_kernels_of_the_photo():
    kernels = torch.stack([kernel_of(9, seed) for seed in range(4)])
    drawn = PhotoBlur(kernels, seed=0).draw(40)
    assert drawn.shape == (40, 9, 9)
    assert {int((kernels == one).all((1, 2)).nonzero()) for one in drawn} == {0, 1, 2, 3}


@pytest.mark.parametrize(
    "kernels",
    [
        None,
        [[1.0]],
        torch.ones(1, 3, 3),
        -torch.ones(1, 1, 1),
        torch.ones(1, 1, 1).long(),
        torch.full((1, 1, 1), torch.nan),
    ],
)
def test_what_is_no_kernel_is_refused(kernels):
    with pytest.raises(ArgumentError, match="`kernels` must be"):
        PhotoBlur(kernels)


def test_kernels_are_copied():
    kernels = torch.ones(1, 1, 1)
    blur = PhotoBlur(kernels)
    kernels.zero_()
    assert blur.draw(1) == 1


def test_kernels_of_another_shape_are_refused():
    with pytest.raises(ShapeError, match="odd size"):
        PhotoBlur(torch.rand(3, 8, 8))
    with pytest.raises(ShapeError, match="at least 72 pixels"):
        PhotoBlur.of(torch.rand(1, 3, 64, 80), torch.rand(1, 3, 64, 80), 9)


def test_conjugate_gradients_end_at_the_least_squares():
    """The matrix of shifted edges, made in full, and solved."""
    generator = torch.Generator().manual_seed(0)
    edges, wanted = torch.randn(2, 2, 40, 36, generator=generator, dtype=torch.float64)
    size, reach = 7, 3
    places = [(down, right) for down in range(-reach, reach + 1) for right in range(-reach, reach + 1)]
    shifted = torch.stack([edges.roll(place, (1, 2)).flatten() for place in places], 1)
    ridge = kernel_estimate._RIDGE * edges.square().sum() * torch.eye(size**2, dtype=torch.float64)
    kernel = torch.linalg.solve(shifted.T @ shifted + ridge, shifted.T @ wanted.flatten())
    found = kernel_estimate._solved(edges, wanted, size)
    torch.testing.assert_close(found, kernel.view(size, size), rtol=0, atol=1e-7 * float(kernel.abs().max()))
