from __future__ import annotations

import pytest
import torch
from scipy.stats import binomtest
from torch.nn import functional as F

from reblurkit.blur import MotionBlur, MovingObjectBlur
from reblurkit.errors import ShapeError
from tests.blur.test_motion import photos


def scene(*, background, moving, outline):
    """Draws of a scene in which each of the two moves by one vector (u, v) in half of the exposure."""
    planes = [sign * value for vector in (background, moving) for sign in (1, -1) for value in vector]
    return torch.cat([torch.tensor(planes)[:, None, None].expand(8, 4, 4), outline[None]])[None]


def shifted(image, shift):
    """An image moved by a vector (u, v)."""
    height, width = image.shape[-2:]
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    scale = torch.tensor([width - 1, height - 1]) / 2
    place = (torch.stack([columns, rows], -1) - torch.as_tensor(shift)) / scale - 1
    return F.grid_sample(image, place[None].double(), padding_mode="border", align_corners=True)


@pytest.mark.parametrize(("background", "moving"), [((0.0, 0.0), (9.0, 4.0)), ((-6.0, 7.0), (0.0, 0.0))])
def test_it_is_the_time_average_of_an_opaque_layer_that_moves_before_another(background, moving):
    image = photos()[:1]
    torch.manual_seed(0)
    drawn = scene(background=background, moving=moving, outline=torch.randn(4, 4))
    blur = MovingObjectBlur(largest=12, linear=False)
    blurry = blur.blur(image, drawn)
    matte = (F.interpolate(drawn[:, 8:], size=image.shape[-2:], mode="bicubic", align_corners=True) > 0).to(image)
    assert 0.2 < matte.mean() < 0.8
    expected, times = torch.zeros_like(image), (torch.arange(256) + 0.5) / 128 - 1
    for time in times:
        layer = shifted(torch.cat([image * matte, matte], 1), time * torch.tensor(moving))
        behind = shifted(image, time * torch.tensor(background))
        expected += (layer[:, :3] + (1 - layer[:, 3:]) * behind) / len(times)
    error = (blurry - expected)[..., 12:-12, 12:-12].square().mean()
    assert -10 * error.log10() >= 45
    assert (blurry - image).square().mean() > 50 * error


def test_what_stands_still_stays_sharp_up_to_the_outline():
    image = photos().float()
    outline = torch.ones(4, 4)
    outline[:, 2:] = -1  # the object is the left half
    drawn = scene(background=(0.0, 0.0), moving=(6.0, 0.0), outline=outline).expand(2, -1, -1, -1)
    blurry = MovingObjectBlur(largest=6, linear=False).blur(image, drawn)
    torch.testing.assert_close(blurry[..., 108:], image[..., 108:], rtol=0, atol=1e-6)
    alone = MotionBlur(largest=6, linear=False).blur(image, drawn[:, 4:8].unflatten(1, (2, 2)))
    torch.testing.assert_close(blurry[..., :92], alone[..., :92], rtol=0, atol=1e-6)


def test_in_one_of_three_the_background_stands_still_and_in_one_of_six_the_object():
    drawn = MovingObjectBlur(smallest=1, seed=0).draw(900)
    background, moving = (drawn[:, 4 * part : 4 * part + 4].abs().amax((1, 2, 3)) > 0 for part in range(2))
    assert (background | moving).all()
    assert binomtest(int((~background).sum()), 900, 1 / 3).pvalue > 0.01
    assert binomtest(int((~moving).sum()), 900, 1 / 6).pvalue > 0.01


def test_object_and_background_move_as_a_motion_blur_does_each_by_itself():
    blur = MovingObjectBlur(largest=9, smallest=2, seed=1)
    motions = blur.draw(400)[:, :8].unflatten(1, (2, 2, 2))
    lengths = torch.linalg.vector_norm(motions, dim=3).amax((2, 3, 4))
    lengths = lengths[(lengths > 0).all(1)]
    assert (lengths >= 2 - 1e-5).all()
    assert (lengths <= 9 + 1e-5).all()
    assert abs(torch.corrcoef(lengths.T)[0, 1]) < 0.2


def test_about_half_of_the_image_is_the_object():
    outlines = MovingObjectBlur(seed=2).draw(400)[:, 8:]
    share = (F.interpolate(outlines, size=(64, 64), mode="bicubic", align_corners=True) > 0).float().mean((1, 2, 3))
    assert abs(share.mean() - 0.5) < 0.05
    assert ((share > 0.05) & (share < 0.95)).float().mean() > 0.9


@pytest.mark.parametrize("linear", [True, False])
def test_constants_stay_constant(linear):
    constant = torch.full((4, 3, 20, 24), 0.4)
    blurry = MovingObjectBlur(largest=30, seed=0, linear=linear)(constant)
    torch.testing.assert_close(blurry, constant, rtol=0, atol=2e-6)


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (5, 3)])
def test_tiny_and_grey_images(size):
    image = torch.rand(2, 1, *size)
    blurry = MovingObjectBlur(largest=4, seed=0)(image)
    assert blurry.shape == image.shape
    assert ((blurry >= -1e-6) & (blurry <= 1 + 1e-6)).all()


@pytest.mark.parametrize("shape", [(2, 8, 4, 4), (2, 10, 4, 4), (2, 9, 5, 5), (2, 2, 2, 4, 4)])
def test_draws_of_another_blur_are_refused(shape):
    with pytest.raises(ShapeError, match=r"expected scenes of `draw`, \(B, 9, 4, 4\), but came"):
        MovingObjectBlur().blur(torch.rand(2, 3, 8, 8), torch.rand(shape))
