"""Layers that several networks share."""

from __future__ import annotations

from torch import Tensor, nn


def same_conv(inputs: int, outputs: int, kernel_size: int, stride: int = 1) -> nn.Conv2d:
    """A convolution with zero padding that keeps the size (divides it by ``stride``)."""
    return nn.Conv2d(inputs, outputs, kernel_size, stride=stride, padding=kernel_size // 2)


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
