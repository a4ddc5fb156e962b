"""sRGB values and the light they stand for."""

from __future__ import annotations

from kornia.color import linear_rgb_to_rgb, rgb_to_linear_rgb
from torch import Tensor


def to_light(image: Tensor) -> Tensor:
    """Linear light of sRGB values, ``(B, 3, H, W)`` in [0, 1]; each value's result depends on it alone."""
    light: Tensor = rgb_to_linear_rgb(_wide(image)).to(image.dtype)
    return light


def from_light(light: Tensor) -> Tensor:
    """SRGB values of linear light, ``(B, 3, H, W)`` in [0, 1]; each value's result depends on it alone."""
    image: Tensor = linear_rgb_to_rgb(_wide(light)).to(light.dtype)
    return image


def _wide(image: Tensor) -> Tensor:
    # On a CPU the last bit of a power in single precision differs between the middle of an array, computed in vectors,
    # and its end, so that an image would depend on what shares its batch. Rounded from double precision it does not.
    return image.double() if image.device.type == "cpu" else image
