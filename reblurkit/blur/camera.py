"""From light to a raw image and back: where the noise of a camera gets its colours and its grain."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from reblurkit.blur.noise import normal_like

# XYZ to camera, of four cameras: Brooks et al. (2019), who took them from the data set of Plötz and Roth (2017).
_FROM_XYZ = (
    ((1.0234, -0.2969, -0.2266), (-0.5625, 1.6328, -0.0469), (-0.0703, 0.2188, 0.6406)),
    ((0.4913, -0.0541, -0.0202), (-0.6130, 1.3513, 0.2906), (-0.1564, 0.2151, 0.7183)),
    ((0.8380, -0.2630, -0.0639), (-0.2887, 1.0725, 0.2496), (-0.0627, 0.1427, 0.5438)),
    ((0.6596, -0.2079, -0.0562), (-0.4782, 1.3016, 0.1933), (-0.0970, 0.1581, 0.5181)),
)
_TO_XYZ = ((0.4124564, 0.3575761, 0.1804375), (0.2126729, 0.7151522, 0.0721750), (0.0193339, 0.1191920, 0.9503041))


class Camera(NamedTuple):
    """A camera at random, for one picture."""

    matrix: Tensor
    """From linear sRGB to the camera's colours, ``(3, 3)`` float64; rows have sum 1, so that white stays white."""
    gains: tuple[float, float]
    """White balance of red and blue."""
    phase: tuple[int, int]
    """Row and column, 0 or 1, of the first red pixel of the Bayer pattern."""

    @classmethod
    def drawn(cls, generator: torch.Generator) -> Camera:
        """A mixture of four real cameras' colours, gains as Rim et al. (2022) draw them, any of the four patterns."""
        share, gains = (torch.rand(count, generator=generator, dtype=torch.float64) for count in (4, 2))
        first = torch.randint(2, (2,), generator=generator).tolist()
        cameras = torch.tensor(_FROM_XYZ, dtype=torch.float64)
        matrix = (share[:, None, None] / share.sum() * cameras).sum(0) @ torch.tensor(_TO_XYZ, dtype=torch.float64)
        matrix = matrix / matrix.sum(1, keepdim=True)
        red, blue = gains.tolist()
        return cls(matrix, (1.9 + 0.5 * red, 1.5 + 0.4 * blue), (first[0], first[1]))


def photograph(light: Tensor, camera: Camera, shot: float, read: float, generator: torch.Generator) -> Tensor:
    """What a sensor and its processing make of an image: mosaic, noise, white balance, demosaicing, colours.

    Noise is added to the raw values x, before white balance, with variance ``read**2 + shot**2 * x``.

    Args:
        light: Linear light, ``(3, H, W)`` in [0, 1].
        camera: The camera.
        shot: Standard deviation of the shot noise of a raw value of 1.
        read: Standard deviation of the read noise.
        generator: Source of the noise, on the CPU.

    Returns:
        Linear light, ``(3, H, W)``, not clamped.
    """
    red, blue = camera.gains
    gains = _bayer(light, camera.phase, (red, 1.0, blue))
    raw = (_bayer_values(_coloured(light, camera.matrix), camera.phase) / gains).clamp(min=0)
    raw = raw + (read**2 + shot**2 * raw).sqrt() * normal_like(raw, generator)
    return _coloured(demosaic(raw * gains, camera.phase), camera.matrix.inverse())


def demosaic(raw: Tensor, phase: tuple[int, int]) -> Tensor:
    """Three colours of each pixel of a Bayer image.

    Malvar, He and Cutler, *High-Quality Linear Interpolation for Demosaicing of Bayer-Patterned Color Images* (2004).
    The border is mirrored.

    Args:
        raw: ``(H, W)``, any values.
        phase: Row and column, 0 or 1, of the first red pixel.

    Returns:
        ``(3, H, W)``; the values of ``raw`` are among them.
    """
    height, width = raw.shape
    padded = raw[_mirrored(height, raw.device)][:, _mirrored(width, raw.device)]

    def at(down: int, right: int) -> Tensor:
        return padded[2 + down : 2 + down + height, 2 + right : 2 + right + width]

    near_rows, near_columns = at(-1, 0) + at(1, 0), at(0, -1) + at(0, 1)
    far_rows, far_columns = at(-2, 0) + at(2, 0), at(0, -2) + at(0, 2)
    diagonal = at(-1, -1) + at(-1, 1) + at(1, -1) + at(1, 1)
    green = (4 * raw + 2 * (near_rows + near_columns) - far_rows - far_columns) / 8
    along_row = (5 * raw + 4 * near_columns - diagonal - far_columns + 0.5 * far_rows) / 8
    along_column = (5 * raw + 4 * near_rows - diagonal - far_rows + 0.5 * far_columns) / 8
    opposite = (6 * raw + 2 * diagonal - 1.5 * (far_rows + far_columns)) / 8

    is_red, is_green, is_blue = (mask.bool() for mask in _masks(raw, phase))
    red_row = ((torch.arange(height, device=raw.device) - phase[0]) % 2 == 0)[:, None]
    beside, above = torch.where(red_row, along_row, along_column), torch.where(red_row, along_column, along_row)
    red = torch.where(is_red, raw, torch.where(is_blue, opposite, beside))
    blue = torch.where(is_blue, raw, torch.where(is_red, opposite, above))
    return torch.stack([red, torch.where(is_green, raw, green), blue])


def _mirrored(length: int, device: torch.device) -> Tensor:
    """Places of an axis with two more on both sides, mirrored at the first and the last, which keeps the pattern."""
    period = max(2 * (length - 1), 1)
    places = torch.arange(-2, length + 2, device=device) % period
    return torch.minimum(places, period - places) if length > 1 else torch.zeros_like(places)


def _masks(like: Tensor, phase: tuple[int, int]) -> tuple[Tensor, Tensor, Tensor]:
    """Where red, green and blue pixels are, ``(H, W)``, of the image's type."""
    rows, columns = (
        (torch.arange(length, device=like.device) - first) % 2
        for length, first in zip(like.shape[-2:], phase, strict=True)
    )
    red, blue = ((1 - rows)[:, None] * (1 - columns)).to(like), (rows[:, None] * columns).to(like)
    return red, 1 - red - blue, blue


def _bayer(like: Tensor, phase: tuple[int, int], values: tuple[float, float, float]) -> Tensor:
    red, green, blue = _masks(like, phase)
    return values[0] * red + values[1] * green + values[2] * blue


def _bayer_values(colours: Tensor, phase: tuple[int, int]) -> Tensor:
    red, green, blue = _masks(colours, phase)
    return colours[0] * red + colours[1] * green + colours[2] * blue


def _coloured(image: Tensor, matrix: Tensor) -> Tensor:
    """Every pixel times a matrix, by sums of planes: a product of matrices would depend on where pixels lie."""
    return torch.stack([row[0] * image[0] + row[1] * image[1] + row[2] * image[2] for row in matrix.tolist()])
