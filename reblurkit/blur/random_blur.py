"""What the random blurs for training have in common."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from reblurkit.blur.arguments import check_image, own_generator
from reblurkit.blur.light import from_light, to_light
from reblurkit.core.numbers import check_positive
from reblurkit.errors import ArgumentError, ShapeError


class DrawnBlur(nn.Module, ABC):
    """Blurs every image of a batch with a blur of its own, drawn at random.

    Drawing and blurring are two steps: :meth:`draw` makes a small tensor of random numbers on the CPU, a row for each
    image, and :meth:`blur` turns images and rows into blurry images, on whatever device they are, in one call. So a
    worker draws beside the image that it reads, and the result does not depend on which images share a batch.

    Args:
        seed: Makes the sequence of this object's draws reproducible; default: the global random state.

    Raises:
        ArgumentError: If ``seed`` is not a whole number.
    """

    def __init__(self, seed: int | None) -> None:
        super().__init__()
        self.seed = seed
        self._generator = own_generator(seed)

    @property
    @abstractmethod
    def border(self) -> int:
        """Pixels at each side of the image whose blur may come from beyond it, where the border is replicated."""

    def forward(self, image: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Blur with new draws.

        Args:
            image: ``(B, C, H, W)`` in [0, 1].
            generator: Source of the draws for this call, on the CPU; default: this object's own.
        """
        check_image(image)
        return self.blur(image, self.draw(len(image), generator))

    @abstractmethod
    def draw(self, count: int, generator: torch.Generator | None = None) -> Tensor:
        """Draw ``count`` blurs, on the CPU: a tensor whose rows :meth:`blur` takes, one an image."""

    @abstractmethod
    def blur(self, image: Tensor, drawn: Tensor) -> Tensor:
        """Blur with what was drawn.

        Args:
            image: ``(B, C, H, W)`` in [0, 1].
            drawn: B rows of :meth:`draw`.

        Raises:
            ShapeError: If there are not as many rows as images, or the images are not of the blur's kind.
        """


class RandomBlur(DrawnBlur):
    """A drawn blur that is a filter.

    Light adds up on the sensor, so images are blurred in linear light: converted from sRGB, blurred, converted back.

    Args:
        seed: Makes the sequence of this object's draws reproducible; default: the global random state.
        linear: Blur in linear light; ``False`` blurs the values as they are.

    Shape:
        ``(B, C, H, W)`` in [0, 1] to the same shape. In linear light C is 3 or 1.

    Raises:
        ArgumentError: If ``seed`` is not a whole number, or the input no tensor of floating point.
        ShapeError: If the input is no batch of images, is empty, or neither RGB nor grey in linear light.
    """

    def __init__(self, seed: int | None, linear: bool) -> None:
        super().__init__(seed)
        self.linear = linear

    def blur(self, image: Tensor, drawn: Tensor) -> Tensor:
        """Blur with what was drawn.

        Args:
            image: ``(B, C, H, W)`` in [0, 1].
            drawn: B rows of :meth:`draw`.

        Raises:
            ShapeError: If there are not as many rows as images, or the images are neither RGB nor grey in linear light.
        """
        check_image(image)
        if len(drawn) != len(image):
            raise ShapeError(f"expected one draw an image, {len(image)}, but came {len(drawn)}")
        drawn = drawn.to(image)
        if not self.linear:
            return self.blur_values(image, drawn)
        channels = image.shape[1]
        if channels not in (1, 3):
            raise ShapeError(f"linear light needs RGB or grey images, but came {channels} channels; pass linear=False")
        light = to_light(image.expand(-1, 3, -1, -1))
        return from_light(self.blur_values(light, drawn))[:, :channels]

    @abstractmethod
    def blur_values(self, image: Tensor, drawn: Tensor) -> Tensor:
        """Blur values as they are, of any number of channels; ``drawn`` has the image's type and device."""


class RandomExtentBlur(RandomBlur):
    """A random blur that reaches at least ``smallest`` and at most ``largest`` pixels far.

    Args:
        largest: The largest extent in pixels.
        smallest: The smallest.
        seed: As of :class:`RandomBlur`.
        linear: As of :class:`RandomBlur`.

    Raises:
        ArgumentError: If not ``0 < smallest <= largest``.
    """

    def __init__(self, largest: float, smallest: float, seed: int | None, linear: bool) -> None:
        super().__init__(seed, linear)
        check_positive(largest=largest, smallest=smallest, unit=" of pixels")
        if smallest > largest:
            raise ArgumentError(f"`smallest` must be at most `largest`, but they are {smallest} and {largest}")
        self.largest = largest
        self.smallest = smallest

    @property
    def border(self) -> int:
        """Pixels of the largest extent."""
        return math.ceil(self.largest)

    def _extent(self, share: Tensor) -> Tensor:
        """From the smallest extent, for 0, to the largest, for 1."""
        return self.smallest + (self.largest - self.smallest) * share

    def extra_repr(self) -> str:
        """The options, for ``repr``."""
        return f"largest={self.largest}, smallest={self.smallest}, seed={self.seed}, linear={self.linear}"


def draw_seed(generator: torch.Generator | None) -> Tensor:
    """A seed, ``(1,)`` float64: a whole number small enough to be exact, which may stand in a row of draws."""
    return torch.randint(2**53, (1,), generator=generator).double()


def seeds_of(drawn: Tensor) -> list[int]:
    """The seeds in a column of draws; reads them, so a GPU is waited for, once a batch."""
    return [int(seed) for seed in drawn.tolist()]
