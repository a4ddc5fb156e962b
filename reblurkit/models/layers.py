"""Layers that several networks share."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def same_conv(inputs: int, outputs: int, kernel_size: int, stride: int = 1) -> nn.Conv2d:
    """A convolution with zero padding that keeps the size (divides it by ``stride``)."""
    return nn.Conv2d(inputs, outputs, kernel_size, stride=stride, padding=kernel_size // 2)


def fold_pixels(image: Tensor, side: int, multiple: int) -> Tensor:
    """Squares of pixels as channels.

    Args:
        image: ``(B, C, H, W)``.
        side: Of the squares.
        multiple: Of ``side``; a size that does not divide by it is padded at the right and lower border by repeating
            it.

    Returns:
        ``(B, side**2 C, H' / side, W' / side)`` in the layout that oneDNN and cuDNN run convolutions faster in; every
        later one follows the first.
    """
    height, width = image.shape[-2:]
    padded = F.pad(image, (0, -width % multiple, 0, -height % multiple), mode="replicate")
    return F.pixel_unshuffle(padded, side).contiguous(memory_format=torch.channels_last)


class ResBlock(nn.Module):
    """x + conv(ReLU(conv(x))): no normalisation, nothing after the sum.

    The residual block of Nah et al., *Deep Multi-scale Convolutional Neural Network for Dynamic Scene Deblurring*
    (2017).

    Args:
        width: Channels.
        kernel_size: Odd side of both kernels.
    """

    def __init__(self, width: int, kernel_size: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            same_conv(width, width, kernel_size), nn.ReLU(inplace=True), same_conv(width, width, kernel_size)
        )

    def forward(self, features: Tensor) -> Tensor:
        """Map ``(B, width, H, W)`` to the same shape."""
        output: Tensor = features + self.body(features)
        return output
