"""The features of NIQE: natural scene statistics of the blocks of an image.

Mittal, Soundararajan and Bovik, *Making a "Completely Blind" Image Quality Analyzer*, IEEE Signal Processing Letters
20(3), 2013, called "the paper" here. What its text leaves open is settled by the program that the authors published.
All is in float64: statistics of nearly flat blocks are differences of nearly equal numbers.
"""

from __future__ import annotations

from functools import cache
from typing import Literal

import torch
from kornia.filters import filter2d_separable, get_gaussian_kernel1d
from torch import Tensor
from torch.nn import functional as F

from reblurkit.errors import ArgumentError, ShapeError

BLOCK = 96  # pixels, at full size
_WINDOW, _SIGMA = 7, 7 / 6
_SHIFTS = ((0, 1), (1, 0), (1, 1), (1, -1))  # the paper's H, V, D1, D2 neighbours
# Weights of R, G, B in [0, 255] and the value of black: MATLAB's rgb2gray; the luma of ITU-R BT.601 in [16, 235].
_LUMA = {
    "grey": ((0.298936021293775, 0.587043074451121, 0.114020904255103), 0.0),
    "y": ((65.481 / 255, 128.553 / 255, 24.966 / 255), 16.0),
}
Luma = Literal["grey", "y"]


def luma_of(image: Tensor, luma: Luma) -> Tensor:
    """The grey image that NIQE looks at, as if made from a file of 8 bits.

    Args:
        image: ``(B, 3, H, W)``, or ``(B, 1, H, W)`` if it is grey already; clamped to [0, 1], rounded to 8 bits.
        luma: ``"grey"``: MATLAB's ``rgb2gray`` as in the authors' program; ``"y"``: the Y of BasicSR, 16 to 235.

    Returns:
        ``(B, 1, H, W)`` in float64, whole numbers of [0, 255].

    Raises:
        ArgumentError: If ``luma`` is neither.
        ShapeError: If there are not 1 or 3 channels.

    Example:
        >>> luma_of(torch.tensor([1.0, 0.0, 0.0]).reshape(1, 3, 1, 1), "grey").item()
        76.0
    """
    if luma not in _LUMA:
        raise ArgumentError(f"`luma` must be 'grey' or 'y', but is {luma!r}")
    if image.shape[1] not in (1, 3):
        raise ShapeError(f"NIQE needs images of 1 or 3 channels, but came {image.shape[1]}")
    levels = _round(image.double().clamp(0, 1) * 255)
    if image.shape[1] == 1:
        return levels
    weights, black = _LUMA[luma]
    return _round(black + (levels * levels.new_tensor(weights).reshape(3, 1, 1)).sum(1, keepdim=True))


def _round(values: Tensor) -> Tensor:
    """Rounds halves up like MATLAB, not to even like torch."""
    return (values + 0.5).floor()


def mscn(grey: Tensor) -> tuple[Tensor, Tensor]:
    """Mean-subtracted contrast-normalised coefficients, equations 1 to 3 of the paper.

    Gaussian window of 7 x 7 with a standard deviation of 7/6, border pixels repeated.

    Args:
        grey: ``(B, 1, H, W)`` in float64, [0, 255].

    Returns:
        The coefficients and the local standard deviation, each ``(B, 1, H, W)``.
    """
    mean, square = (_window_mean(values) for values in (grey, grey**2))
    deviation = (square - mean**2).abs().sqrt()
    centred = grey - mean
    # In flat regions rounding leaves some 1e-14 of either sign, and the fits below ask for signs.
    centred = torch.where(centred.abs() < 1e-9, 0.0, centred)
    return centred / (deviation + 1), deviation


def _window_mean(values: Tensor) -> Tensor:
    # Kornia's gaussian_blur2d reads sigma on the images' device, for which a GPU would have to be waited for.
    window = get_gaussian_kernel1d(_WINDOW, _SIGMA, dtype=values.dtype).to(values.device)
    mean: Tensor = filter2d_separable(values, window, window, border_type="replicate")
    return mean


def half_size(grey: Tensor) -> Tensor:
    """Half the height and width, as MATLAB's ``imresize(grey, 0.5)``.

    Bicubic with antialiasing, mirrored at the borders; torch's antialiased bicubic instead drops what lies outside.

    Args:
        grey: ``(B, 1, H, W)``, even sides of at least 4.

    Returns:
        ``(B, 1, H / 2, W / 2)``.

    Example:
        >>> half_size(torch.ones(1, 1, 4, 6, dtype=torch.float64)).shape
        torch.Size([1, 1, 2, 3])
    """
    # Keys' cubic with a = -1/2, stretched to twice its width, at the odd multiples of half a pixel.
    taps = grey.new_tensor([-3, -9, 29, 111, 111, 29, -9, -3]) / 256
    for dim in (-2, -1):
        ends = grey.narrow(dim, 0, 3), grey.narrow(dim, grey.shape[dim] - 3, 3)
        mirrored = torch.cat([ends[0].flip(dim), grey, ends[1].flip(dim)], dim)
        shape, stride = ((8, 1), (2, 1)) if dim == -2 else ((1, 8), (1, 2))
        grey = F.conv2d(mirrored, taps.reshape(1, 1, *shape), stride=stride)
    return grey


def fit_aggd(values: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Asymmetric generalised Gaussian distributions (equation 6 of the paper) that fit samples.

    Moments are matched as in Lasmar, Stitou and Berthoumieu (ICIP 2009). As in the authors' program the shape is the
    best of 0.2, 0.201, ..., 10; it is 0.2, and a scale is NaN, where no sample lies on that side of 0.

    Args:
        values: ``(..., samples)`` in float64.

    Returns:
        Shape and left and right scale, each ``(...)``: alpha, beta_l, beta_r.
    """
    left, right = (_root_mean_square(values, side) for side in (values < 0, values > 0))
    asymmetry = left / right
    moments = values.abs().mean(-1) ** 2 / (values**2).mean(-1)
    moments = moments * (asymmetry**3 + 1) * (asymmetry + 1) / (asymmetry**2 + 1) ** 2
    shapes, table = _shape_table(values.device)
    above = torch.searchsorted(table, moments).clamp(1, len(table) - 1)
    nearest = torch.where((moments - table[above - 1]).abs() <= (table[above] - moments).abs(), above - 1, above)
    alpha = shapes[torch.where(moments.isnan(), 0, nearest)]
    scale = ((torch.lgamma(1 / alpha) - torch.lgamma(3 / alpha)) / 2).exp()
    return alpha, left * scale, right * scale


def _root_mean_square(values: Tensor, chosen: Tensor) -> Tensor:
    return ((values**2 * chosen).sum(-1) / chosen.sum(-1)).sqrt()


@cache
def _shape_table(device: torch.device) -> tuple[Tensor, Tensor]:
    """Shapes and their ratios of moments, (E|x|)^2 / E[x^2] of a generalised Gaussian, which rise with the shape."""
    shapes = torch.arange(200, 10001, dtype=torch.float64, device=device) / 1000
    return shapes, (2 * torch.lgamma(2 / shapes) - torch.lgamma(1 / shapes) - torch.lgamma(3 / shapes)).exp()


def block_features(blocks: Tensor) -> Tensor:
    """The 18 features of blocks at one scale.

    Shape and mean scale of the coefficients; then shape, mean (equation 8), left and right scale of the products of
    neighbours, horizontal, vertical and along both diagonals. As in the authors' program neighbours of the last row
    or column are those of the first: the paper does not say.

    Args:
        blocks: MSCN coefficients ``(..., h, w)``.

    Returns:
        ``(..., 18)``.
    """
    products = [blocks * blocks.roll(shift, (-2, -1)) for shift in _SHIFTS]
    alpha, left, right = fit_aggd(torch.stack([blocks, *products]).flatten(-2))
    mean = (right - left) * (torch.lgamma(2 / alpha) - torch.lgamma(1 / alpha)).exp()
    pairs = torch.stack([alpha, mean, left, right], -1)[1:].movedim(0, -2).flatten(-2)
    return torch.cat([torch.stack([alpha[0], (left[0] + right[0]) / 2], -1), pairs], -1)


def niqe_features(grey: Tensor) -> tuple[Tensor, Tensor]:
    """Features of all whole blocks of 96 x 96 pixels, at full and at half size, and how sharp the blocks are.

    Args:
        grey: ``(B, 1, H, W)`` in float64, [0, 255]; rows and columns beyond the last whole block do not count.

    Returns:
        Features ``(B, N, 36)`` and mean local standard deviation ``(B, N)`` of N blocks.

    Raises:
        ShapeError: If there are fewer than two whole blocks.
    """
    rows, columns = (side // BLOCK for side in grey.shape[-2:])
    if rows * columns < 2:
        raise ShapeError(
            f"NIQE needs images of at least two blocks of {BLOCK} x {BLOCK} pixels, but came {tuple(grey.shape[-2:])}"
        )
    grey = grey[..., : rows * BLOCK, : columns * BLOCK]
    coefficients, deviation = mscn(grey)
    smaller, _ = mscn(half_size(grey))
    scales = [block_features(_blocks(coefficients, BLOCK)), block_features(_blocks(smaller, BLOCK // 2))]
    return torch.cat(scales, -1), _blocks(deviation, BLOCK).mean((-2, -1))


def _blocks(image: Tensor, size: int) -> Tensor:
    """``(B, 1, H, W)`` to ``(B, N, size, size)``."""
    return image[:, 0].unfold(1, size, size).unfold(2, size, size).flatten(1, 2)
