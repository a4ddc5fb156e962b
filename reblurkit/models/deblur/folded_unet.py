"""A U-Net on a folded grid: the network in the box."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn
from torch.nn import functional as F

from reblurkit.errors import ArgumentError
from reblurkit.models.layers import ResBlock, fold_pixels, same_conv


class FoldedUNet(nn.Module):
    """A U-Net of residual blocks whose finest level works on 2x2 pixels at once, which makes it fast on a CPU.

    Not from a paper. Pixels are folded into channels (12 of them at half the size), go through a U-Net with added
    skips and without normalisation, and are unfolded into what is added to the input. Every residual block ends, and
    the network ends, with a convolution that starts at 0: a new network is the identity. Images of sizes that do not
    divide by ``multiple`` are padded at the right and lower border by repeating it, and the output is cropped.

    Args:
        widths: Channels at half the size, a quarter, and so on.
        blocks: Residual blocks at each of these sizes; on the way up as many again, but for the smallest size.

    Shape:
        ``(B, 3, H, W)`` in [0, 1] to the same shape, not clamped.

    Raises:
        ArgumentError: If there are not as many blocks as widths, or a number is too small.

    Example:
        >>> sum(p.numel() for p in FoldedUNet().parameters())
        3558300
    """

    def __init__(self, widths: Sequence[int] = (64, 128, 176), blocks: Sequence[int] = (3, 2, 3)) -> None:
        super().__init__()
        if not widths or len(widths) != len(blocks) or min(widths) < 1 or min(blocks) < 0:
            raise ArgumentError(
                "`widths` must be positive numbers and `blocks` as many, at least 0, but are "
                f"{tuple(widths)} and {tuple(blocks)}"
            )
        self.multiple = 2 ** len(widths)  # it pads what does not divide, but tiles must lie on this grid
        steps = list(pairwise(widths))
        self.enter = same_conv(12, widths[0], 3)
        self.encoders = nn.ModuleList(_blocks(width, number) for width, number in zip(widths, blocks, strict=True))
        self.downs = nn.ModuleList(nn.Conv2d(fine, coarse, 2, stride=2) for fine, coarse in steps)
        self.ups = nn.ModuleList(
            nn.Sequential(nn.Conv2d(coarse, 4 * fine, 1), nn.PixelShuffle(2)) for fine, coarse in steps
        )
        self.decoders = nn.ModuleList(
            _blocks(width, number) for width, number in zip(widths[:-1], blocks[:-1], strict=True)
        )
        self.leave = _zero(same_conv(widths[0], 12, 3))

    def forward(self, blurry: Tensor) -> Tensor:
        """Return the deblurred image."""
        height, width = blurry.shape[-2:]
        features = self.enter(fold_pixels(blurry, 2, self.multiple))
        skips = []
        for encoder, down in zip(self.encoders, self.downs, strict=False):
            skips.append(encoder(features))
            features = down(skips[-1])
        features = self.encoders[-1](features)
        for up, decoder, skip in zip(reversed(self.ups), reversed(self.decoders), reversed(skips), strict=True):
            features = decoder(up(features) + skip)
        deblurred: Tensor = blurry + F.pixel_shuffle(self.leave(features), 2)[..., :height, :width]
        return deblurred


def _blocks(width: int, number: int) -> nn.Sequential:
    blocks = [ResBlock(width, 3) for _ in range(number)]
    for block in blocks:
        _zero(block.body[-1])
    return nn.Sequential(*blocks)


def _zero(convolution: nn.Module) -> nn.Module:
    for parameter in convolution.parameters():
        nn.init.zeros_(parameter)
    return convolution
