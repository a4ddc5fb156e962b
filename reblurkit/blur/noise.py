"""What a camera adds to the light that falls on its sensor."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from kornia.color import linear_rgb_to_rgb, rgb_to_linear_rgb
from torch import Tensor, nn
from torchvision.io import decode_jpeg, encode_jpeg

from reblurkit.blur.arguments import check_image, is_number, shown
from reblurkit.errors import ArgumentError, ShapeError


class CameraNoise(nn.Module):
    """Shot and read noise, rounding to 8 bits, and JPEG compression, of every image its own.

    Noise arises in linear light: of a value x in [0, 1] its variance is ``g**2 * (read**2 + shot**2 * x)``, with a gain
    g that is uniform in [0, 1] for each image. The noisy image is converted back to sRGB and rounded to 8 bits; a share
    of the images then goes through a JPEG file.

    What happens to an image follows from one number, its seed, whatever else is in the batch; on another kind of
    device the same seed gives other noise of the same distribution.

    Args:
        shot: Largest standard deviation of the shot noise of white.
        read: Largest standard deviation of the read noise.
        jpeg: Lowest and highest JPEG quality, each from 1 to 100.
        jpeg_share: Share of the images that become JPEG files.
        seed: Makes the sequence of this object's noise reproducible; default: the global random state.

    Shape:
        ``(B, 3, H, W)`` in [0, 1] to the same shape, whole multiples of 1/255.

    Raises:
        ArgumentError: If an option is out of range, or the input no tensor of floating point.
        ShapeError: If the input is no batch of RGB images.

    Example:
        >>> noisy = CameraNoise(seed=0)(torch.full((2, 3, 32, 32), 0.5))
        >>> bool((noisy * 255 - (noisy * 255).round()).abs().max() < 1e-4)
        True
    """

    def __init__(
        self,
        shot: float = 0.02,
        read: float = 0.001,
        jpeg: tuple[int, int] = (70, 95),
        jpeg_share: float = 0.0,
        seed: int | None = None,
    ) -> None:
        super().__init__()
        for name, value in (("shot", shot), ("read", read), ("jpeg_share", jpeg_share)):
            if not is_number(value) or not 0 <= value <= 1:
                raise ArgumentError(f"`{name}` must be a number in [0, 1], but is {shown(value)}")
        lowest, highest = jpeg
        if not (is_number(lowest, int) and is_number(highest, int) and 1 <= lowest <= highest <= 100):
            raise ArgumentError(f"`jpeg` must be the lowest and highest quality, in 1 to 100, but is {jpeg}")
        self.shot = shot
        self.read = read
        self.jpeg = (lowest, highest)
        self.jpeg_share = jpeg_share
        self.seed = seed
        self._generator = None if seed is None else torch.Generator().manual_seed(seed)

    def forward(self, image: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Add new noise.

        Args:
            image: ``(B, 3, H, W)`` in [0, 1].
            generator: Source of the seeds for this call, on the CPU; default: this object's own.
        """
        check_image(image)
        seeds = torch.randint(2**63 - 1, (len(image),), generator=generator or self._generator)
        return self.degrade(image, seeds.tolist())

    def degrade(self, image: Tensor, seeds: Sequence[int]) -> Tensor:
        """Add the noise that follows from the seeds.

        Args:
            image: ``(B, 3, H, W)`` in [0, 1].
            seeds: One whole number, at least 0, an image.

        Raises:
            ShapeError: If there are not as many seeds as images, or the images are not RGB.
        """
        check_image(image)
        if image.shape[1] != 3 or len(seeds) != len(image):
            raise ShapeError(
                f"expected RGB images and a seed for each, but came {tuple(image.shape)} and {len(seeds)} seeds"
            )
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        chances = torch.stack([torch.rand(3, generator=generator) for generator in generators])
        noise = torch.stack([_normal(image[0], seed) for seed in seeds])
        light = rgb_to_linear_rgb(image)
        gain = chances[:, 0, None, None, None].to(image)
        light = light + gain * (self.read**2 + self.shot**2 * light).sqrt() * noise
        levels = (linear_rgb_to_rgb(light.clamp(0, 1)) * 255).round().to(torch.uint8)
        lowest, highest = self.jpeg
        for number, (_, is_jpeg, quality) in enumerate(chances.tolist()):
            if is_jpeg < self.jpeg_share:
                encoded = encode_jpeg(levels[number], lowest + int((highest - lowest + 1) * quality))
                levels[number] = decode_jpeg(encoded, device=levels.device)
        return levels.to(image) / 255

    def extra_repr(self) -> str:
        """The options, for ``repr``."""
        return (
            f"shot={self.shot}, read={self.read}, jpeg={self.jpeg}, jpeg_share={self.jpeg_share}, seed={self.seed}"
        )


def _normal(like: Tensor, seed: int) -> Tensor:
    generator = torch.Generator(like.device).manual_seed(seed)
    return torch.randn(like.shape, generator=generator, device=like.device, dtype=like.dtype)
