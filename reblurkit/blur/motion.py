"""Random motion of camera and objects."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from reblurkit.blur.line_blur import flow_line_blur
from reblurkit.blur.random_blur import RandomExtentBlur
from reblurkit.errors import ShapeError

_GRID = 4  # control points a side: motion varies over a quarter of the image and more
_VARIATION = 0.6  # of neighbouring control points, in lengths of the camera's own motion
_BEND = 0.4  # how far the two halves of the exposure differ from one straight motion


class MotionBlur(RandomExtentBlur):
    """Blurs every image of a batch along a smooth random motion of its own, which differs from place to place.

    One direction for all of the image, the camera's, plus smooth random variation, as of turns, depth and objects, and
    of the motion between the two halves of the exposure. Pixels are blurred along it by :func:`flow_line_blur`, in
    linear light. Its uses are those of :class:`ShakeBlur`, which has one kernel for the whole image.

    The longest vector of both flows of an image has the length ``smallest + (largest - smallest) * t ** 1.5`` with t
    uniform in [0, 1]: short motions are more frequent than long ones.

    Args:
        largest: Longest motion in half of the exposure, in pixels: a streak is up to twice as long.
        smallest: The shortest among the images' longest motions, in pixels.
        seed: Makes the sequence of motions of this object reproducible; default: the global random state.
        linear: Blur in linear light; ``False`` blurs the values as they are.

    Images, and errors of theirs, are those of :class:`RandomBlur`.

    Raises:
        ArgumentError: If not ``0 < smallest <= largest``, or ``seed`` is not a whole number.

    Example:
        >>> MotionBlur(largest=8, seed=0)(torch.rand(2, 3, 32, 40)).shape
        torch.Size([2, 3, 32, 40])
    """

    def __init__(
        self, largest: float = 14.0, smallest: float = 1.0, seed: int | None = None, linear: bool = True
    ) -> None:
        super().__init__(largest, smallest, seed, linear)

    def draw(self, count: int, generator: torch.Generator | None = None) -> Tensor:
        """Draw motions: vectors at control points, ``(count, 2, 2, 4, 4)`` pixels; F_next and F_prev, u and v."""
        return torch.stack([self._draw(generator or self._generator) for _ in range(count)])

    def _draw(self, generator: torch.Generator | None) -> Tensor:
        def uniform(*shape: int) -> Tensor:
            return torch.rand(shape, generator=generator, dtype=torch.float32)

        angle = 2 * math.pi * uniform()
        camera = torch.stack([angle.cos(), angle.sin()])[:, None, None]
        following = camera + _VARIATION * (2 * uniform(2, _GRID, _GRID) - 1)
        preceding = -following + _BEND * (2 * uniform(2, _GRID, _GRID) - 1)
        points = torch.stack([following, preceding])
        length = self._extent(uniform() ** 1.5)
        motion: Tensor = points * (length / torch.linalg.vector_norm(points, dim=1).amax())
        return motion

    def flows(self, drawn: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """The flow of every pixel: bicubic between the control points, its longest vector as long as theirs.

        Args:
            drawn: Rows of :meth:`draw`, ``(B, 2, 2, 4, 4)``.
            size: Height and width in pixels.

        Returns:
            ``flow_next`` and ``flow_prev``, each ``(B, 2, H, W)``.
        """
        if drawn.shape[1:] != (2, 2, _GRID, _GRID):
            raise ShapeError(f"expected motions of `draw`, (B, 2, 2, {_GRID}, {_GRID}), but came {tuple(drawn.shape)}")
        flows = F.interpolate(drawn.flatten(1, 2), size=size, mode="bicubic", align_corners=True)
        flows = flows.reshape(len(drawn), 2, 2, *size)
        flows = flows * (_longest(drawn) / _longest(flows).clamp(min=torch.finfo(flows.dtype).tiny))
        return flows[:, 0], flows[:, 1]

    def blur_values(self, image: Tensor, drawn: Tensor) -> Tensor:
        """Blur values as they are."""
        return flow_line_blur(image, *self.flows(drawn, (image.shape[-2], image.shape[-1])))


def _longest(flows: Tensor) -> Tensor:
    lengths: Tensor = torch.linalg.vector_norm(flows, dim=2, keepdim=True)
    return lengths.amax((1, 3, 4), keepdim=True)
