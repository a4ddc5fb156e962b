"""Filters as factors of an image's Fourier transform, and borders that do not ring."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F


def transfer_function(kernel: Tensor, shape: Sequence[int]) -> Tensor:
    """What a convolution with a kernel, whose middle is its origin, multiplies an image's ``rfft2`` by.

    Args:
        kernel: ``(h, w)``, no larger than the image.
        shape: Height and width of the image, which goes on at its other side.

    Returns:
        Complex, ``(H, W // 2 + 1)``.
    """
    full: Tensor = F.pad(kernel, (0, shape[1] - kernel.shape[1], 0, shape[0] - kernel.shape[0]))
    found: Tensor = torch.fft.rfft2(full.roll([-(side // 2) for side in kernel.shape], (0, 1)))
    return found


def fading(image: Tensor, border: int) -> Tensor:
    """1, fading to 0 over so many pixels at an image's border, ``(H, W)``."""

    def one(length: int) -> Tensor:
        distance = torch.arange(length, dtype=torch.float64) + 0.5
        ramp = 0.5 - 0.5 * torch.cos(math.pi * (distance / border).clamp(max=1))
        return ramp * ramp.flip(0)

    height, width = image.shape[-2:]
    return (one(height)[:, None] * one(width)).to(image)
