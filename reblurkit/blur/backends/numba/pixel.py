"""What happens at one pixel for one of its two motions, in Numba: gather its blur, or scatter its gradient."""

from __future__ import annotations

import math
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from reblurkit.blur.backends.numba.vec4 import add_scaled, load, store, zeros

Array = NDArray[Any]
#: Range; first tap of every cell; offsets right, down, and in the flat image; coefficients. See MergedCells.
Table = tuple[int, Array, Array, Array, Array, Array]
_jit = numba.njit(cache=True, forceinline=True)


@_jit
def gather(
    image: Array, groups: int, group: int, b: int, y: int, x: int, height: int, width: int, u: float, v: float,
    table: Table | None,
) -> tuple[Any, Any, Any]:  # fmt: skip
    """Half the blur along (u, v), and its derivatives by u and v (without the range of the table)."""
    if table is None:
        value, d_u, d_v = _gather_line(image, groups, group, b, y, x, height, width, u, v)
    else:
        value, d_u, d_v = _gather_table(image, groups, group, b, y, x, height, width, u, v, table)
    return value, d_u, d_v


@_jit
def scatter(
    value: Any, buffers: Array, base: int, groups: int, group: int, y: int, x: int, height: int, width: int,
    u: float, v: float, table: Table | None,
) -> None:  # fmt: skip
    """Add the gradient ``value`` of half the blur along (u, v) to the pixels that the blur read."""
    if table is None:
        _scatter_line(value, buffers, base, groups, group, y, x, height, width, u, v)
    else:
        _scatter_table(value, buffers, base, groups, group, y, x, height, width, u, v, table)


@_jit
def _cell(u: float, v: float, max_flow: int) -> tuple[int, int, float, float]:
    """Cell of flows (column, row) and the place in it, for the flow clamped to the range."""
    u = min(max(u, type(u)(-max_flow)), type(u)(max_flow))
    v = min(max(v, type(v)(-max_flow)), type(v)(max_flow))
    i, j = min(math.floor(u), max_flow - 1), min(math.floor(v), max_flow - 1)
    return i, j, type(u)(u - i), type(v)(v - j)


@_jit
def _gather_table(
    image: Array, groups: int, group: int, b: int, y: int, x: int, height: int, width: int, u: float, v: float,
    table: Table,
) -> tuple[Any, Any, Any]:  # fmt: skip
    max_flow, start, right, down, ahead, coefficients = table
    i, j, along_u, along_v = _cell(u, v, max_flow)
    cell = (j + max_flow) * 2 * max_flow + i + max_flow
    inside = x + min(i, 0) >= 0 and x + max(i + 1, 0) < width and y + min(j, 0) >= 0 and y + max(j + 1, 0) < height
    here = (b * height + y) * width + x
    # One sum per coefficient: the value and both derivatives are combinations of these four.
    sum_0, sum_1, sum_2, sum_3 = zeros(u), zeros(u), zeros(u), zeros(u)
    for tap in range(np.uint32(start[cell]), np.uint32(start[cell + 1])):
        if inside:
            source = here + ahead[tap]
        else:
            source = (b * height + _clamp(y + down[tap], height)) * width + _clamp(x + right[tap], width)
        pixel = load(image, source * groups + group)
        sum_0 = add_scaled(sum_0, coefficients[tap, 0], pixel)
        sum_1 = add_scaled(sum_1, coefficients[tap, 1], pixel)
        sum_2 = add_scaled(sum_2, coefficients[tap, 2], pixel)
        sum_3 = add_scaled(sum_3, coefficients[tap, 3], pixel)
    value = add_scaled(add_scaled(sum_0, along_u, sum_1), along_v, sum_2)
    value = add_scaled(value, along_u * along_v, sum_3)
    return value, add_scaled(sum_1, along_v, sum_3), add_scaled(sum_2, along_u, sum_3)


@_jit
def _scatter_table(
    value: Any, buffers: Array, base: int, groups: int, group: int, y: int, x: int, height: int, width: int,
    u: float, v: float, table: Table,
) -> None:  # fmt: skip
    max_flow, start, right, down, ahead, coefficients = table
    i, j, along_u, along_v = _cell(u, v, max_flow)
    cell = (j + max_flow) * 2 * max_flow + i + max_flow
    inside = x + min(i, 0) >= 0 and x + max(i + 1, 0) < width and y + min(j, 0) >= 0 and y + max(j + 1, 0) < height
    here = base + y * width + x
    both = along_u * along_v
    for tap in range(np.uint32(start[cell]), np.uint32(start[cell + 1])):
        if inside:
            target = here + ahead[tap]
        else:
            target = base + _clamp(y + down[tap], height) * width + _clamp(x + right[tap], width)
        weight = coefficients[tap, 0] + along_u * coefficients[tap, 1] + along_v * coefficients[tap, 2]
        weight += both * coefficients[tap, 3]
        row = target * groups + group
        store(buffers, row, add_scaled(load(buffers, row), weight, value))


@_jit
def _direction(u: float, v: float) -> tuple[bool, int, int, float, float]:
    """Longer axis (True: u), its sign, whole steps, length, and the change of the shorter axis per step."""
    horizontal = abs(u) >= abs(v)
    major, minor = (u, v) if horizontal else (v, u)
    length = abs(major)
    slope = minor / length if length > 0 else type(u)(0)
    return horizontal, -1 if major < 0 else 1, int(length), length, slope


@_jit
def _stays_inside(
    horizontal: bool, sign: int, whole: int, slope: float, y: int, x: int, height: int, width: int
) -> bool:  # fmt: skip
    """Whether no node needs a pixel beyond the border."""
    steps = whole + 1
    across = type(slope)(steps) * slope
    low, high = min(0, math.floor(across)), max(0, math.floor(across)) + 1
    back, ahead = min(0, sign * steps), max(0, sign * steps)
    if horizontal:
        return x + back >= 0 and x + ahead < width and y + low >= 0 and y + high < height
    return y + back >= 0 and y + ahead < height and x + low >= 0 and x + high < width


@_jit
def _node(
    step: int, inside: bool, horizontal: bool, sign: int, slope: float, y: int, x: int, height: int, width: int
) -> tuple[int, int, float]:  # fmt: skip
    """Pixels on both sides of a node on the shorter axis, as offsets in the image, and the place between them."""
    across = type(slope)(step) * slope
    floor = np.floor(across)
    fraction = across - floor
    low = int(floor)
    if inside:
        forward, sideways = (sign, width) if horizontal else (sign * width, 1)
        near = y * width + x + step * forward + low * sideways
        return near, near + sideways, fraction
    if horizontal:
        column = _clamp(x + sign * step, width)
        return _clamp(y + low, height) * width + column, _clamp(y + low + 1, height) * width + column, fraction
    line = _clamp(y + sign * step, height) * width
    return line + _clamp(x + low, width), line + _clamp(x + low + 1, width), fraction


@_jit
def _end_weights(whole: int, length: float) -> tuple[float, float, float]:
    """Half the weights of the nodes 0, ``whole`` and ``whole + 1``; the first is 0 where it is the second."""
    number = type(length)
    half, quarter = number(0.5), number(0.25)  # plain literals would widen single to double precision
    if whole == 0:
        return number(0), half - quarter * length, quarter * length
    rest = length - number(whole)
    return quarter / length, (quarter + half * rest - quarter * rest * rest) / length, quarter * rest * rest / length


@_jit
def _gather_line(
    image: Array, groups: int, group: int, b: int, y: int, x: int, height: int, width: int, u: float, v: float
) -> tuple[Any, Any, Any]:  # fmt: skip
    number = type(u)
    one, half = number(1), number(0.5)
    horizontal, sign, whole, length, slope = _direction(u, v)
    base = b * height * width
    inside = _stays_inside(horizontal, sign, whole, slope, y, x, height, width)
    first, last, after = _end_weights(whole, length)

    # Inner nodes weigh the same: add them up, then scale once. `turn` is the derivative by the shorter component.
    value, turn = zeros(u), zeros(u)
    for step in range(1, whole):
        near, far, fraction = _node(step, inside, horizontal, sign, slope, y, x, height, width)
        pixel = load(image, (base + near) * groups + group)
        change = add_scaled(load(image, (base + far) * groups + group), -one, pixel)
        value = add_scaled(add_scaled(value, one, pixel), fraction, change)
        turn = add_scaled(turn, number(step), change)
    inner = half / length if whole > 0 else number(0)
    value = add_scaled(zeros(u), inner, value)
    value = add_scaled(value, first, load(image, (base + y * width + x) * groups + group))
    turn = add_scaled(zeros(u), inner / length if whole > 0 else number(0), turn)

    # The blur grows by the image at the end point: d/dM = (I(end) - blur) / M, in the limit M = 0 as well.
    rest = length - number(whole)
    grow = zeros(u)
    for step in range(whole, whole + 2):
        near, far, fraction = _node(step, inside, horizontal, sign, slope, y, x, height, width)
        pixel = load(image, (base + near) * groups + group)
        change = add_scaled(load(image, (base + far) * groups + group), -one, pixel)
        pixel = add_scaled(pixel, fraction, change)
        weight = last if step == whole else after
        value = add_scaled(value, weight, pixel)
        if whole == 0:
            share = half * half * number(step)
            grow = add_scaled(grow, share if step == 1 else -half * half, pixel)
        else:
            share = weight * number(step) / length
            grow = add_scaled(grow, half * (one - rest if step == whole else rest) / length, pixel)
        turn = add_scaled(turn, share, change)
    if whole > 0:
        grow = add_scaled(grow, -one / length, value)
    along = add_scaled(zeros(u), number(sign), add_scaled(grow, -slope, turn))
    if horizontal:
        return value, along, turn
    return value, turn, along


@_jit
def _scatter_line(
    value: Any, buffers: Array, base: int, groups: int, group: int, y: int, x: int, height: int, width: int,
    u: float, v: float,
) -> None:  # fmt: skip
    one = type(u)(1)
    horizontal, sign, whole, length, slope = _direction(u, v)
    inside = _stays_inside(horizontal, sign, whole, slope, y, x, height, width)
    first, last, after = _end_weights(whole, length)
    here = (base + y * width + x) * groups + group
    store(buffers, here, add_scaled(load(buffers, here), first, value))
    inner = type(u)(0.5) / length if whole > 0 else type(u)(0)
    for step in range(1 if whole > 0 else 0, whole + 2):
        near, far, fraction = _node(step, inside, horizontal, sign, slope, y, x, height, width)
        weight = inner if step < whole else (last if step == whole else after)
        row = (base + near) * groups + group
        store(buffers, row, add_scaled(load(buffers, row), weight * (one - fraction), value))
        row = (base + far) * groups + group
        store(buffers, row, add_scaled(load(buffers, row), weight * fraction, value))


@_jit
def _clamp(position: int, size: int) -> int:
    return min(max(position, 0), size - 1)
