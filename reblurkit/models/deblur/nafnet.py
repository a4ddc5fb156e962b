"""NAFNet, a U-Net of blocks without activation functions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from timm.layers import LayerNorm2d
from torch import Tensor, nn
from torch.nn import functional as F

from reblurkit.core.checks import check_size
from reblurkit.errors import ArgumentError

VARIANTS = {
    "gopro": ((1, 1, 1, 28), 1, (1, 1, 1, 1)),
    "sidd": ((2, 2, 4, 8), 12, (2, 2, 2, 2)),
}
"""Blocks of the encoders, the middle and the decoders in the published networks."""


class NAFNet(nn.Module):
    """The network of Chen et al., *Simple Baselines for Image Restoration* (2022), section 4.

    Gates (the product of two halves of the channels) stand for activation functions, and the mean over the image for
    channel attention. The published networks learnt from crops of 256 pixels, but a mean over a photo is another
    number than one over a crop: for photos set ``window=384``, or call :meth:`local`, as the authors do for every
    figure they publish. Keys are those of the published files in both forms.

    Args:
        width: Channels at full size, doubled with every halving; 32 and 64 in the published networks.
        variant: Blocks per level: ``"gopro"`` (GoPro and REDS, motion blur) or ``"sidd"`` (noise).
        encoder_blocks: Blocks of each encoder; overrides the variant's.
        middle_blocks: Blocks at the smallest size; overrides the variant's.
        decoder_blocks: Blocks of each decoder, smallest first; overrides the variant's.
        window: Side in pixels of local statistics, see :meth:`local`; None is the mean over the image.

    Attributes:
        multiple: What height and width must divide by: 16 with the four levels of the variants.

    Shape:
        ``(B, 3, H, W)`` in [0, 1] to the same shape, not clamped.

    Raises:
        ArgumentError: If a number of blocks, the width, the variant or the window makes no network.
        ShapeError: If height or width does not divide by ``multiple``.

    Example:
        >>> import torch
        >>> with torch.device("meta"):
        ...     network = NAFNet(width=32)
        >>> sum(p.numel() for p in network.parameters())
        17111907
    """

    multiple: int = 16

    def __init__(
        self,
        width: int = 32,
        variant: str = "gopro",
        *,
        encoder_blocks: Sequence[int] | None = None,
        middle_blocks: int | None = None,
        decoder_blocks: Sequence[int] | None = None,
        window: int | None = None,
    ) -> None:
        super().__init__()
        if variant not in VARIANTS:
            raise ArgumentError(f"`variant` must be one of {', '.join(VARIANTS)}, but is {variant!r}")
        published = VARIANTS[variant]
        encoder = tuple(published[0] if encoder_blocks is None else encoder_blocks)
        middle = published[1] if middle_blocks is None else middle_blocks
        decoder = tuple(published[2] if decoder_blocks is None else decoder_blocks)
        if width < 1 or min(*encoder, middle, *decoder) < 0 or len(encoder) != len(decoder):
            raise ArgumentError(
                "`width` must be at least 1, and there must be as many encoders as decoders, of 0 or more blocks, but "
                f"they are {width}, {encoder} and {decoder}, with {middle} blocks in the middle"
            )
        levels = [width * 2**level for level in range(len(encoder) + 1)]
        self.multiple = 2 ** len(encoder)
        self.intro = nn.Conv2d(3, width, 3, padding=1)
        self.encoders = nn.ModuleList(_blocks(level, blocks) for level, blocks in zip(levels, encoder, strict=False))
        self.downs = nn.ModuleList(nn.Conv2d(level, 2 * level, 2, stride=2) for level in levels[:-1])
        self.middle_blks = _blocks(levels[-1], middle)
        self.ups = nn.ModuleList(
            nn.Sequential(nn.Conv2d(level, 2 * level, 1, bias=False), nn.PixelShuffle(2)) for level in levels[:0:-1]
        )
        self.decoders = nn.ModuleList(
            _blocks(level, blocks) for level, blocks in zip(levels[-2::-1], decoder, strict=True)
        )
        self.ending = nn.Conv2d(width, 3, 3, padding=1)
        self.local(window)

    def forward(self, blurry: Tensor) -> Tensor:
        """Return the deblurred image."""
        check_size(blurry, self.multiple)
        features = self.intro(blurry)
        skips = []
        for encoder, down in zip(self.encoders, self.downs, strict=True):
            skips.append(encoder(features))
            features = down(skips[-1])
        features = self.middle_blks(features)
        for up, decoder in zip(self.ups, self.decoders, strict=True):
            features = decoder(up(features) + skips.pop())
        deblurred: Tensor = self.ending(features) + blurry
        return deblurred

    def local(self, window: int | None = 384) -> NAFNet:
        """Take the blocks' means over a window around each pixel, in place of the whole image.

        Chu et al., *Improving Image Restoration by Revisiting Global Information Aggregation* (2022). The window is
        halved with every level. Near a border it stays inside the image; an image no larger than the window keeps
        its global means. Weights and keys stay as they are.

        Args:
            window: Side in pixels of the input; 384 is the authors', one and a half crops. None takes the means over
                the image again.

        Returns:
            The network itself.

        Raises:
            ArgumentError: If nothing is left of the window at the smallest size.
        """
        if window is not None and window < self.multiple:
            raise ArgumentError(f"`window` must be at least {self.multiple} pixels, or None, but is {window}")
        levels = [*self.encoders, self.middle_blks, *reversed(self.decoders)]
        depths = [*range(len(self.encoders) + 1), *range(len(self.decoders))]
        for depth, level in zip(depths, levels, strict=True):
            for block in level:
                block.sca[0].window = None if window is None else window >> depth
        return self


class NAFBlock(nn.Module):
    """Two residual branches: depth-wise convolution with channel attention, and a gated pair of 1x1 convolutions.

    Both start at 0: a new block is the identity.

    Args:
        width: Channels.
    """

    expansion: ClassVar[int] = 2

    def __init__(self, width: int) -> None:
        super().__init__()
        wide = self.expansion * width
        self.norm1 = LayerNorm2d(width)
        self.conv1 = nn.Conv2d(width, wide, 1)
        self.conv2 = nn.Conv2d(wide, wide, 3, padding=1, groups=wide)
        self.sca = nn.Sequential(Mean(), nn.Conv2d(wide // 2, wide // 2, 1))
        self.conv3 = nn.Conv2d(wide // 2, width, 1)
        self.norm2 = LayerNorm2d(width)
        self.conv4 = nn.Conv2d(width, wide, 1)
        self.conv5 = nn.Conv2d(wide // 2, width, 1)
        self.beta = nn.Parameter(torch.zeros(1, width, 1, 1))
        self.gamma = nn.Parameter(torch.zeros(1, width, 1, 1))

    def forward(self, features: Tensor) -> Tensor:
        """Map ``(B, width, H, W)`` to the same shape."""
        branch = _gate(self.conv2(self.conv1(self.norm1(features))))
        features = features + self.beta * self.conv3(branch * self.sca(branch))
        branch = _gate(self.conv4(self.norm2(features)))
        output: Tensor = features + self.gamma * self.conv5(branch)
        return output


class Mean(nn.Module):
    """The mean of each channel: over the image, or over a window around each pixel."""

    def __init__(self) -> None:
        super().__init__()
        self.window: int | None = None

    def forward(self, features: Tensor) -> Tensor:
        """Return means of shape ``(B, C, 1, 1)``, or ``(B, C, H, W)`` of a window smaller than the image."""
        height, width = features.shape[-2:]
        if self.window is None or self.window >= max(height, width):
            return features.mean((-2, -1), keepdim=True)
        return window_mean(features, (min(self.window, height), min(self.window, width)))

    def extra_repr(self) -> str:
        """The window, for ``print``."""
        return f"window={self.window}"


def window_mean(features: Tensor, window: tuple[int, int]) -> Tensor:
    """Mean over the window around each pixel, moved inside the image near its border.

    One running sum per direction in at least float32, so that neither time nor rounding grows with the window.

    Args:
        features: ``(B, C, H, W)``.
        window: Height and width, no more than H and W. Of an even one, the larger half lies right and below.

    Example:
        >>> window_mean(torch.arange(5.0).expand(1, 1, 1, 5), (1, 2)).flatten()
        tensor([0.5000, 1.5000, 2.5000, 3.5000, 3.5000])
    """
    precise = torch.promote_types(features.dtype, torch.float32)
    means = features
    for dim, side in zip((-1, -2), window[::-1], strict=True):
        sums = F.pad(means, (1, 0) if dim == -1 else (0, 0, 1, 0)).cumsum(dim, dtype=precise)
        length = sums.shape[dim]
        means = (sums.narrow(dim, side, length - side) - sums.narrow(dim, 0, length - side)) / side
    rows, columns = features.shape[-2] - means.shape[-2], features.shape[-1] - means.shape[-1]
    border = (columns // 2, columns - columns // 2, rows // 2, rows - rows // 2)
    return F.pad(means.to(features.dtype), border, mode="replicate")


def _blocks(width: int, number: int) -> nn.Sequential:
    return nn.Sequential(*(NAFBlock(width) for _ in range(number)))


def _gate(features: Tensor) -> Tensor:
    first, second = features.chunk(2, dim=1)
    return first * second
