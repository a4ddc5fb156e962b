from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.stats import kstest
from skimage import data
from torch.nn import functional as F

from reblurkit.blur import MotionBlur
from reblurkit.errors import ArgumentError, ShapeError


def photos():
    both = np.stack([photo[:160, :200] for photo in (data.astronaut(), data.coffee())])
    return torch.from_numpy(both).permute(0, 3, 1, 2).double() / 255


def time_average(image, flow_next, flow_prev, samples=128):
    """The definition: what a pixel sees on its way along the flow, half of the time to each side, in linear light."""
    light = torch.where(image > 0.04045, ((image + 0.055) / 1.055) ** 2.4, image / 12.92)
    height, width = image.shape[-2:]
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    here, scale = torch.stack([columns, rows], -1), torch.tensor([width - 1, height - 1]) / 2
    total = torch.zeros_like(image)
    for flow in (flow_next, flow_prev):
        for time in (np.arange(samples) + 0.5) / samples:
            place = (here + time * flow.permute(0, 2, 3, 1)) / scale - 1
            total += F.grid_sample(light, place, padding_mode="border", align_corners=True) / (2 * samples)
    return torch.where(total > 0.0031308, 1.055 * total ** (1 / 2.4) - 0.055, 12.92 * total)


def test_it_is_the_time_average_of_the_moving_image():
    image = photos()
    for seed in range(3):
        blur = MotionBlur(largest=12, smallest=6, seed=seed)
        drawn = blur.draw(2)
        blurry = blur.blur(image, drawn)
        expected = time_average(image, *blur.flows(drawn.double(), (160, 200)))
        error = (
            (blurry - expected)[..., blur.border : -blur.border, blur.border : -blur.border].square().mean((1, 2, 3))
        )
        assert (-10 * error.log10() >= 45).all()
        assert ((blurry - image).square().mean((1, 2, 3)) > 50 * error).all()


def test_the_longest_vectors_follow_the_stated_distribution():
    blur = MotionBlur(largest=9, smallest=2, seed=0)
    flow_next, flow_prev = blur.flows(blur.draw(400), (24, 32))
    lengths = torch.linalg.vector_norm(torch.stack([flow_next, flow_prev], 1), dim=2).amax((1, 2, 3))
    assert (lengths >= 2).all()
    assert (lengths <= 9 + 1e-5).all()
    assert kstest(((lengths - 2) / 7).clamp(0, 1).numpy() ** (1 / 1.5), "uniform").pvalue > 0.05


def test_no_direction_is_preferred_and_the_halves_go_opposite_ways():
    blur = MotionBlur(seed=1)
    flow_next, flow_prev = (flow.mean((2, 3)) for flow in blur.flows(blur.draw(400), (16, 16)))
    angles = torch.atan2(flow_next[:, 1], flow_next[:, 0])
    assert kstest((angles / (2 * math.pi) + 0.5).numpy(), "uniform").pvalue > 0.05
    assert (torch.cosine_similarity(flow_next, flow_prev) < -0.7).all()


def test_motion_is_smooth():
    """From pixel to pixel it changes by far less than its length: objects bend, and do not tear."""
    blur = MotionBlur(largest=10, smallest=10, seed=2)
    for flow in blur.flows(blur.draw(20), (64, 64)):
        assert max(flow.diff(dim=axis).abs().max() for axis in (-1, -2)) < 2


@pytest.mark.parametrize("linear", [True, False])
def test_constants_stay_constant(linear):
    constant = torch.full((2, 3, 20, 24), 0.4)
    torch.testing.assert_close(MotionBlur(largest=30, seed=0, linear=linear)(constant), constant, rtol=0, atol=1e-6)


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (5, 3)])
def test_tiny_and_grey_images(size):
    assert MotionBlur(seed=0)(torch.rand(2, 1, *size)).shape == (2, 1, *size)


def test_gradients_pass_to_the_image():
    image = 0.1 + 0.8 * torch.rand(1, 3, 5, 6, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda x: MotionBlur(largest=3, seed=0)(x), image.requires_grad_())


def test_wrong_input():
    with pytest.raises(ArgumentError, match="`smallest` must be at most `largest`, but they are 20 and 14"):
        MotionBlur(smallest=20)
    with pytest.raises(ArgumentError, match="`largest` must be a finite number of pixels greater than 0, but is -1"):
        MotionBlur(largest=-1)
    with pytest.raises(ShapeError, match=r"expected motions of `draw`, \(B, 2, 2, 4, 4\), but came \(1, 9, 9\)"):
        MotionBlur().blur(torch.rand(1, 3, 8, 8), torch.rand(1, 9, 9))
