from __future__ import annotations

import pytest
import torch

from reblurkit.errors import ArgumentError
from reblurkit.losses import CharbonnierLoss, FrequencyLoss


def test_charbonnier_is_the_mean_of_its_formula():
    a, b = torch.rand(2, 2, 3, 5, 7, dtype=torch.float64)
    expected = ((a - b) ** 2 + 0.01**2).sqrt().mean()
    torch.testing.assert_close(CharbonnierLoss(0.01)(a, b), expected, rtol=1e-14, atol=0)


def test_frequency_loss_is_the_l1_distance_of_stacked_coefficients():
    a, b = torch.rand(2, 2, 3, 5, 7, dtype=torch.float64)
    stacked = [torch.stack([f.real, f.imag], -1) for f in (torch.fft.fft2(a), torch.fft.fft2(b))]
    expected = torch.nn.functional.l1_loss(*stacked)
    torch.testing.assert_close(FrequencyLoss()(a, b), expected, rtol=1e-12, atol=0)


def test_frequency_loss_takes_half_precision():
    image = torch.rand(1, 3, 8, 8)
    assert FrequencyLoss()(image.half(), image.half() / 2).isfinite()


@pytest.mark.parametrize("loss", [CharbonnierLoss(0.1), FrequencyLoss()])
def test_gradients(loss):
    a, b = torch.rand(2, 1, 2, 4, 5, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda x: loss(x, b), a.requires_grad_())


def test_epsilon_must_be_positive():
    with pytest.raises(ArgumentError, match="greater than 0, but is 0"):
        CharbonnierLoss(0)
