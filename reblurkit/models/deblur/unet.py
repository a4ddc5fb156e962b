"""The baseline residual U-Net."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from reblurkit.errors import ArgumentError
from reblurkit.models.layers import ResBlock, same_conv


class UNet(nn.Module):
    """The baseline residual U-Net of Nah et al., *Clean Images are Hard to Reblur* (2021), Table S1.

    Two strided convolutions down, residual blocks at a quarter of the size, two transposed convolutions up. The table
    leaves four points open; picked here: ReLU after every convolution but the last, transposed 3x3 convolutions to go
    up, skips that are added (the table's channel counts leave no room to concatenate), and the input added to the
    output. Images of sizes that do not divide by 4 are padded at the right and lower border by repeating it, and the
    output is cropped; in :class:`reblurkit.models.FullSize` they are reflected, as for every network.

    Args:
        blocks: Residual blocks at a quarter of the size; 8 in Table S1, 4 to 32 in Table 1.
        widths: Channels at full, half and quarter size.
        skips: Add the encoder's features to the decoder's.
        global_residual: Add the input to the output.

    Shape:
        ``(B, 3, H, W)`` in [0, 1] to the same shape, not clamped.

    Raises:
        ArgumentError: If ``blocks`` or ``widths`` make no network.

    Example:
        >>> sum(p.numel() for p in UNet().parameters())
        5911491
    """

    def __init__(
        self,
        blocks: int = 8,
        widths: Sequence[int] = (64, 128, 192),
        skips: bool = True,
        global_residual: bool = True,
    ) -> None:
        super().__init__()
        if blocks < 0 or len(widths) != 3 or min(widths) < 1:
            raise ArgumentError(
                f"`blocks` must be at least 0 and `widths` three positive numbers, but are {blocks} and {tuple(widths)}"
            )
        self.multiple = 4  # it pads what does not divide, but tiles must lie on this grid
        full, half, quarter = widths
        self.skips = skips
        self.global_residual = global_residual
        self.enter = same_conv(3, full, 5)
        self.down1 = same_conv(full, half, 3, stride=2)
        self.down2 = same_conv(half, quarter, 3, stride=2)
        self.blocks = nn.Sequential(*(ResBlock(quarter, 3) for _ in range(blocks)))
        self.up1 = nn.ConvTranspose2d(quarter, half, 3, stride=2, padding=1, output_padding=1)
        self.up2 = nn.ConvTranspose2d(half, full, 3, stride=2, padding=1, output_padding=1)
        self.leave = same_conv(full, 3, 5)

    def forward(self, blurry: Tensor) -> Tensor:
        """Return the deblurred image."""
        height, width = blurry.shape[-2:]
        padded = F.pad(blurry, (0, -width % 4, 0, -height % 4), mode="replicate")
        full = torch.relu(self.enter(padded))
        half = torch.relu(self.down1(full))
        features = self.blocks(torch.relu(self.down2(half)))
        features = self.up1(features)
        features = torch.relu(features + half if self.skips else features)
        features = self.up2(features)
        features = torch.relu(features + full if self.skips else features)
        deblurred: Tensor = self.leave(features)[..., :height, :width]
        return deblurred + blurry if self.global_residual else deblurred
