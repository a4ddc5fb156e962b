"""Restormer, a transformer whose attention is between channels."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import torch
from einops import rearrange
from timm.layers import LayerNorm2d
from torch import Tensor, nn
from torch.nn import functional as F

from reblurkit.core.checks import check_size
from reblurkit.core.numbers import check_positive
from reblurkit.errors import ArgumentError


class Restormer(nn.Module):
    """The network of Zamir et al., *Restormer: Efficient Transformer for High-Resolution Image Restoration* (2022).

    A U-Net of four sizes. Attention is between channels, not pixels, so that time and memory grow with the number of
    pixels alone. The defaults are the authors' network for motion blur, and the keys those of its published file.

    Args:
        width: Channels at full size, doubled with every halving; 48 in the paper.
        blocks: Transformer blocks at full, half, quarter and eighth size, in encoder and decoder.
        refinement_blocks: Blocks at full size after the decoder.
        heads: Heads of attention at each size; each divides that size's channels.
        expansion: Factor by which the feed-forward networks widen.

    Attributes:
        multiple: What height and width must divide by: 8.

    Shape:
        ``(B, 3, H, W)`` in [0, 1] to the same shape, not clamped.

    Raises:
        ArgumentError: If an argument makes no network.
        ShapeError: If height or width does not divide by 8.

    Example:
        >>> import torch
        >>> Restormer(width=8, blocks=(1, 1, 1, 1), refinement_blocks=1)(torch.rand(1, 3, 16, 24)).shape
        torch.Size([1, 3, 16, 24])
    """

    multiple: int = 8

    def __init__(
        self,
        width: int = 48,
        blocks: Sequence[int] = (4, 6, 6, 8),
        refinement_blocks: int = 4,
        heads: Sequence[int] = (1, 2, 4, 8),
        expansion: float = 2.66,
    ) -> None:
        super().__init__()
        check_positive(expansion=expansion)
        if len(blocks) != 4 or len(heads) != 4 or min(*blocks, refinement_blocks) < 0 or min(heads) < 1:
            raise ArgumentError(
                "`blocks` must be four numbers of at least 0 and `heads` four of at least 1, but they are "
                f"{tuple(blocks)} and {tuple(heads)}, with {refinement_blocks} blocks of refinement"
            )
        levels = [width * 2**level for level in range(4)]
        if width < 1 or width % 2 or any(level % head for level, head in zip(levels, heads, strict=True)):
            raise ArgumentError(
                f"`width` must be even and the channels {levels} must divide by `heads`, {tuple(heads)}"
            )
        first, second, third, fourth = levels

        def stage(channels: int, level: int, number: int) -> nn.Sequential:
            return nn.Sequential(*(TransformerBlock(channels, heads[level], expansion) for _ in range(number)))

        self.patch_embed = embedding(first)
        self.encoder_level1 = stage(first, 0, blocks[0])
        self.down1_2 = down(first)
        self.encoder_level2 = stage(second, 1, blocks[1])
        self.down2_3 = down(second)
        self.encoder_level3 = stage(third, 2, blocks[2])
        self.down3_4 = down(third)
        self.latent = stage(fourth, 3, blocks[3])
        self.up4_3 = up(fourth)
        self.reduce_chan_level3 = nn.Conv2d(fourth, third, 1, bias=False)
        self.decoder_level3 = stage(third, 2, blocks[2])
        self.up3_2 = up(third)
        self.reduce_chan_level2 = nn.Conv2d(third, second, 1, bias=False)
        self.decoder_level2 = stage(second, 1, blocks[1])
        self.up2_1 = up(second)
        # At full size the skip is concatenated and stays so: the last blocks have the channels of half size.
        self.decoder_level1 = stage(second, 0, blocks[0])
        self.refinement = stage(second, 0, refinement_blocks)
        self.output = nn.Conv2d(second, 3, 3, padding=1, bias=False)

    def forward(self, blurry: Tensor) -> Tensor:
        """Return the deblurred image."""
        check_size(blurry, self.multiple)
        first = self.encoder_level1(self.patch_embed(blurry))
        second = self.encoder_level2(self.down1_2(first))
        third = self.encoder_level3(self.down2_3(second))
        features = self.latent(self.down3_4(third))
        features = self.reduce_chan_level3(torch.cat((self.up4_3(features), third), 1))
        features = self.decoder_level3(features)
        features = self.reduce_chan_level2(torch.cat((self.up3_2(features), second), 1))
        features = self.decoder_level2(features)
        features = self.decoder_level1(torch.cat((self.up2_1(features), first), 1))
        deblurred: Tensor = self.output(self.refinement(features)) + blurry
        return deblurred


class TransformerBlock(nn.Module):
    """Attention between channels, then a gated feed-forward network, each normalised before and added after."""

    def __init__(self, width: int, heads: int, expansion: float) -> None:
        super().__init__()
        self.norm1 = norm(width)
        self.attn = ChannelAttention(width, heads)
        self.norm2 = norm(width)
        self.ffn = FeedForward(width, expansion)

    def forward(self, features: Tensor) -> Tensor:
        """Map ``(B, width, H, W)`` to the same shape."""
        features = features + self.attn(self.norm1(features))
        output: Tensor = features + self.ffn(self.norm2(features))
        return output


class ChannelAttention(nn.Module):
    """Multi-Dconv head transposed attention (section 3.1): a C/heads x C/heads map for each head."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.temperature = nn.Parameter(torch.ones(heads, 1, 1))
        self.qkv = nn.Conv2d(width, 3 * width, 1, bias=False)
        self.qkv_dwconv = nn.Conv2d(3 * width, 3 * width, 3, padding=1, groups=3 * width, bias=False)
        self.project_out = nn.Conv2d(width, width, 1, bias=False)

    def forward(self, features: Tensor) -> Tensor:
        """Map ``(B, width, H, W)`` to the same shape."""
        height = features.shape[-2]
        query, key, value = rearrange(
            self.qkv_dwconv(self.qkv(features)), "b (part head c) h w -> part b head c (h w)", part=3, head=self.heads
        )
        query, key = F.normalize(query, dim=-1), F.normalize(key, dim=-1)
        attention = (self.temperature * (query @ key.transpose(-2, -1))).softmax(-1)
        output: Tensor = self.project_out(rearrange(attention @ value, "b head c (h w) -> b (head c) h w", h=height))
        return output


class FeedForward(nn.Module):
    """Gated-Dconv feed-forward network (section 3.2)."""

    def __init__(self, width: int, expansion: float) -> None:
        super().__init__()
        hidden = int(width * expansion)
        self.project_in = nn.Conv2d(width, 2 * hidden, 1, bias=False)
        self.dwconv = nn.Conv2d(2 * hidden, 2 * hidden, 3, padding=1, groups=2 * hidden, bias=False)
        self.project_out = nn.Conv2d(hidden, width, 1, bias=False)

    def forward(self, features: Tensor) -> Tensor:
        """Map ``(B, width, H, W)`` to the same shape."""
        gate, content = self.dwconv(self.project_in(features)).chunk(2, dim=1)
        output: Tensor = self.project_out(F.gelu(gate) * content)
        return output


# Each under the name that its tensors have in the published files.


def norm(width: int) -> nn.Sequential:
    """Layer normalisation over the channels of each pixel."""
    return nn.Sequential(OrderedDict(body=LayerNorm2d(width, eps=1e-5)))


def embedding(width: int) -> nn.Sequential:
    """The first convolution, ``(B, 3, H, W)`` to ``(B, width, H, W)``."""
    return nn.Sequential(OrderedDict(proj=nn.Conv2d(3, width, 3, padding=1, bias=False)))


def down(width: int) -> nn.Sequential:
    """Half the size, twice the channels."""
    halved = nn.Conv2d(width, width // 2, 3, padding=1, bias=False)
    return nn.Sequential(OrderedDict(body=nn.Sequential(halved, nn.PixelUnshuffle(2))))


def up(width: int) -> nn.Sequential:
    """Twice the size, half the channels."""
    doubled = nn.Conv2d(width, 2 * width, 3, padding=1, bias=False)
    return nn.Sequential(OrderedDict(body=nn.Sequential(doubled, nn.PixelShuffle(2))))
