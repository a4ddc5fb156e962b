"""Images that agree with their photos when they are reblurred."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from torch.nn import functional as F

from reblurkit.blur import MotionBlur, consistency, kernel_similarity, make_consistent
from reblurkit.errors import ArgumentError, ShapeError
from reblurkit.models import load_pretrained
from tests.blur.test_kernel_estimate import blurred, kernel_of, scene


def psnr(one, other):
    return float(-10 * (one - other).square().mean().log10())


def deblurred_by_the_box(blurry):
    with torch.no_grad():
        return load_pretrained().network(blurry).clamp(0, 1)


@pytest.fixture(scope="module")
def shaken():
    """A sharp scene, its photo by a shaken camera, what the network in the box makes of it, and the kernel."""
    sharp, kernel = scene(seed=1), kernel_of(15, 1)
    blurry = blurred(sharp, kernel)
    return sharp, blurry, deblurred_by_the_box(blurry), kernel


def test_a_shaken_photo_gets_nearer_to_the_sharp_one(shaken):
    sharp, blurry, deblurred, kernel = shaken
    found = make_consistent(blurry, deblurred)
    assert found.accepted.tolist() == [[[True]]]
    assert psnr(found.image, sharp) > psnr(deblurred, sharp) + 1
    padding = (found.kernels.shape[-1] - len(kernel)) // 2
    assert float(kernel_similarity(found.kernels[0, 0, 0], F.pad(kernel, (padding,) * 4))) > 0.9
    assert float(found.unexplained) < 0.1


def test_blur_that_differs_from_place_to_place_is_left_to_the_network():
    blurry = MotionBlur(12, smallest=11, seed=4)(scene(seed=1))
    deblurred = deblurred_by_the_box(blurry)
    found = make_consistent(blurry, deblurred)
    assert not found.accepted.any()
    assert torch.equal(found.image, deblurred)


@pytest.mark.parametrize("deblurred", ["as it is", "by the network"])
def test_a_sharp_photo_stays_as_it_came(deblurred):
    sharp = scene(seed=2)
    came = sharp if deblurred == "as it is" else deblurred_by_the_box(sharp)
    found = make_consistent(sharp, came)
    assert not found.accepted.any()
    assert torch.equal(found.image, came)


def test_a_flat_photo_has_no_kernel():
    flat = torch.full((1, 3, 256, 256), 0.5)
    found = make_consistent(flat, flat)
    assert found.kernels.isnan().all()
    assert found.unexplained.isnan().all()
    assert torch.equal(found.image, flat)


def test_the_correction_is_that_of_least_squares():
    generator = torch.Generator().manual_seed(0)
    kernel = kernel_of(9, 0).double()
    kernel = kernel / kernel.sum()
    photo, proposal = torch.rand(2, 1, 3, 40, 48, generator=generator, dtype=torch.float64)
    found = consistency._correction(photo, proposal, kernel).detach()
    missing = photo - consistency._reblurred(proposal, kernel)
    missing = missing * consistency.fading(missing, consistency._BORDER)

    def blur(image):  # beyond the border there is nothing
        return F.conv2d(image.transpose(0, 1), kernel[None, None], padding=4).transpose(0, 1)

    # The correction reaches beyond the border, where it is cut off; away from it nothing can be better.
    correction = found.clone().requires_grad_()
    loss = (blur(correction) - missing).square().sum() + consistency._NOISE * correction.square().sum()
    (slope,) = torch.autograd.grad(loss, correction)
    at_zero = torch.autograd.grad(
        (blur(one := torch.zeros_like(found, requires_grad=True)) - missing).square().sum(), one
    )
    assert float(slope[..., 12:-12, 12:-12].abs().max()) < 0.02 * float(at_zero[0].abs().max())


def test_regions_cover_an_image_and_overlap():
    for length in (80, 768, 769, 1000, 1344, 1345, 5000):
        spans = consistency._spans(length, 768)
        assert (spans[0].start, spans[-1].stop) == (0, length)
        assert all(one.stop - other.start >= consistency._OVERLAP for one, other in pairwise(spans))
        assert {span.stop - span.start for span in spans} == {min(length, 768)}


def test_each_region_is_judged_and_corrected_for_itself(shaken, monkeypatch):
    sharp, blurry, deblurred, _ = shaken
    monkeypatch.setattr(consistency, "_REGION", 264)
    flat = torch.full_like(sharp, 0.5)
    wide = [torch.cat([one, other], -1) for one, other in ((blurry, flat), (deblurred, flat))]
    found = make_consistent(*wide, kernel_size=31)
    assert found.accepted.shape == (1, 1, 5)
    assert found.kernels.shape == (1, 1, 5, 31, 31)
    assert found.accepted[0, 0].tolist()[0::4] == [True, False]
    assert torch.equal(found.image[..., 264 + 200 :], wide[1][..., 264 + 200 :])
    assert psnr(found.image[..., :200], sharp[..., :200]) > psnr(deblurred[..., :200], sharp[..., :200]) + 0.5


def test_regions_are_blended_without_seams_up_to_the_border(monkeypatch):
    left, right = torch.full((1, 3, 300, 1344), 0.5), torch.full((1, 3, 300, 1344), 0.4)
    values = iter((0.5, 0.4))
    nothing = torch.zeros(3, 3), torch.tensor(0.0), torch.tensor(True)
    monkeypatch.setattr(consistency, "_corrected", lambda blurry, *_: (torch.full_like(blurry, next(values)), *nothing))
    image = make_consistent(left, right).image
    assert float(image.diff(dim=-1).abs().max()) < 0.1 / 100
    torch.testing.assert_close(image[..., :500], left[..., :500])
    torch.testing.assert_close(image[..., -500:], right[..., -500:])


def test_each_photo_of_a_batch_for_itself(shaken):
    _, blurry, deblurred, _ = shaken
    flat = torch.full_like(blurry, 0.5)
    both = make_consistent(torch.cat([flat, blurry]), torch.cat([flat, deblurred]))
    assert both.accepted.flatten().tolist() == [False, True]
    torch.testing.assert_close(both.image[[1]], make_consistent(blurry, deblurred).image)


def test_half_precision_is_computed_in_single_and_autocast_changes_nothing(shaken):
    _, blurry, deblurred, _ = shaken
    expected = make_consistent(blurry.half().float(), deblurred.half().float()).image
    with torch.autocast("cpu", torch.bfloat16):
        found = make_consistent(blurry.half(), deblurred.half()).image
    assert found.dtype == torch.half
    torch.testing.assert_close(found, expected.half())


def test_images_of_inference_mode_will_do(shaken):
    _, blurry, deblurred, _ = shaken
    expected = make_consistent(blurry, deblurred)
    with torch.inference_mode():
        blurry, deblurred = blurry.clone(), deblurred.clone()
        torch.testing.assert_close(make_consistent(blurry, deblurred).image, expected.image)
    torch.testing.assert_close(make_consistent(blurry, deblurred).image, expected.image)


IMAGE = torch.rand(1, 3, 256, 256)


@pytest.mark.parametrize(
    ("arguments", "error", "said"),
    [
        ((IMAGE, IMAGE, 8), ArgumentError, "`kernel_size` must be an odd number of pixels from 3 to 127, but is 8"),
        ((IMAGE, IMAGE, 0), ArgumentError, "`kernel_size` must be an odd number"),
        ((IMAGE, IMAGE, 33), ShapeError, "kernels of 33 pixels needs .* 264 pixels.*; these take kernels of up to 31"),
        ((IMAGE[..., :255], IMAGE[..., :255], 9), ShapeError, "at least 256 pixels a side, but came"),
        ((IMAGE[:0], IMAGE[:0], 31), ShapeError, "one or more"),
        ((IMAGE[:, :1], IMAGE[:, :1], 31), ShapeError, "RGB photos"),
        ((IMAGE, IMAGE[..., 1:], 31), ShapeError, "same shape"),
        ((IMAGE, IMAGE * 255, 31), ArgumentError, "`deblurred`"),
        ((IMAGE, IMAGE.log().log(), 31), ArgumentError, "deblurred"),
        ((IMAGE[0], IMAGE[0], 31), ShapeError, "B, "),
    ],
)
def test_what_is_not_taken_is_named(arguments, error, said):
    *images, size = arguments
    with pytest.raises(error, match=said):
        make_consistent(*images, kernel_size=size)


def test_a_correction_far_beyond_what_the_network_changed_is_refused(monkeypatch):
    """However well it explains the photo."""
    sharp = scene(seed=1)
    blurry = blurred(sharp, kernel_of(15, 1))
    little = blurry + 0.02 * (sharp - blurry)
    monkeypatch.setattr(consistency, "_MOST_UNEXPLAINED", 1.0)
    found = make_consistent(blurry, little, kernel_size=21)
    assert not found.accepted.any()
    assert torch.equal(found.image, little)
    monkeypatch.setattr(consistency, "_MOST_ADDED", 100.0)
    assert make_consistent(blurry, little, kernel_size=21).accepted.all()
