"""Random camera shake."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from kornia.filters import filter2d
from torch import Tensor

from reblurkit.blur.random_blur import RandomBlur
from reblurkit.core.numbers import check_whole, is_number, shown
from reblurkit.errors import ArgumentError

_SAMPLES = 1024  # points on a trajectory: below half a pixel apart even for a jittery path across 65 pixels


class ShakeBlur(RandomBlur):
    """Blurs every image of a batch with a camera-shake kernel of its own.

    The hand that holds the camera is a point whose heading drifts and now and then jolts; the kernel is the time it
    spends over each pixel. Kernels have sum 1 and their centre of mass in the middle, so that blurry and sharp image
    stay aligned. The farthest point of a trajectory lies between half and all of the way to the kernel's border.

    Light adds up on the sensor, so images are blurred in linear light: converted from sRGB, filtered (replicated
    border), converted back.

    Args:
        size: Side of the kernels in pixels, odd.
        strength: From 0, a straight stroke at constant speed, to 1, a jittery path.
        seed: Makes the sequence of kernels of this object reproducible; default: the global random state.
        linear: Blur in linear light; ``False`` filters the values as they are.

    Shape:
        ``(B, C, H, W)`` in [0, 1] to the same shape. In linear light C is 3 or 1.

    Raises:
        ArgumentError: If ``size`` is not an odd whole number, ``strength`` not in [0, 1], ``seed`` not a whole number,
            or the input no tensor of floating point.
        ShapeError: If the input is no batch of images, is empty, or neither RGB nor grey in linear light.

    Example:
        >>> blur = ShakeBlur(size=15, strength=0.5, seed=0)
        >>> blur(torch.rand(2, 3, 32, 32)).shape
        torch.Size([2, 3, 32, 32])
    """

    def __init__(self, size: int = 21, strength: float = 0.5, seed: int | None = None, linear: bool = True) -> None:
        super().__init__(seed, linear)
        check_whole(size=size, unit=" of pixels")
        if size % 2 == 0:
            raise ArgumentError(f"`size` of a kernel must be an odd number of pixels, at least 1, but is {size}")
        if not is_number(strength) or not 0 <= strength <= 1:
            raise ArgumentError(f"`strength` must be a number in [0, 1], but is {shown(strength)}")
        self.size = size
        self.strength = strength

    @property
    def border(self) -> int:
        """Half of the kernel."""
        return self.size // 2

    def draw(self, count: int, generator: torch.Generator | None = None) -> Tensor:
        """Draw kernels, ``(count, size, size)`` float64, each with sum 1."""
        # Kernel by kernel, so that a batch draws what as many single calls would; the arithmetic is for all at once.
        chances = [_Chances.drawn(generator or self._generator) for _ in range(count)]
        paths, share = _trajectories(_Chances(*map(torch.stack, zip(*chances, strict=True))), self.strength)
        reach = paths.abs().amax((1, 2))
        return _rasterise(paths * (share * (self.size // 2) / reach)[:, None, None], self.size)

    def kernel(self, generator: torch.Generator | None = None) -> Tensor:
        """Draw one kernel, ``(size, size)`` float64 with sum 1."""
        return self.draw(1, generator)[0]

    def blur_values(self, image: Tensor, drawn: Tensor) -> Tensor:
        """Blur values as they are."""
        # filter2d slides the kernel without flipping it; a trajectory has no preferred direction of time
        blurred: Tensor = filter2d(image, drawn, border_type="replicate")
        return blurred

    def extra_repr(self) -> str:
        """The options, for ``repr``."""
        return f"size={self.size}, strength={self.strength}, seed={self.seed}, linear={self.linear}"


class _Chances(NamedTuple):
    """The random numbers of a trajectory, or of several, each with a dimension in front."""

    drift: Tensor
    jolts: Tensor
    turns: Tensor
    start: Tensor
    speed: Tensor
    share: Tensor

    @classmethod
    def drawn(cls, generator: torch.Generator | None) -> _Chances:
        def normal() -> Tensor:
            return torch.randn(_SAMPLES, generator=generator, dtype=torch.float64)

        def uniform() -> Tensor:
            return torch.rand(_SAMPLES, generator=generator, dtype=torch.float64)

        drawn = normal(), uniform(), uniform(), uniform(), normal()
        share = torch.rand((), generator=generator, dtype=torch.float64)
        return cls(*drawn, share)


def _trajectories(chances: _Chances, strength: float) -> tuple[Tensor, Tensor]:
    """Positions ``(B, _SAMPLES, 2)`` at equal times, centre of mass at the origin; how far they reach, ``(B,)``."""
    drift = 0.1 * strength * chances.drift
    jolt = (chances.jolts < 6 * strength / _SAMPLES) * math.pi * (2 * chances.turns - 1)
    heading = 2 * math.pi * chances.start[:, :1] + torch.cumsum(drift + jolt, 1)
    # Speed is a slow random walk in its logarithm, within about a factor of e at full strength.
    speed = torch.exp(strength * torch.cumsum(chances.speed, 1) / math.sqrt(_SAMPLES))
    paths = torch.cumsum(speed[..., None] * torch.stack([heading.cos(), heading.sin()], -1), 1)
    return paths - paths.mean(1, keepdim=True), 0.5 + 0.5 * chances.share


def _rasterise(paths: Tensor, size: int) -> Tensor:
    """Share every position among its four pixels, bilinearly; ``paths`` in pixels from the middle."""
    position = paths + size // 2
    corner = position.floor()
    side = size + 1  # room for zero shares beyond the border
    pixels, shares = [], []
    for axis in (1, 0):
        pixels.append(torch.stack([corner[..., axis], corner[..., axis] + 1], 1).long())
        fraction = position[..., axis] - corner[..., axis]
        shares.append(torch.stack([1 - fraction, fraction], 1))
    first = side**2 * torch.arange(len(paths))[:, None, None, None]
    place = first + side * pixels[0][:, :, None] + pixels[1][:, None]
    share = shares[0][:, :, None] * shares[1][:, None]
    kernels = torch.bincount(place.flatten(), share.flatten(), minlength=len(paths) * side**2)
    kernels = kernels.reshape(len(paths), side, side)[:, :size, :size]
    return kernels / kernels.sum((1, 2), keepdim=True)
