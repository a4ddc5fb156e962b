"""Random camera shake."""

from __future__ import annotations

import math

import torch
from kornia.color import linear_rgb_to_rgb, rgb_to_linear_rgb
from kornia.filters import filter2d
from torch import Tensor, nn

from reblurkit.blur.arguments import check_image, check_whole, is_number, shown
from reblurkit.errors import ArgumentError, ShapeError

_SAMPLES = 1024  # points on a trajectory: below half a pixel apart even for a jittery path across 65 pixels


class ShakeBlur(nn.Module):
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
        super().__init__()
        check_whole(size=size, unit=" of pixels")
        if size % 2 == 0:
            raise ArgumentError(f"`size` of a kernel must be an odd number of pixels, at least 1, but is {size}")
        if not is_number(strength) or not 0 <= strength <= 1:
            raise ArgumentError(f"`strength` must be a number in [0, 1], but is {shown(strength)}")
        if seed is not None and not (is_number(seed, int) and -(2**63) <= seed < 2**64):
            raise ArgumentError(f"`seed` must be a whole number of 64 bits (int) or None, but is {shown(seed)}")
        self.size = size
        self.strength = strength
        self.seed = seed
        self.linear = linear
        self._generator = None if seed is None else torch.Generator().manual_seed(seed)

    @property
    def border(self) -> int:
        """Pixels at each side of the image whose blur may come from beyond it, where the border is replicated."""
        return self.size // 2

    def forward(self, image: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Blur with new kernels.

        Args:
            image: ``(B, C, H, W)`` in [0, 1].
            generator: Source of the kernels for this call; default: this object's own.
        """
        check_image(image)
        kernels = torch.stack([self.kernel(generator) for _ in range(len(image))]).to(image)
        if not self.linear:
            return _filter(image, kernels)
        channels = image.shape[1]
        if channels not in (1, 3):
            raise ShapeError(f"linear light needs RGB or grey images, but came {channels} channels; pass linear=False")
        rgb = image.expand(-1, 3, -1, -1)
        return linear_rgb_to_rgb(_filter(rgb_to_linear_rgb(rgb), kernels))[:, :channels]

    def kernel(self, generator: torch.Generator | None = None) -> Tensor:
        """Draw one kernel, ``(size, size)`` float64 with sum 1."""
        path = _trajectory(self.strength, generator or self._generator)
        reach = torch.linalg.vector_norm(path, ord=math.inf)
        share = 0.5 + 0.5 * torch.rand((), generator=generator or self._generator, dtype=torch.float64)
        return _rasterise(path * (share * (self.size // 2) / reach), self.size)

    def extra_repr(self) -> str:
        """The options, for ``repr``."""
        return f"size={self.size}, strength={self.strength}, seed={self.seed}, linear={self.linear}"


def _filter(image: Tensor, kernels: Tensor) -> Tensor:
    # filter2d slides the kernel without flipping it; a trajectory has no preferred direction of time
    blurred: Tensor = filter2d(image, kernels, border_type="replicate")
    return blurred


def _trajectory(strength: float, generator: torch.Generator | None) -> Tensor:
    """Positions ``(_SAMPLES, 2)`` at equal times, centre of mass at the origin."""

    def normal() -> Tensor:
        return torch.randn(_SAMPLES, generator=generator, dtype=torch.float64)

    def uniform() -> Tensor:
        return torch.rand(_SAMPLES, generator=generator, dtype=torch.float64)

    drift = 0.1 * strength * normal()
    jolt = (uniform() < 6 * strength / _SAMPLES) * math.pi * (2 * uniform() - 1)
    heading = 2 * math.pi * uniform()[0] + torch.cumsum(drift + jolt, 0)
    # Speed is a slow random walk in its logarithm, within about a factor of e at full strength.
    speed = torch.exp(strength * torch.cumsum(normal(), 0) / math.sqrt(_SAMPLES))
    path = torch.cumsum(speed[:, None] * torch.stack([heading.cos(), heading.sin()], -1), 0)
    return path - path.mean(0)


def _rasterise(path: Tensor, size: int) -> Tensor:
    """Share every position among its four pixels, bilinearly; ``path`` in pixels from the middle."""
    position = path + size // 2
    corner = position.floor()
    fraction = position - corner
    kernel = torch.zeros(size + 1, size + 1, dtype=path.dtype)  # room for the zero shares beyond the border
    for down in (0, 1):
        for right in (0, 1):
            share = (fraction[:, 1] if down else 1 - fraction[:, 1]) * (fraction[:, 0] if right else 1 - fraction[:, 0])
            kernel.index_put_((corner[:, 1].long() + down, corner[:, 0].long() + right), share, accumulate=True)
    kernel = kernel[:size, :size]
    return kernel / kernel.sum()
