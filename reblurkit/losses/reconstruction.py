"""Reconstruction losses beside ``torch.nn.L1Loss`` and ``torch.nn.MSELoss``."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from reblurkit.core.calls import finest_scale
from reblurkit.core.checks import check_images
from reblurkit.core.numbers import check_positive
from reblurkit.errors import ArgumentError, ShapeError


class CharbonnierLoss(nn.Module):
    """Mean of sqrt(d^2 + epsilon^2), a smooth L1.

    The form of the restoration literature (Lai et al., *Deep Laplacian Pyramid Networks*, 2017). Kornia's
    ``charbonnier_loss`` is Barron's sqrt(d^2 + 1) - 1, which is nearly quadratic at image scale.

    Args:
        epsilon: Half-width of the rounded tip, in image units, greater than 0.

    Shape:
        Two tensors of one shape; returns a scalar.

    Raises:
        ArgumentError: If ``epsilon`` is not greater than 0, or what comes is no pair of floating point tensors.
        ShapeError: If the shapes differ.

    Example:
        >>> CharbonnierLoss(epsilon=0.5)(torch.zeros(4), torch.full((4,), 1.2))
        tensor(1.3000)
    """

    def __init__(self, epsilon: float = 1e-3) -> None:
        super().__init__()
        check_positive(epsilon=epsilon)
        self.epsilon = epsilon

    def forward(self, deblurred: Tensor, sharp: Tensor) -> Tensor:
        """Return the scalar loss."""
        _check_pair(deblurred, sharp)
        return torch.sqrt((deblurred - sharp) ** 2 + self.epsilon**2).mean()


class LogMSELoss(nn.Module):
    """Mean over images of 10 log10(mean square error + floor), in dB: minus the PSNR, but for the floor.

    The PSNR loss of NAFNet (Chen et al., *Simple Baselines for Image Restoration*, 2022). Every image counts by what
    can be gained on it in dB, where L1 listens most to those that cannot be saved.

    Args:
        floor: Added to the mean square error, greater than 0; images that are nearer than this count for little. The
            authors' is 1e-8; 1e-4, 40 dB, where sharp images are among the input.

    Shape:
        Two tensors ``(B, C, H, W)``; returns a scalar.

    Raises:
        ArgumentError: If ``floor`` is not greater than 0, or what comes is no pair of floating point tensors.
        ShapeError: If the shapes differ.

    Example:
        >>> LogMSELoss(floor=1e-8)(torch.zeros(1, 1, 4, 4), torch.full((1, 1, 4, 4), 0.1))
        tensor(-20.0000)
    """

    def __init__(self, floor: float = 1e-4) -> None:
        super().__init__()
        check_positive(floor=floor)
        self.floor = floor

    def forward(self, deblurred: Tensor, sharp: Tensor) -> Tensor:
        """Return the scalar loss."""
        _check_pair(deblurred, sharp)
        return 10 * torch.log10((deblurred - sharp).square().flatten(1).mean(1) + self.floor).mean()


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
        _check_pair(deblurred, sharp)
        # The transform is linear: one of the difference equals the difference of two.
        difference = deblurred - sharp
        if difference.dtype in (torch.float16, torch.bfloat16):
            difference = difference.float()
        return torch.view_as_real(torch.fft.fft2(difference)).abs().mean()


class MultiScaleLoss(nn.Module):
    """A loss on every scale of a multi-scale network, summed, as SRN (2018) and MIMO-UNet (2021) are trained.

    The sharp image is resized bilinearly to each scale, as the authors of SRN and MIMO-UNet do. Given a single image,
    it is the loss itself.

    Args:
        loss: Called with a deblurred and a sharp image of one size; default L1.

    Shape:
        A list of ``(B, 3, h, w)`` from coarse to fine, the last of full size, or one image, and ``(B, 3, H, W)``;
        returns a scalar.

    Example:
        >>> scales = [torch.zeros(1, 3, 4, 4), torch.zeros(1, 3, 8, 8)]
        >>> MultiScaleLoss()(scales, torch.ones(1, 3, 8, 8))
        tensor(2.)
    """

    def __init__(self, loss: nn.Module | None = None) -> None:
        super().__init__()
        self.loss = loss or nn.L1Loss()

    def forward(self, deblurred: Tensor | Sequence[Tensor], sharp: Tensor) -> Tensor:
        """Return the sum of the loss over the scales."""
        check_images(deblurred=finest_scale(deblurred), sharp=sharp)
        scales = [deblurred] if isinstance(deblurred, Tensor) else deblurred
        total = sharp.new_zeros(())
        for image in scales:
            target = sharp
            if image.shape != sharp.shape:
                target = F.interpolate(sharp, size=image.shape[-2:], mode="bilinear", align_corners=False)
            total = total + self.loss(image, target)
        return total


def _check_pair(deblurred: Tensor, sharp: Tensor) -> None:
    """Refuse what would be broadcast, or subtracted as bytes are."""
    if not isinstance(deblurred, Tensor) or not isinstance(sharp, Tensor):
        raise ArgumentError(
            f"expected two tensors, but came {type(deblurred).__name__} and {type(sharp).__name__}; of a network that "
            "returns several scales, MultiScaleLoss(loss) takes all"
        )
    if deblurred.shape != sharp.shape:
        raise ShapeError(
            f"expected two tensors of one shape, but came {tuple(deblurred.shape)} and {tuple(sharp.shape)}"
        )
    if not deblurred.is_floating_point() or not sharp.is_floating_point():
        raise ArgumentError(f"expected floating point values, but came {deblurred.dtype} and {sharp.dtype}")
