"""Reconstruction losses beside ``torch.nn.L1Loss`` and ``torch.nn.MSELoss``."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from reblurkit.errors import ArgumentError


class CharbonnierLoss(nn.Module):
    """Mean of sqrt(d^2 + epsilon^2), a smooth L1.

    The form of the restoration literature (Lai et al., *Deep Laplacian Pyramid Networks*, 2017). Kornia's
    ``charbonnier_loss`` is Barron's sqrt(d^2 + 1) - 1, which is nearly quadratic at image scale.

    Args:
        epsilon: Half-width of the rounded tip, in image units, greater than 0.

    Shape:
        Two tensors of one shape; returns a scalar.

    Example:
        >>> CharbonnierLoss(epsilon=0.5)(torch.zeros(4), torch.full((4,), 1.2))
        tensor(1.3000)
    """

    def __init__(self, epsilon: float = 1e-3) -> None:
        super().__init__()
        if not epsilon > 0:
            raise ArgumentError(f"`epsilon` must be greater than 0, but is {epsilon}")
        self.epsilon = epsilon

    def forward(self, deblurred: Tensor, sharp: Tensor) -> Tensor:
        """Return the scalar loss."""
        return torch.sqrt((deblurred - sharp) ** 2 + self.epsilon**2).mean()


class FrequencyLoss(nn.Module):
    """Mean L1 distance of the two images' Fourier coefficients, real and imaginary parts apart.

    The multi-scale frequency reconstruction loss of Cho et al., *Rethinking Coarse-to-Fine Approach in Single Image
    Deblurring* (MIMO-UNet, 2021), equation 6, at one scale; the authors weight it by 0.1 beside L1. The transform is
    not normalised, as theirs, and runs in float32 at least.

    Shape:
        Two tensors ``(B, C, H, W)``; returns a scalar.

    Example:
        >>> FrequencyLoss()(torch.zeros(1, 1, 4, 4), torch.ones(1, 1, 4, 4))  # one coefficient of 16 over 32 numbers
        tensor(0.5000)
    """

    def forward(self, deblurred: Tensor, sharp: Tensor) -> Tensor:
        """Return the scalar loss."""
        # The transform is linear: one of the difference equals the difference of two.
        difference = deblurred - sharp
        if difference.dtype in (torch.float16, torch.bfloat16):
            difference = difference.float()
        return torch.view_as_real(torch.fft.fft2(difference)).abs().mean()
