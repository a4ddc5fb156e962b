"""The lookup table of blur kernels, and its compressed form.

A table entry is the blur kernel of *one* straight motion from the pixel itself to the pixel ``(u, v)`` further on, for
whole ``u`` and ``v``. Equation 9 of Reblur2Deblur interpolates between the four entries around a real flow. The
backends use the same table in another form: the four entries around a *cell* of flows are merged into one list of taps,
so that the interpolated kernel is read once instead of four times.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from reblurkit.blur.arguments import check_table
from reblurkit.core.numbers import shown
from reblurkit.errors import ArgumentError

Floats = NDArray[np.float64]
Taps = tuple[Floats, Floats, Floats]  # offsets x, offsets y, weights, each (entries, taps); unused taps weigh 0


def kernel_table(max_flow: int = 16, rasterisation: str = "line") -> Tensor:
    """Blur kernels of all whole flows up to ``max_flow``, each one segment of mass 1 (Reblur2Deblur, equation 8).

    Equation 8 does not say how a segment becomes pixels. Read literally its Dirac line has the mass ``1 / (2 |F|)``;
    here every entry sums to 1, and the zero flow is the pixel itself. The blur of a pixel is the mean of two entries,
    one per neighbouring frame.

    Args:
        max_flow: Largest flow component m in pixels, from 1 to 64. The paper uses 16 (33 x 33 entries, 9.5 MB); memory
            grows with the fourth power, to 2.2 GB.
        rasterisation: How a segment is drawn.

            - ``"line"``: a node at every whole step of the longer axis, linear on the shorter axis, trapezoid rule
              (half weight for both ends). Most accurate per tap on smooth images, and the default.
            - ``"nearest"``: the same nodes, each on its nearest pixel.
            - ``"area"``: every pixel weighs as the length of the segment inside its square.
            - ``"bilinear"``: the exact line integral of the bilinearly interpolated image. Has half as many taps again.

    Returns:
        Table ``(2m+1, 2m+1, 2m+1, 2m+1)``, float64, indexed ``[v + m, u + m, y + m, x + m]``.

    Raises:
        ArgumentError: If ``max_flow`` is not a whole number from 1 to 64, or ``rasterisation`` is unknown.

    Example:
        >>> table = kernel_table(max_flow=2)
        >>> table[2, 4, 2]  # flow (2, 0): the row of the pixel itself
        tensor([0.0000, 0.0000, 0.2500, 0.5000, 0.2500], dtype=torch.float64)
    """
    check_table(max_flow, dense=True)
    if rasterisation not in list(_RASTERISATIONS):
        raise ArgumentError(f"`rasterisation` must be one of {sorted(_RASTERISATIONS)}, but is {shown(rasterisation)}")
    entry, tap, weight = _entries(max_flow, rasterisation)
    side = 2 * max_flow + 1
    table = np.zeros(side**4)
    table[entry * side**2 + tap] = weight
    return torch.from_numpy(table.reshape(side, side, side, side))


@dataclass(frozen=True)
class MergedCells:
    """The table as one list of taps per cell of flows ``[i, i+1] x [j, j+1]``; cells in row-major order.

    A tap's weight at the fractions ``(a, b)`` inside the cell is ``c0 + c1 a + c2 b + c3 a b``, the bilinear
    interpolation of equation 9. Weights hold the half mass that one of the two segments has.

    Attributes:
        start: ``(cells + 1,)`` int32; the taps of cell c are ``start[c]`` to ``start[c + 1]``.
        x: ``(taps,)`` int32, offsets to the right in pixels.
        y: ``(taps,)`` int32, offsets down in pixels.
        coefficients: ``(taps, 4)``.
    """

    start: Tensor
    x: Tensor
    y: Tensor
    coefficients: Tensor


@functools.lru_cache(maxsize=32)
def merged_cells(max_flow: int, dtype: torch.dtype, device: torch.device) -> MergedCells:
    """Compressed table of the default rasterisation, cast once from float64 and kept.

    Args:
        max_flow: Largest flow component in pixels, at least 1.
        dtype: Type of the coefficients.
        device: Where the tensors shall live.

    Example:
        >>> cells = merged_cells(16, torch.float32, torch.device("cpu"))
        >>> len(cells.start) - 1, len(cells.x)
        (1024, 30112)
    """
    entry, tap, weight = _entries(max_flow, "line")
    side, cells = 2 * max_flow + 1, 2 * max_flow
    row, column = np.divmod(entry, side)

    # Every entry is a corner of up to four cells. From corner weights k(v, u) to polynomial coefficients:
    # c0 = k00, c1 = k01 - k00, c2 = k10 - k00, c3 = k11 - k10 - k01 + k00.
    signs = {(0, 0): (1, -1, -1, 1), (0, 1): (0, 1, 0, -1), (1, 0): (0, 0, 1, -1), (1, 1): (0, 0, 0, 1)}
    keys, parts = [], []
    for (down, right), sign in signs.items():
        j, i = row - down, column - right
        inside = (j >= 0) & (j < cells) & (i >= 0) & (i < cells)
        keys.append(((j * cells + i) * side**2 + tap)[inside])
        parts.append(0.5 * weight[inside, None] * np.array(sign))
    key, position = np.unique(np.concatenate(keys), return_inverse=True)
    coefficients = np.zeros((len(key), 4))
    np.add.at(coefficients, position, np.concatenate(parts))

    cell, tap = np.divmod(key, side**2)
    y, x = np.divmod(tap, side)
    start = np.searchsorted(cell, np.arange(cells**2 + 1))
    return MergedCells(
        start=torch.from_numpy(start).to(device, torch.int32),
        x=torch.from_numpy(x - max_flow).to(device, torch.int32),
        y=torch.from_numpy(y - max_flow).to(device, torch.int32),
        coefficients=torch.from_numpy(coefficients).to(device, dtype),
    )


def _entries(max_flow: int, rasterisation: str) -> tuple[NDArray[np.int64], NDArray[np.int64], Floats]:
    """All non-zero taps of the table: entry index, tap index inside the entry, weight; no pair occurs twice."""
    side = 2 * max_flow + 1
    v, u = (grid.reshape(-1, 1).astype(float) for grid in np.mgrid[-max_flow : max_flow + 1, -max_flow : max_flow + 1])
    x, y, weight = _RASTERISATIONS[rasterisation](u, v, max_flow)
    entry = np.broadcast_to(np.arange(side**2)[:, None], weight.shape)
    used = weight != 0
    tap = ((y + max_flow) * side + x + max_flow)[used].astype(np.int64)
    key, position = np.unique(entry[used] * side**2 + tap, return_inverse=True)
    total: Floats = np.bincount(position, weights=weight[used]).astype(np.float64)
    return key // side**2, key % side**2, total


def _nodes(u: Floats, v: Floats, max_flow: int) -> Taps:
    """Positions at whole steps of the longer axis, with trapezoid weights; the shorter coordinate is fractional."""
    length = np.maximum(np.abs(u), np.abs(v))
    divisor = np.maximum(length, 1)
    step = np.arange(max_flow + 1.0)
    weight = np.where(step <= length, 1 / divisor, 0)
    weight = np.where((length > 0) & ((step == 0) | (step == length)), weight / 2, weight)
    return step * u / divisor, step * v / divisor, weight


def _line(u: Floats, v: Floats, max_flow: int) -> Taps:
    return _splat(*_nodes(u, v, max_flow))


def _nearest(u: Floats, v: Floats, max_flow: int) -> Taps:
    x, y, weight = _nodes(u, v, max_flow)
    return _round(x), _round(y), weight


def _area(u: Floats, v: Floats, max_flow: int) -> Taps:
    time, duration = _pieces(u, v, max_flow, first=0.5)
    middle = time + duration / 2
    return _round(u * middle), _round(v * middle), duration


def _bilinear(u: Floats, v: Floats, max_flow: int) -> Taps:
    # Between two grid lines the bilinear weights are quadratic in time: Gauss's rule with two points is exact.
    time, duration = _pieces(u, v, max_flow, first=1.0)
    point = np.concatenate([time + duration * (0.5 + side * 0.5 / np.sqrt(3)) for side in (-1, 1)], axis=1)
    return _splat(u * point, v * point, np.concatenate([duration, duration], axis=1) / 2)


def _pieces(u: Floats, v: Floats, max_flow: int, first: float) -> tuple[Floats, Floats]:
    """Cut the times [0, 1] where the segment crosses the lines ``first``, ``first + 1``, ... of either axis."""
    lines = np.arange(max_flow) + first
    with np.errstate(divide="ignore"):
        cuts = [np.minimum(lines / np.abs(component), 1) for component in (u, v)]
    ends = np.broadcast_to([0.0, 1.0], (len(u), 2))
    time = np.sort(np.concatenate([*cuts, ends], axis=1), axis=1)
    return time[:, :-1], np.diff(time, axis=1)


def _splat(x: Floats, y: Floats, weight: Floats) -> Taps:
    """Share each point's weight among the four pixels around it, linearly."""
    left, top = np.floor(x), np.floor(y)
    a, b = x - left, y - top
    corners = [
        (left, top, weight * (1 - a) * (1 - b)),
        (left + 1, top, weight * a * (1 - b)),
        (left, top + 1, weight * (1 - a) * b),
        (left + 1, top + 1, weight * a * b),
    ]
    x, y, weight = (np.concatenate(parts, axis=1) for parts in zip(*corners, strict=True))
    return x, y, weight


def _round(value: Floats) -> Floats:
    """Nearest whole number, halves away from zero, so that opposite flows have opposite kernels."""
    return np.sign(value) * np.floor(np.abs(value) + 0.5)


_RASTERISATIONS: dict[str, Callable[[Floats, Floats, int], Taps]] = {
    "line": _line,
    "nearest": _nearest,
    "area": _area,
    "bilinear": _bilinear,
}
