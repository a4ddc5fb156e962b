"""What happens at the pixels of a tile for one of their two motions, in Triton; one thread per pixel."""

from __future__ import annotations

import triton
import triton.language as tl

from reblurkit.blur.arguments import LONGEST

WARPS = 4
TILE_HEIGHT = tl.constexpr(8)
TILE_WIDTH = tl.constexpr(4 * WARPS)  # one pixel per thread: only then a row of four is one 128-bit load
TILE = tl.constexpr(8 * 4 * WARPS)
_LONGEST = tl.constexpr(LONGEST)
_LARGEST = tl.constexpr(3.4028234663852886e38)  # of single precision


@triton.jit
def tile_of(height, width, WIDE: tl.constexpr):
    """Image number, the size of an image; rows, columns and places in it of this program's pixels, and which exist."""
    columns = tl.cdiv(width, TILE_WIDTH)
    tiles = columns * tl.cdiv(height, TILE_HEIGHT)
    program = tl.program_id(0)
    tile = program % tiles
    pixel = tl.arange(0, TILE_HEIGHT * TILE_WIDTH)
    y = tile // columns * TILE_HEIGHT + pixel // TILE_WIDTH
    x = tile % columns * TILE_WIDTH + pixel % TILE_WIDTH
    size = tl.cast(height, tl.int64) * width
    return (program // tiles).to(tl.int64), size, y, x, y.to(WIDE) * width + x, (y < height) & (x < width)


@triton.jit
def motions_of(flow_next, flow_prev, factor, batch, size, inside, exists, MAX_FLOW: tl.constexpr):
    """Both scaled flows of the pixels, and where both can be drawn."""
    u_next, v_next, drawn_next = _motion(flow_next, factor, batch, size, inside, exists, MAX_FLOW)
    u_prev, v_prev, drawn_prev = _motion(flow_prev, factor, batch, size, inside, exists, MAX_FLOW)
    return u_next, v_next, u_prev, v_prev, drawn_next & drawn_prev


@triton.jit
def _motion(flow, factor, batch, size, inside, exists, MAX_FLOW: tl.constexpr):
    """Scaled flow of the pixels and where it can be drawn (False for NaN)."""
    place = flow + batch * 2 * size + inside
    u = factor * tl.load(place, mask=exists, other=0).to(factor.dtype)
    v = factor * tl.load(place + size, mask=exists, other=0).to(factor.dtype)
    limit: tl.constexpr = _LARGEST if MAX_FLOW > 0 else _LONGEST
    return u, v, exists & (tl.abs(u) <= limit) & (tl.abs(v) <= limit)


@triton.jit
def number_of(bits, TYPE: tl.constexpr):
    """The number whose double has these bits."""
    return bits.to(tl.int64).to(tl.float64, bitcast=True).to(TYPE)


@triton.jit
def _cell(u, v, drawable, cells, MAX_FLOW: tl.constexpr):
    """Number of taps (0 where nothing is drawn) and the first one of the table cell, and the place inside the cell."""
    u = tl.minimum(tl.maximum(tl.where(drawable, u, 0), -MAX_FLOW), MAX_FLOW)
    v = tl.minimum(tl.maximum(tl.where(drawable, v, 0), -MAX_FLOW), MAX_FLOW)
    i = tl.minimum(tl.floor(u).to(tl.int32), MAX_FLOW - 1)
    j = tl.minimum(tl.floor(v).to(tl.int32), MAX_FLOW - 1)
    start = cells + (j + MAX_FLOW) * (2 * MAX_FLOW) + i + MAX_FLOW
    first = tl.load(start)
    count = tl.where(drawable, tl.load(start + 1) - first, 0)
    return count, first, u - i.to(u.dtype), v - j.to(v.dtype)


@triton.jit
def tap_of(
    step, cell, alive, cells, coefficients, y, x, height, width, group, groups,
    MAX_FLOW: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    """Row of a tap's pixel, and the tap's four coefficients."""
    tap = cell[1] + step
    packed = tl.load(cells + (4 * MAX_FLOW * MAX_FLOW + 1) + tap, mask=alive, other=0)
    column = tl.minimum(tl.maximum(x + ((packed << 16) >> 16), 0), width - 1)
    line = tl.minimum(tl.maximum(y + (packed >> 16), 0), height - 1)
    row = (line.to(WIDE) * width + column) * groups + group
    lane = tl.arange(0, 4)[None, :]
    return row, tl.load(coefficients + tap[:, None] * 4 + lane, mask=alive[:, None], other=0)


@triton.jit
def combine(tap, constant, by_u, by_v, by_both):
    """Sum of a tap's four coefficients, each times its factor."""
    lane = tl.arange(0, 4)[None, :]
    low = tl.where(lane == 0, constant[:, None], by_u[:, None])
    high = tl.where(lane == 2, by_v[:, None], by_both[:, None])
    return tl.sum(tap * tl.where(lane < 2, low, high), axis=1)


@triton.jit
def _path(u, v, drawable):
    """Number of nodes (0 where nothing is drawn), and what places and weighs them.

    Longer axis (True: u), its sign, whole steps, the rest, the length, and the shorter axis's change per step.
    """
    u, v = tl.where(drawable, u, 0), tl.where(drawable, v, 0)
    horizontal = tl.abs(u) >= tl.abs(v)
    major = tl.where(horizontal, u, v)
    minor = tl.where(horizontal, v, u)
    length = tl.maximum(tl.abs(major), 1e-18)  # no branch for zero flow: all weights have their limits there
    if length.dtype == tl.float32:
        slope = tl.div_rn(minor, length)  # the other backends round correctly, and floor(step * slope) can tell
    else:
        slope = minor / length
    floor = tl.floor(length)
    whole = floor.to(tl.int32)
    count = tl.where(drawable, whole + 2, 0)
    return count, horizontal, tl.where(major < 0, -1, 1), whole, length - floor, length, slope


@triton.jit
def course_of(u, v, drawable, cells, MAX_FLOW: tl.constexpr):
    """The motion's table cell, or with MAX_FLOW = 0 its path; both begin with the number of taps or nodes."""
    if MAX_FLOW > 0:
        return _cell(u, v, drawable, cells, MAX_FLOW)
    else:  # noqa: RET505 - a compile-time branch
        return _path(u, v, drawable)


@triton.jit
def node_of(step, path, y, x, height, width, group, groups, WIDE: tl.constexpr):
    """Rows of the pixels on both sides of a node on the shorter axis, the place between them, the weight of the node.

    The weight is half of each whole step beside the node, and of the rest of the way, by the length, and half of that.
    """
    _, horizontal, sign, whole, rest, length, slope = path
    across = step * slope
    low = tl.floor(across)
    shift = low.to(tl.int32)
    x_near = tl.minimum(tl.maximum(x + tl.where(horizontal, sign * step, shift), 0), width - 1)
    y_near = tl.minimum(tl.maximum(y + tl.where(horizontal, shift, sign * step), 0), height - 1)
    x_far = tl.minimum(tl.maximum(x + tl.where(horizontal, sign * step, shift + 1), 0), width - 1)
    y_far = tl.minimum(tl.maximum(y + tl.where(horizontal, shift + 1, sign * step), 0), height - 1)
    near = (y_near.to(WIDE) * width + x_near) * groups + group
    far = (y_far.to(WIDE) * width + x_far) * groups + group
    partial = 0.5 * rest * rest
    weight = tl.where(step == whole, rest - partial, tl.where(step < whole, 0.5, partial))
    weight = tl.where((step > 0) & (step <= whole), weight + 0.5, weight)
    return near, far, across - low, (0.5 / length) * weight


@triton.jit
def read(source, row, wanted):
    """Rows of four, 0 where none is wanted."""
    return tl.load(source + row[:, None] * 4 + tl.arange(0, 4)[None, :], mask=wanted[:, None], other=0)


@triton.jit
def node_change(source, step, path, near, far, alive, fraction, weight, wanted):
    """What a node adds to the gradient by the motion's length (over its sign) and by the shorter axis's position."""
    _, _, _, whole, rest, length, _ = path
    seen = tl.sum(read(source, near, alive) * wanted, axis=1)
    change = tl.sum(read(source, far, alive) * wanted, axis=1) - seen
    seen += fraction * change
    # The blur grows by the image at the end point: d/dM = (I(end) - blur) / M.
    end = tl.where(step == whole, 1 - rest, tl.where(step < whole, 0.0, rest))
    grow = tl.where(whole == 0, (step - 0.5) * length, end - 2 * weight) * (0.5 / length) * seen
    return grow, weight * step * change


@triton.jit
def by_components(path, grow, turn):
    """The gradient by u and v, from that by the length (over its sign) and by the shorter axis's positions."""
    _, horizontal, sign, _, _, length, slope = path
    minor = turn / length
    major = sign * (grow - slope * minor)
    return tl.where(horizontal, major, minor), tl.where(horizontal, minor, major)


@triton.jit
def upstream(grad, batch, size, inside, group, channels, drawable):
    """The blurred pixels' gradients, in rows of four."""
    channel = group * 4 + tl.arange(0, 4)[None, :]
    place = grad + (batch * channels + channel) * size + inside[:, None]
    return tl.load(place, mask=drawable[:, None] & (channel < channels), other=0)


@triton.jit
def add(target, row, wanted, weight, value, precision, FIXED: tl.constexpr):
    """Add ``weight * value`` to rows of four; as whole numbers (FIXED) the order of additions does not matter."""
    place = target + row[:, None] * 4 + tl.arange(0, 4)[None, :]
    share = weight[:, None] * value
    if FIXED:
        share = (share.to(tl.float64) * precision).to(tl.int64)
    # Motion along an axis, and no motion, put no weight on the pixels beside it.
    tl.atomic_add(place, share, mask=(wanted & (weight != 0))[:, None], sem="relaxed")
