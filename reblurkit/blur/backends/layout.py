"""The layout of images that the compiled backends share."""

from __future__ import annotations

import torch
from torch import Tensor

LANES = 4


def groups_of(channels: int) -> int:
    """Number of groups of four that hold the channels.

    Example:
        >>> groups_of(3), groups_of(5)
        (1, 2)
    """
    return -(-channels // LANES)


def rows_of_four(image: Tensor, dtype: torch.dtype) -> Tensor:
    """Pixels as rows of four channels, so that one load takes four; missing channels are 0.

    Args:
        image: ``(B, C, H, W)``, any strides.
        dtype: Type of the result.

    Returns:
        Contiguous tensor ``(B * H * W * groups, 4)``.

    Example:
        >>> rows_of_four(torch.ones(1, 3, 2, 2), torch.float32)[0]
        tensor([1., 1., 1., 0.])
    """
    batch, channels, height, width = image.shape
    rows = image.new_empty((batch, height, width, groups_of(channels) * LANES), dtype=dtype)
    rows[..., :channels] = image.permute(0, 2, 3, 1)
    rows[..., channels:] = 0
    return rows.view(-1, LANES)
