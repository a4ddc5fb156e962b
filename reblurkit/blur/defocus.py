"""Random defocus."""

from __future__ import annotations

import torch
from kornia.filters import filter2d
from torch import Tensor

from reblurkit.blur.random_blur import RandomExtentBlur

_FINE = 8  # points a side, per pixel, that decide how much of it lies in the disc


class DefocusBlur(RandomExtentBlur):
    """Blurs every image of a batch by a disc of its own, as a lens does that is out of focus.

    The radius is uniform between ``smallest`` and ``largest``; the same all over the image.

    Args:
        largest: Largest radius in pixels.
        smallest: Smallest radius in pixels.
        seed: Makes the sequence of radii of this object reproducible; default: the global random state.
        linear: Blur in linear light; ``False`` blurs the values as they are.

    Images, and errors of theirs, are those of :class:`RandomBlur`.

    Raises:
        ArgumentError: If not ``0 < smallest <= largest``, or ``seed`` is not a whole number.

    Example:
        >>> DefocusBlur(largest=3, seed=0)(torch.rand(2, 3, 32, 32)).shape
        torch.Size([2, 3, 32, 32])
    """

    def __init__(
        self, largest: float = 3.0, smallest: float = 1.0, seed: int | None = None, linear: bool = True
    ) -> None:
        super().__init__(largest, smallest, seed, linear)

    def draw(self, count: int, generator: torch.Generator | None = None) -> Tensor:
        """Draw discs: kernels ``(count, side, side)``, each with sum 1."""
        radius = torch.stack([torch.rand((), generator=generator or self._generator) for _ in range(count)])
        radius = self._extent(radius)
        side = 2 * self.border + 1
        position = (torch.arange(side * _FINE) + 0.5) / _FINE - side / 2
        inside = position.square()[:, None] + position.square() <= radius.square()[:, None, None]
        kernels: Tensor = inside.float().view(count, side, _FINE, side, _FINE).mean((2, 4))
        return kernels / kernels.sum((1, 2), keepdim=True)

    def blur_values(self, image: Tensor, drawn: Tensor) -> Tensor:
        """Blur values as they are."""
        blurred: Tensor = filter2d(image, drawn, border_type="replicate")
        return blurred
