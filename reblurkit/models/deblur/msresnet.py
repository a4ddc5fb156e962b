"""MSResNet, the multi-scale network of the GoPro data."""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from reblurkit.core.checks import check_size
from reblurkit.core.numbers import check_positive
from reblurkit.errors import ArgumentError
from reblurkit.models.layers import ResBlock, same_conv


class MSResNet(nn.Module):
    """Nah et al., *Deep Multi-scale Convolutional Neural Network for Dynamic Scene Deblurring* (2017).

    As in the authors' PyTorch version: a residual network for each scale of a Gaussian pyramid, from the coarsest to
    the finest; the finer ones also see the output of the coarser one, doubled by a convolution and a pixel shuffle.
    Outputs are images, not residuals. The authors work on RGB in [0, 255], centred on 0; [0, 1] is scaled inside, so
    that their weights fit. Weights start as PyTorch's.

    The keys are those of the authors' files, under ``G`` there: ``body_models.0`` is the finest scale.

    Args:
        blocks: Residual blocks of each scale.
        width: Channels.
        scales: Number of scales, each half the size of the next.
        rgb_range: White of the images that the weights were trained on.

    Shape:
        ``(B, 3, H, W)`` in [0, 1], H and W multiples of ``multiple``, to a list of ``scales`` images from coarse to
        fine, the last ``(B, 3, H, W)``, not clamped.

    Raises:
        ArgumentError: If ``blocks``, ``width`` or ``scales`` is out of range.
        ShapeError: If H and W do not divide by ``multiple``.

    Example:
        >>> network = MSResNet(blocks=1, width=4)
        >>> coarse, _, fine = network(torch.rand(1, 3, 32, 48))
        >>> coarse.shape, fine.shape
        (torch.Size([1, 3, 8, 12]), torch.Size([1, 3, 32, 48]))
    """

    kernel: Tensor

    def __init__(self, blocks: int = 19, width: int = 64, scales: int = 3, rgb_range: float = 255.0) -> None:
        super().__init__()
        if blocks < 0 or width < 1 or scales < 1:
            raise ArgumentError(
                f"`blocks` must be at least 0, `width` and `scales` at least 1, but are {blocks}, {width} and {scales}"
            )
        self.multiple = 2 ** (scales - 1)
        check_positive(rgb_range=rgb_range)
        self.rgb_range = rgb_range
        self.body_models = nn.ModuleList(
            _body(3 if scale == scales - 1 else 6, blocks, width) for scale in range(scales)
        )
        self.conv_end_models = nn.ModuleDict({str(scale): _upsampler() for scale in range(1, scales)})
        self.register_buffer("kernel", _reduction(), persistent=False)

    def forward(self, blurry: Tensor) -> list[Tensor]:
        """Return the deblurred images, coarse to fine."""
        check_size(blurry, self.multiple)
        pyramid = [self.rgb_range * (blurry - 0.5)]
        while len(pyramid) < len(self.body_models):
            pyramid.append(_halve(pyramid[-1], self.kernel))
        deblurred: list[Tensor] = []
        for scale in reversed(range(len(pyramid))):
            images = pyramid[scale]
            if deblurred:
                images = torch.cat([images, self.conv_end_models[str(scale + 1)](deblurred[-1])], dim=1)
            deblurred.append(self.body_models[scale](images))
        return [image / self.rgb_range + 0.5 for image in deblurred]


def _body(inputs: int, blocks: int, width: int) -> nn.Sequential:
    layers = [same_conv(inputs, width, 5), *(ResBlock(width, 5) for _ in range(blocks)), same_conv(width, 3, 5)]
    return nn.Sequential(OrderedDict(body=nn.Sequential(*layers)))


def _upsampler() -> nn.Sequential:
    return nn.Sequential(OrderedDict(uppath=nn.Sequential(same_conv(3, 12, 5), nn.PixelShuffle(2))))


def _reduction() -> Tensor:
    """A Gaussian of sigma 2/3, cut off at radius 3, followed by the mean of 2x2 pixels: 8x8, per channel.

    One step of scikit-image's ``pyramid_gaussian``, which the authors use.
    """
    gaussian = torch.exp(-0.5 * (torch.arange(-3, 4) / (2 / 3)) ** 2)
    gaussian = gaussian / gaussian.sum()
    line = (F.pad(gaussian, (0, 1)) + F.pad(gaussian, (1, 0))) / 2
    return torch.outer(line, line).repeat(3, 1, 1, 1)


def _halve(image: Tensor, kernel: Tensor) -> Tensor:
    height, width = image.shape[-2:]
    rows, columns = _mirrored(height, image.device), _mirrored(width, image.device)
    return F.conv2d(image[..., rows, :][..., columns], kernel, stride=2, groups=3)


def _mirrored(size: int, device: torch.device) -> Tensor:
    """Indices from -3 to size + 2, mirrored so that the border pixel is repeated; torch has no such padding."""
    index = torch.arange(-3, size + 3, device=device) % (2 * size)
    return torch.minimum(index, 2 * size - 1 - index)
