"""What a camera adds to the light that falls on its sensor."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
import torch
from kornia.enhance import jpeg_codec_differentiable
from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile
from torch import Tensor, nn

from reblurkit.blur.arguments import check_image, own_generator
from reblurkit.blur.light import from_light, to_light
from reblurkit.core.numbers import check_span, is_number, shown
from reblurkit.errors import ArgumentError, ShapeError


class CameraNoise(nn.Module):
    """Shot and read noise, rounding to 8 bits, and JPEG compression, of every image its own.

    Noise arises in linear light: of a value x in [0, 1] its variance is ``g**2 * (read**2 + shot**2 * x)``, with a gain
    g that is uniform in [0, 1] for each image. The noisy image is converted back to sRGB and rounded to 8 bits; a share
    of the images then becomes JPEG: on the CPU a file is written and read, elsewhere Kornia computes what a file does.

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
        check_span(1, 100, whole=True, jpeg=jpeg)
        self.shot = shot
        self.read = read
        self.jpeg = (int(jpeg[0]), int(jpeg[1]))
        self.jpeg_share = jpeg_share
        self.seed = seed
        self._generator = own_generator(seed)

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
        chances = [torch.rand(3, generator=generator, dtype=torch.float64) for generator in generators]
        gain, is_jpeg, quality = torch.stack(chances, 1)
        noise = torch.stack([normal_like(image[0], generator) for generator in generators])
        light = to_light(image).clamp(min=0)
        light = light + gain[:, None, None, None].to(light) * (self.read**2 + self.shot**2 * light).sqrt() * noise
        levels = (from_light(light.clamp(0, 1)) * 255).round().to(torch.uint8)
        files = (is_jpeg < self.jpeg_share).nonzero()[:, 0].tolist()
        if files:
            lowest, highest = self.jpeg
            qualities = [lowest + int((highest - lowest + 1) * share) for share in quality[files].tolist()]
            levels[files] = jpeg(levels[files], qualities)
        return levels.to(image) / 255

    def extra_repr(self) -> str:
        """The options, for ``repr``."""
        return f"shot={self.shot}, read={self.read}, jpeg={self.jpeg}, jpeg_share={self.jpeg_share}, seed={self.seed}"


def jpeg(levels: Tensor, qualities: Sequence[int]) -> Tensor:
    """What JPEG files make of images, ``(B, 3, H, W)`` uint8; a quality each."""
    if levels.device.type == "cpu":
        return torch.stack(list(map(_jpeg_file, levels, qualities)))
    # A file would make the device and the CPU wait for each other. So would qualities on the device, which are checked.
    coded = jpeg_codec_differentiable(levels.float() / 255, torch.tensor(qualities, dtype=torch.float32))
    return (coded * 255).round().clamp(0, 255).to(torch.uint8)


def normal_like(like: Tensor, generator: torch.Generator) -> Tensor:
    """Normal numbers drawn on the image's device, from a stream that the generator, on the CPU, chooses."""
    stream = torch.Generator(like.device).manual_seed(int(torch.randint(2**63 - 1, (), generator=generator)))
    return torch.randn(like.shape, generator=stream, device=like.device, dtype=like.dtype)


def _jpeg_file(levels: Tensor, quality: int) -> Tensor:
    file = io.BytesIO()
    Image.fromarray(levels.permute(1, 2, 0).numpy()).save(file, "jpeg", quality=quality)
    file.seek(0)
    return torch.from_numpy(np.array(JpegImageFile(file))).permute(2, 0, 1)
