"""The PatchGAN discriminator."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from reblurkit.errors import ArgumentError, ShapeError


class PatchGAN(nn.Module):
    """The discriminator of Isola et al., *Image-to-Image Translation with Conditional Adversarial Networks* (2017).

    Scores patches, of 70 x 70 pixels with three strided layers, with 4 x 4 convolutions, LeakyReLU and InstanceNorm
    without weights. Keys of the state dict are those of pix2pix, DeblurGAN and Blur2Blur. Padding is 1 as in pix2pix
    and Blur2Blur; DeblurGAN's program pads by 2.

    A list of images, the scales of a pyramid, gives a list of maps: the same weights judge every scale (Blur2Blur).

    Args:
        width: Channels after the first layer; doubled by every layer up to eight times as many.
        layers: Strided layers.

    Shape:
        ``(B, 3, H, W)`` to ``(B, 1, h, w)`` of scores without an activation: 30 x 30 for 256 x 256 pixels. Lists of
        images to lists of maps. Sides at least 3 * 2^layers.

    Raises:
        ArgumentError: If ``width`` or ``layers`` is less than 1.
        ShapeError: If an image is too small.

    Example:
        >>> sum(p.numel() for p in PatchGAN().parameters())
        2764737
    """

    def __init__(self, width: int = 64, layers: int = 3) -> None:
        super().__init__()
        if width < 1 or layers < 1:
            raise ArgumentError(f"`width` and `layers` must be at least 1, but are {width} and {layers}")
        self.smallest = 3 * 2**layers
        channels = [width * min(2**index, 8) for index in range(layers + 1)]
        stages: list[nn.Module] = [nn.Conv2d(3, width, 4, stride=2, padding=1), nn.LeakyReLU(0.2, inplace=True)]
        for index in range(1, layers + 1):
            stages += [
                nn.Conv2d(channels[index - 1], channels[index], 4, stride=2 if index < layers else 1, padding=1),
                nn.InstanceNorm2d(channels[index]),
                nn.LeakyReLU(0.2, inplace=True),
            ]
        self.model = nn.Sequential(*stages, nn.Conv2d(channels[-1], 1, 4, padding=1))

    def forward(self, image: Tensor | Sequence[Tensor]) -> Tensor | list[Tensor]:
        """Return the map of scores, or one map for each scale."""
        if not isinstance(image, Tensor):
            return [self._scores(scale) for scale in image]
        return self._scores(image)

    def _scores(self, image: Tensor) -> Tensor:
        if min(image.shape[2:]) < self.smallest:
            raise ShapeError(
                f"this PatchGAN needs images of at least {self.smallest} x {self.smallest} pixels, but came "
                f"{tuple(image.shape[2:])}; use a `crop` of at least {self.smallest}, or fewer `layers`"
            )
        scores: Tensor = self.model(image)
        return scores
