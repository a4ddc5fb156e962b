"""MIMO-UNet, a U-Net with images of three sizes in and out."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from reblurkit.core.checks import check_size
from reblurkit.errors import ArgumentError


class MIMOUNet(nn.Module):
    """The network of Cho et al., *Rethinking Coarse-to-Fine Approach in Single Image Deblurring* (2021), section 3.

    One encoder sees the image at full, half and quarter size, features of all three are fused for every decoder, and
    each decoder gives an image. The generator of *Blur2Blur* (2024) is the same network.

    Smaller inputs and features are every second pixel of the larger, as in the authors' program. Its keys are those
    of the published files.

    Args:
        blocks: Residual blocks of each encoder and decoder: 8 for MIMO-UNet, 20 for MIMO-UNet+.
        width: Channels at full size; a multiple of 2, 32 in the paper.
        dropout: Share of the fused features' channels that are left out in training: 0.1 in the authors' MIMO-UNet+.
        identity: Start with outputs that are the inputs: the last layer of every branch is zero.

    Attributes:
        multiple: What height and width must divide by: 4.

    Shape:
        ``(B, 3, H, W)`` in [0, 1] to a list of three such images, not clamped: quarter, half and full size.

    Raises:
        ArgumentError: If an argument makes no network.
        ShapeError: If height or width does not divide by 4.

    Example:
        >>> import torch
        >>> [tuple(image.shape) for image in MIMOUNet(blocks=1, width=8)(torch.zeros(1, 3, 16, 24))]
        [(1, 3, 4, 6), (1, 3, 8, 12), (1, 3, 16, 24)]
    """

    multiple: int = 4

    def __init__(self, blocks: int = 8, width: int = 32, dropout: float = 0.0, identity: bool = False) -> None:
        super().__init__()
        if blocks < 0 or width < 2 or width % 2 or not 0 <= dropout < 1:
            raise ArgumentError(
                "`blocks` must be at least 0, `width` even and `dropout` in [0, 1), but they are "
                f"{blocks}, {width} and {dropout}"
            )
        full, half, quarter = width, 2 * width, 4 * width
        self.feat_extract = nn.ModuleList(
            (
                Conv(3, full, 3),
                Conv(full, half, 3, stride=2),
                Conv(half, quarter, 3, stride=2),
                Conv(quarter, half, 4, stride=2, transposed=True),
                Conv(half, full, 4, stride=2, transposed=True),
                Conv(full, 3, 3, relu=False),
            )
        )
        self.Encoder = nn.ModuleList(Stage(level, blocks) for level in (full, half, quarter))
        self.Decoder = nn.ModuleList(Stage(level, blocks) for level in (quarter, half, full))
        self.Convs = nn.ModuleList((Conv(quarter, half, 1), Conv(half, full, 1)))
        self.ConvsOut = nn.ModuleList((Conv(quarter, 3, 3, relu=False), Conv(half, 3, 3, relu=False)))
        self.AFFs = nn.ModuleList((Fusion(full + half + quarter, full), Fusion(full + half + quarter, half)))
        self.FAM1, self.SCM1 = Attention(quarter), ShallowFeatures(quarter)
        self.FAM2, self.SCM2 = Attention(half), ShallowFeatures(half)
        self.drop = nn.Dropout2d(dropout)
        if identity:
            for branch in (*self.ConvsOut, self.feat_extract[5]):
                for parameter in branch.parameters():
                    nn.init.zeros_(parameter)

    def forward(self, blurry: Tensor) -> list[Tensor]:
        """Return the deblurred images, coarse to fine."""
        check_size(blurry, self.multiple)
        blurry_half, blurry_quarter = blurry[..., ::2, ::2], blurry[..., ::4, ::4]

        full = self.Encoder[0](self.feat_extract[0](blurry))
        half = self.Encoder[1](self.FAM2(self.feat_extract[1](full), self.SCM2(blurry_half)))
        quarter = self.Encoder[2](self.FAM1(self.feat_extract[2](half), self.SCM1(blurry_quarter)))

        skip_half = self.AFFs[1](full[..., ::2, ::2], half, _enlarge(quarter, 2))
        skip_full = self.AFFs[0](full, _enlarge(half, 2), _enlarge(quarter, 4))
        skip_half, skip_full = self.drop(skip_half), self.drop(skip_full)

        quarter = self.Decoder[0](quarter)
        half = self.Decoder[1](self.Convs[0](torch.cat((self.feat_extract[3](quarter), skip_half), 1)))
        full = self.Decoder[2](self.Convs[1](torch.cat((self.feat_extract[4](half), skip_full), 1)))
        return [
            self.ConvsOut[0](quarter) + blurry_quarter,
            self.ConvsOut[1](half) + blurry_half,
            self.feat_extract[5](full) + blurry,
        ]


class Conv(nn.Module):
    """A convolution, or a transposed one, and a ReLU unless said otherwise."""

    def __init__(
        self, inputs: int, outputs: int, kernel_size: int, stride: int = 1, relu: bool = True, transposed: bool = False
    ) -> None:
        super().__init__()
        layer: nn.Module
        if transposed:
            layer = nn.ConvTranspose2d(inputs, outputs, kernel_size, stride, padding=kernel_size // 2 - 1)
        else:
            layer = nn.Conv2d(inputs, outputs, kernel_size, stride, padding=kernel_size // 2)
        self.main = nn.Sequential(layer, nn.ReLU(inplace=True)) if relu else nn.Sequential(layer)

    def forward(self, features: Tensor) -> Tensor:
        """Map ``(B, inputs, H, W)`` to ``(B, outputs, ...)``."""
        output: Tensor = self.main(features)
        return output


class Stage(nn.Module):
    """Residual blocks in a row: an encoder or a decoder of one size."""

    def __init__(self, width: int, blocks: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(*(Residual(width) for _ in range(blocks)))

    def forward(self, features: Tensor) -> Tensor:
        """Map ``(B, width, H, W)`` to the same shape."""
        output: Tensor = self.layers(features)
        return output


class Residual(nn.Module):
    """x + conv(ReLU(conv(x))), 3x3."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.main = nn.Sequential(Conv(width, width, 3), Conv(width, width, 3, relu=False))

    def forward(self, features: Tensor) -> Tensor:
        """Map ``(B, width, H, W)`` to the same shape."""
        output: Tensor = self.main(features) + features
        return output


class ShallowFeatures(nn.Module):
    """The shallow convolutional module: features of a small input image, beside the image itself."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.main = nn.Sequential(
            Conv(3, width // 4, 3),
            Conv(width // 4, width // 2, 1),
            Conv(width // 2, width // 2, 3),
            Conv(width // 2, width - 3, 1),
        )
        self.conv = Conv(width, width, 1, relu=False)

    def forward(self, image: Tensor) -> Tensor:
        """Map ``(B, 3, H, W)`` to ``(B, width, H, W)``."""
        output: Tensor = self.conv(torch.cat((image, self.main(image)), 1))
        return output


class Attention(nn.Module):
    """The feature attention module: what the larger image's features and the small image's have in common."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.merge = Conv(width, width, 3, relu=False)

    def forward(self, features: Tensor, shallow: Tensor) -> Tensor:
        """Map two tensors ``(B, width, H, W)`` to one."""
        output: Tensor = features + self.merge(features * shallow)
        return output


class Fusion(nn.Module):
    """The asymmetric feature fusion of all three encoders."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv = nn.Sequential(Conv(inputs, outputs, 1), Conv(outputs, outputs, 3, relu=False))

    def forward(self, *features: Tensor) -> Tensor:
        """Map features of one size, full, half, quarter, to ``(B, outputs, H, W)``."""
        output: Tensor = self.conv(torch.cat(features, 1))
        return output


def _enlarge(features: Tensor, factor: int) -> Tensor:
    return F.interpolate(features, scale_factor=float(factor), mode="nearest")
