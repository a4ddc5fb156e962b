"""Blur, resizing, noise and JPEG in random order: the synthetic rival of BSRGAN."""

from __future__ import annotations

import math

import torch
from kornia.filters import filter2d
from torch import Tensor
from torch.nn import functional as F

from reblurkit.blur.arguments import check_image
from reblurkit.blur.camera import Camera, photograph
from reblurkit.blur.light import from_light, to_light
from reblurkit.blur.noise import jpeg, normal_like
from reblurkit.blur.random_blur import DrawnBlur, draw_seed, seeds_of
from reblurkit.core.numbers import check_span
from reblurkit.errors import ShapeError

_WIDEST = 2.2  # sigma of the isotropic Gaussian, at most
_LONGEST = 5.0  # variances of the other one, along its axes, at most
_REACH = 7  # three sigma of the widest
_SMALLEST = 0.5  # scale


class ShuffledDegradation(DrawnBlur):
    """Degrades every image by blur, resizing, noise and compression, in an order of its own.

    After Zhang et al., *Designing a Practical Degradation Model for Deep Blind Image Super-Resolution* (ICCV 2021),
    BSRGAN, without its super-resolution: its ranges for a factor of 1. In random order come

    - an isotropic Gaussian, sigma up to 2.2, and an anisotropic one, variances of 0 to 5 along axes at any angle;
    - in 3 of 4 images a reduction by a factor of 1 to 2, bilinear, bicubic or by area;
    - Gaussian noise of ``noise`` grey levels: of each channel alone in 40 %, the same for all in 40 %, otherwise
      correlated, with a random covariance of the largest level;
    - in 9 of 10 images JPEG compression with a quality from ``jpeg``;
    - in 1 of 4 images the noise of a sensor before demosaicing, with noise levels of Brooks et al., *Unprocessing
      Images for Learned Raw Denoising* (2019).

    At the end the image is enlarged to its size again, and is a JPEG file once more.

    Different from the authors' program: kernels have one size, wide enough for all, where theirs are cut off at
    random; the covariance of correlated noise is what it is, without absolute values; the sensor is the one of
    :class:`RealisticBlur`, of four cameras and with sRGB's curve, where they have many cameras and measured curves.

    There is no motion in it, and it has noise of its own: ``SyntheticBlurDataModule(root,
    blur=[ShuffledDegradation()], noise=False)``. What happens to an image follows from its row of draws, whatever else
    is in the batch; on another kind of device the same row gives other noise of the same distribution.

    Args:
        noise: Least and largest standard deviation of the Gaussian noise, in grey levels of 255.
        jpeg: Lowest and highest JPEG quality, each from 1 to 100.
        seed: Makes the sequence of this object's draws reproducible; default: the global random state.

    Shape:
        ``(B, 3, H, W)`` in [0, 1] to the same shape, whole multiples of 1/255.

    Raises:
        ArgumentError: If an option is out of range, or the input no tensor of floating point.
        ShapeError: If the input is no batch of RGB images.

    Example:
        >>> ShuffledDegradation(seed=0)(torch.rand(2, 3, 32, 40)).shape
        torch.Size([2, 3, 32, 40])
    """

    def __init__(
        self, noise: tuple[float, float] = (1.0, 25.0), jpeg: tuple[int, int] = (30, 95), seed: int | None = None
    ) -> None:
        super().__init__(seed)
        check_span(0, 255, noise=noise)
        check_span(1, 100, whole=True, jpeg=jpeg)
        self.noise = (noise[0], noise[1])
        self.jpeg = (int(jpeg[0]), int(jpeg[1]))

    @property
    def border(self) -> int:
        """Both blurs at the smallest scale, and what resizing adds."""
        return math.ceil((2 * _REACH + 4) / _SMALLEST)

    def draw(self, count: int, generator: torch.Generator | None = None) -> Tensor:
        """Draw seeds: ``(count, 1)`` float64."""
        return torch.stack([draw_seed(generator or self._generator) for _ in range(count)])

    def blur(self, image: Tensor, drawn: Tensor) -> Tensor:
        """Degrade as the draws say."""
        check_image(image)
        if len(drawn) != len(image) or image.shape[1] != 3:
            raise ShapeError(
                f"expected RGB images and one draw for each, but came {tuple(image.shape)} and {len(drawn)} draws"
            )
        wide = image.to(torch.promote_types(image.dtype, torch.float32))
        generators = [torch.Generator().manual_seed(seed) for seed in seeds_of(drawn[:, 0])]
        degraded = [self._degrade(each[None], generator) for each, generator in zip(wide, generators, strict=True)]
        return torch.cat(degraded).to(image.dtype)

    def _degrade(self, image: Tensor, generator: torch.Generator) -> Tensor:
        """Degrade one image, ``(1, 3, H, W)``."""
        size = (image.shape[-2], image.shape[-1])
        steps = (_isotropic, _anisotropic, _reduced, self._noisy, self._maybe_compressed, _sensed)
        for step in torch.randperm(len(steps), generator=generator).tolist():
            image = steps[step](image, generator).clamp(0, 1)
        return self._compressed(_resized(image, size, generator).clamp(0, 1), generator)

    def _noisy(self, image: Tensor, generator: torch.Generator) -> Tensor:
        kind, share = _uniform(2, generator)
        least, largest = self.noise
        deviation = (least + (largest - least) * share) / 255
        if kind < 0.4:
            return image + deviation * normal_like(image[:, :1], generator)
        normal = normal_like(image, generator)
        if kind < 0.8:
            return image + deviation * normal
        # The covariance is L^2 U^T D U, so that L U^T sqrt(D) U is a root of it.
        basis = torch.linalg.qr(torch.rand(3, 3, generator=generator, dtype=torch.float64))[0]
        root = basis.mT @ torch.rand(3, generator=generator, dtype=torch.float64).sqrt().diag() @ basis
        mixed = [sum(factor * normal[:, i] for i, factor in enumerate(row)) for row in root.tolist()]
        return image + largest / 255 * torch.stack(mixed, 1)

    def _maybe_compressed(self, image: Tensor, generator: torch.Generator) -> Tensor:
        return self._compressed(image, generator) if _uniform(1, generator)[0] < 0.9 else image

    def _compressed(self, image: Tensor, generator: torch.Generator) -> Tensor:
        lowest, highest = self.jpeg
        quality = lowest + int((highest - lowest + 1) * _uniform(1, generator)[0])
        return jpeg((image * 255).round().to(torch.uint8), [quality]).to(image) / 255

    def extra_repr(self) -> str:
        """The options, for ``repr``."""
        return f"noise={self.noise}, jpeg={self.jpeg}, seed={self.seed}"


def _uniform(count: int, generator: torch.Generator) -> list[float]:
    numbers: list[float] = torch.rand(count, generator=generator, dtype=torch.float64).tolist()
    return numbers


def _isotropic(image: Tensor, generator: torch.Generator) -> Tensor:
    variance = (_WIDEST * _uniform(1, generator)[0]) ** 2
    return _gaussian(image, variance, variance, 0.0)


def _anisotropic(image: Tensor, generator: torch.Generator) -> Tensor:
    one, other, turn = _uniform(3, generator)
    return _gaussian(image, _LONGEST * one, _LONGEST * other, math.pi * turn)


def _gaussian(image: Tensor, one: float, other: float, angle: float) -> Tensor:
    """Blur by a Gaussian with these variances along its axes, the first of which lies at an angle to the right."""
    place = torch.arange(-_REACH, _REACH + 1, dtype=torch.float64)
    along = math.cos(angle) * place + math.sin(angle) * place[:, None]
    across = math.cos(angle) * place[:, None] - math.sin(angle) * place
    # A variance of 0 is a dot; the tiny constant keeps it from being 0 / 0 in the middle.
    kernel = torch.exp(-0.5 * (along.square() / (one + 1e-9) + across.square() / (other + 1e-9)))
    blurred: Tensor = filter2d(image, (kernel / kernel.sum())[None].to(image), border_type="replicate")
    return blurred


def _reduced(image: Tensor, generator: torch.Generator) -> Tensor:
    chance, share = _uniform(2, generator)
    if chance >= 0.75:
        return image
    factor = 1 + (1 / _SMALLEST - 1) * share
    height, width = (max(1, int(length / factor)) for length in image.shape[-2:])
    return _resized(image, (height, width), generator)


def _resized(image: Tensor, size: tuple[int, int], generator: torch.Generator) -> Tensor:
    mode = ("bilinear", "bicubic", "area")[int(torch.randint(3, (), generator=generator))]
    return F.interpolate(image, size=size, mode=mode, align_corners=None if mode == "area" else False)


def _sensed(image: Tensor, generator: torch.Generator) -> Tensor:
    """The noise of a sensor, with probability 0.25; levels as Brooks et al. (2019)."""
    chance, share = _uniform(2, generator)
    if chance >= 0.25:
        return image
    shot = math.log(1e-4) + share * (math.log(0.012) - math.log(1e-4))
    read = 2.18 * shot + 1.2 + 0.26 * float(torch.randn((), generator=generator, dtype=torch.float64))
    light = photograph(to_light(image)[0], Camera.drawn(generator), math.exp(shot / 2), math.exp(read / 2), generator)
    return from_light(light.clamp(0, 1)[None])
