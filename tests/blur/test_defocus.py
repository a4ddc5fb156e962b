"""Random defocus."""

from __future__ import annotations

import math

import pytest
import torch
from scipy.stats import kstest

from reblurkit.blur import DefocusBlur
from reblurkit.errors import ArgumentError


def test_the_kernel_is_a_disc_of_the_radius_asked_for():
    """Second moment of a disc: r^2 / 4 on each axis, and a little for the pixels' own width."""
    for radius in (4.0, 7.25):
        (kernel,) = DefocusBlur(largest=radius, smallest=radius).draw(1).double()
        place = torch.arange(len(kernel)) - len(kernel) // 2
        assert kernel.sum().item() == pytest.approx(1, abs=1e-6)
        assert (kernel * place).sum().item() == pytest.approx(0, abs=1e-6)
        moment = (kernel * place.square()).sum().item()
        assert moment == pytest.approx(radius**2 / 4 + 1 / 12, rel=0.05)
        assert kernel[len(kernel) // 2, len(kernel) // 2].item() == pytest.approx(1 / (math.pi * radius**2), rel=0.05)
        assert torch.equal(kernel, kernel.T)
        assert torch.equal(kernel, kernel.flip(0))


def test_radii_are_uniform():
    centre = DefocusBlur(largest=9, smallest=5, seed=0).draw(400)[:, 9, 9]
    radius = (1 / (math.pi * centre)).sqrt().numpy()
    assert kstest(radius, "uniform", args=(5, 4)).pvalue > 0.01


def test_constant_images_stay_constant():
    constant = torch.full((2, 3, 11, 14), 0.3)
    torch.testing.assert_close(DefocusBlur(4, seed=0)(constant), constant, rtol=0, atol=1e-6)


def test_bad_radii():
    with pytest.raises(ArgumentError, match="`smallest` must be at most `largest`"):
        DefocusBlur(largest=0.5)
    with pytest.raises(ArgumentError, match="`largest` must be a finite number"):
        DefocusBlur(largest=-1)
