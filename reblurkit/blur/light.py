"""sRGB values and the light they stand for."""

from __future__ import annotations

from kornia.color import linear_rgb_to_rgb, rgb_to_linear_rgb
from torch import Tensor


def to_light(image: Tensor) -> Tensor:
    """Linear light of sRGB values, ``(B, 3, H, W)`` in [0, 1]; each value's result depends on it alone."""
    light: Tensor = rgb_to_linear_rgb(widened(image)).to(image.dtype)
    return light


def from_light(light: Tensor) -> Tensor:
    """SRGB values of linear light, ``(B, 3, H, W)`` in [0, 1]; each value's result depends on it alone."""
    image: Tensor = linear_rgb_to_rgb(widened(light)).to(light.dtype)
    return image


def widened(image: Tensor) -> Tensor:
    """An image in the type in which its powers, rounded to its own type, do not depend on where it lies in memory.

    On a CPU the last bit of a power in single precision differs between the middle of an array, computed in vectors,
    and its end, so that an image would depend on what shares its batch and on the number of threads. Rounded from
    double precision it does not. GPUs compute all values alike.
    """
    return image.double() if image.device.type == "cpu" else image
