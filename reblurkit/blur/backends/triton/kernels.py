"""Kernels of the Triton backend: one program per tile of pixels, one thread per pixel, four channels per load.

``image`` is laid out as rows of four channels. Flows, blurred images and upstream gradients keep their own strides. All
sums are in the type of ``image``. Pixels that cannot be drawn become NaN and take part in no gradient.
"""

from __future__ import annotations

import triton
import triton.language as tl

TILE_HEIGHT, TILE_WIDTH, WARPS = 8, 16, 4  # one pixel per thread: only then a row of four is one 128-bit load


@triton.jit
def _tile(height, width, TILE_HEIGHT: tl.constexpr, TILE_WIDTH: tl.constexpr):
    """Image number, rows and columns of this program's pixels, and which of them exist."""
    columns = tl.cdiv(width, TILE_WIDTH)
    tiles = columns * tl.cdiv(height, TILE_HEIGHT)
    program = tl.program_id(0)
    tile = program % tiles
    pixel = tl.arange(0, TILE_HEIGHT * TILE_WIDTH)
    y = tile // columns * TILE_HEIGHT + pixel // TILE_WIDTH
    x = tile % columns * TILE_WIDTH + pixel % TILE_WIDTH
    return (program // tiles).to(tl.int64), y, x, (y < height) & (x < width)


@triton.jit
def _motion(flow, batch_stride, channel_stride, row_stride, column_stride, scale, limit, batch, y, x, exists, WIDE):
    """Scaled flow of the pixels and where it can be drawn (False for NaN)."""
    offset = y.to(WIDE) * row_stride + x.to(WIDE) * column_stride
    place = flow + batch * batch_stride + offset
    u = scale * tl.load(place, mask=exists, other=0).to(scale.dtype)
    v = scale * tl.load(place + channel_stride, mask=exists, other=0).to(scale.dtype)
    return u, v, exists & (tl.abs(u) <= limit) & (tl.abs(v) <= limit)


@triton.jit
def _cell(u, v, drawable, start, MAX_FLOW: tl.constexpr):
    """Place inside the table cell, and the cell's first tap and number of taps (0 where nothing is drawn)."""
    u = tl.minimum(tl.maximum(tl.where(drawable, u, 0), -MAX_FLOW), MAX_FLOW)
    v = tl.minimum(tl.maximum(tl.where(drawable, v, 0), -MAX_FLOW), MAX_FLOW)
    i = tl.minimum(tl.floor(u).to(tl.int32), MAX_FLOW - 1)
    j = tl.minimum(tl.floor(v).to(tl.int32), MAX_FLOW - 1)
    cell = (j + MAX_FLOW) * (2 * MAX_FLOW) + i + MAX_FLOW
    first = tl.load(start + cell)
    count = tl.where(drawable, tl.load(start + cell + 1) - first, 0)
    return u - i.to(u.dtype), v - j.to(v.dtype), first, count


@triton.jit
def _tap(tap, alive, taps, coefficients, y, x, height, width, group, groups, WIDE: tl.constexpr):
    """Row of the tap's pixel and the tap's four coefficients."""
    packed = tl.load(taps + tap, mask=alive, other=0)
    column = tl.minimum(tl.maximum(x + ((packed << 16) >> 16), 0), width - 1)
    line = tl.minimum(tl.maximum(y + (packed >> 16), 0), height - 1)
    row = (line.to(WIDE) * width + column) * groups + group
    lane = tl.arange(0, 4)[None, :]
    return row, tl.load(coefficients + tap[:, None] * 4 + lane, mask=alive[:, None], other=0)


@triton.jit
def _polynomial(constant, by_u, by_v, by_both):
    """Four factors per pixel, one for each coefficient of a tap."""
    lane = tl.arange(0, 4)[None, :]
    low = tl.where(lane == 0, constant[:, None], by_u[:, None])
    high = tl.where(lane == 2, by_v[:, None], by_both[:, None])
    return tl.where(lane < 2, low, high)


@triton.jit
def _add(target, row, alive, value, scale, FIXED: tl.constexpr):
    """Add rows of four to the image gradient; as whole numbers (FIXED) the order of additions does not matter."""
    place = target + row[:, None] * 4 + tl.arange(0, 4)[None, :]
    if FIXED:
        value = (value.to(tl.float64) * scale).to(tl.int64)
    tl.atomic_add(place, value, mask=alive[:, None], sem="relaxed")


@triton.jit
def _direction(u, v, drawable):
    """Longer axis (True: u), its sign, whole steps, the rest, the length, and the shorter axis's change per step."""
    u, v = tl.where(drawable, u, 0), tl.where(drawable, v, 0)
    horizontal = tl.abs(u) >= tl.abs(v)
    major = tl.where(horizontal, u, v)
    minor = tl.where(horizontal, v, u)
    length = tl.maximum(tl.abs(major), 1e-18)  # no branch for zero flow: all weights have their limits there
    if length.dtype == tl.float32:
        slope = tl.div_rn(minor, length)  # the other backends round correctly, and floor(step * slope) can tell
    else:
        slope = minor / length
    whole = tl.floor(length)
    return horizontal, tl.where(major < 0, -1, 1), whole.to(tl.int32), length - whole, length, slope


@triton.jit
def _node_weight(step, whole, rest):
    """Weight of a node before division by the length: half of each whole step beside it, and of the rest of the way."""
    partial = 0.5 * rest * rest
    weight = tl.where(step == whole, rest - partial, tl.where(step < whole, 0.5, partial))
    return tl.where((step > 0) & (step <= whole), weight + 0.5, weight)


@triton.jit
def _node(step, horizontal, sign, slope, y, x, height, width, group, groups, WIDE: tl.constexpr):
    """Rows of the pixels on both sides of a node on the shorter axis, and the place between them."""
    across = step * slope
    low = tl.floor(across)
    shift = low.to(tl.int32)
    x_near = tl.minimum(tl.maximum(x + tl.where(horizontal, sign * step, shift), 0), width - 1)
    y_near = tl.minimum(tl.maximum(y + tl.where(horizontal, shift, sign * step), 0), height - 1)
    x_far = tl.minimum(tl.maximum(x + tl.where(horizontal, sign * step, shift + 1), 0), width - 1)
    y_far = tl.minimum(tl.maximum(y + tl.where(horizontal, shift + 1, sign * step), 0), height - 1)
    near = (y_near.to(WIDE) * width + x_near) * groups + group
    far = (y_far.to(WIDE) * width + x_far) * groups + group
    return near, far, across - low


@triton.jit
def forward_kernel(
    image, flow_next, flow_prev, blurred, start, taps, coefficients, scale, limit, height, width, channels, groups,
    next_batch, next_channel, next_row, next_column, prev_batch, prev_channel, prev_row, prev_column,
    MAX_FLOW: tl.constexpr, WIDE: tl.constexpr, TILE_HEIGHT: tl.constexpr, TILE_WIDTH: tl.constexpr,
):  # fmt: skip
    """Blurred images ``(B, C, H, W)``; by the table, or with MAX_FLOW = 0 by the line."""
    batch, y, x, exists = _tile(height, width, TILE_HEIGHT, TILE_WIDTH)
    factor = tl.load(scale)
    u_next, v_next, drawn_next = _motion(
        flow_next, next_batch, next_channel, next_row, next_column, factor, limit, batch, y, x, exists, WIDE
    )
    u_prev, v_prev, drawn_prev = _motion(
        flow_prev, prev_batch, prev_channel, prev_row, prev_column, factor, limit, batch, y, x, exists, WIDE
    )
    drawable = drawn_next & drawn_prev
    lane = tl.arange(0, 4)[None, :]
    size = tl.cast(height, tl.int64) * width
    source = image + batch * size * groups * 4
    for group in range(groups):
        total = tl.zeros([TILE_HEIGHT * TILE_WIDTH, 4], dtype=factor.dtype)
        for side in tl.static_range(2):
            u = u_next if side == 0 else u_prev
            v = v_next if side == 0 else v_prev
            if MAX_FLOW > 0:
                along_u, along_v, first, count = _cell(u, v, drawable, start, MAX_FLOW)
                basis = _polynomial(tl.full(u.shape, 1, u.dtype), along_u, along_v, along_u * along_v)
                for step in range(tl.max(count, axis=0)):
                    alive = step < count
                    row, tap = _tap(first + step, alive, taps, coefficients, y, x, height, width, group, groups, WIDE)
                    pixel = tl.load(source + row[:, None] * 4 + lane, mask=alive[:, None], other=0)
                    total += tl.sum(tap * basis, axis=1)[:, None] * pixel
            else:
                horizontal, sign, whole, rest, length, slope = _direction(u, v, drawable)
                count = tl.where(drawable, whole + 2, 0)
                half = 0.5 / length
                for step in range(tl.max(count, axis=0)):
                    alive = step < count
                    near, far, fraction = _node(step, horizontal, sign, slope, y, x, height, width, group, groups, WIDE)
                    weight = half * _node_weight(step, whole, rest)
                    pixel = tl.load(source + near[:, None] * 4 + lane, mask=alive[:, None], other=0)
                    total += (weight * (1 - fraction))[:, None] * pixel
                    pixel = tl.load(source + far[:, None] * 4 + lane, mask=alive[:, None], other=0)
                    total += (weight * fraction)[:, None] * pixel
        total = tl.where(drawable[:, None], total, float("nan"))
        channel = group * 4 + lane
        place = (batch * channels + channel) * size + (y.to(WIDE) * width + x)[:, None]
        tl.store(blurred + place, total.to(blurred.dtype.element_ty), mask=exists[:, None] & (channel < channels))


@triton.jit
def backward_kernel(
    grad, image, flow_next, flow_prev, d_image, d_next, d_prev, start, taps, coefficients, scale, limit, fixed,
    height, width, channels, groups, grad_batch, grad_channel, grad_row, grad_column,
    next_batch, next_channel, next_row, next_column, prev_batch, prev_channel, prev_row, prev_column,
    MAX_FLOW: tl.constexpr, NEED_IMAGE: tl.constexpr, NEED_FLOW: tl.constexpr, FIXED: tl.constexpr,
    WIDE: tl.constexpr, TILE_HEIGHT: tl.constexpr, TILE_WIDTH: tl.constexpr,
):  # fmt: skip
    """Gradients: ``d_image`` in rows of four (added to), ``d_next`` and ``d_prev`` contiguous ``(B, 2, H, W)``."""
    batch, y, x, exists = _tile(height, width, TILE_HEIGHT, TILE_WIDTH)
    factor = tl.load(scale)
    u_next, v_next, drawn_next = _motion(
        flow_next, next_batch, next_channel, next_row, next_column, factor, limit, batch, y, x, exists, WIDE
    )
    u_prev, v_prev, drawn_prev = _motion(
        flow_prev, prev_batch, prev_channel, prev_row, prev_column, factor, limit, batch, y, x, exists, WIDE
    )
    drawable = drawn_next & drawn_prev
    lane = tl.arange(0, 4)[None, :]
    size = tl.cast(height, tl.int64) * width
    begin = batch * size * groups * 4
    precision = tl.load(fixed) if FIXED else 0.0
    for side in tl.static_range(2):
        u = u_next if side == 0 else u_prev
        v = v_next if side == 0 else v_prev
        sum_u = tl.zeros(u.shape, dtype=u.dtype)
        sum_v = tl.zeros(u.shape, dtype=u.dtype)
        for group in range(groups):
            channel = group * 4 + lane
            inside = (y.to(WIDE) * grad_row + x.to(WIDE) * grad_column)[:, None] + channel.to(WIDE) * grad_channel
            wanted = tl.load(
                grad + batch * grad_batch + inside, mask=drawable[:, None] & (channel < channels), other=0
            ).to(u.dtype)
            if MAX_FLOW > 0:
                along_u, along_v, first, count = _cell(u, v, drawable, start, MAX_FLOW)
                one = tl.full(u.shape, 1, u.dtype)
                for step in range(tl.max(count, axis=0)):
                    alive = step < count
                    row, tap = _tap(first + step, alive, taps, coefficients, y, x, height, width, group, groups, WIDE)
                    if NEED_IMAGE:
                        basis = _polynomial(one, along_u, along_v, along_u * along_v)
                        weight = tl.sum(tap * basis, axis=1)
                        _add(d_image + begin, row, alive, weight[:, None] * wanted, precision, FIXED)
                    if NEED_FLOW:
                        pixel = tl.load(image + begin + row[:, None] * 4 + lane, mask=alive[:, None], other=0)
                        seen = tl.sum(pixel * wanted, axis=1)
                        sum_u += seen * tl.sum(tap * _polynomial(0 * one, one, 0 * one, along_v), axis=1)
                        sum_v += seen * tl.sum(tap * _polynomial(0 * one, 0 * one, one, along_u), axis=1)
            else:
                horizontal, sign, whole, rest, length, slope = _direction(u, v, drawable)
                count = tl.where(drawable, whole + 2, 0)
                half = 0.5 / length
                grow = tl.zeros(u.shape, dtype=u.dtype)
                turn = tl.zeros(u.shape, dtype=u.dtype)
                for step in range(tl.max(count, axis=0)):
                    alive = step < count
                    near, far, fraction = _node(step, horizontal, sign, slope, y, x, height, width, group, groups, WIDE)
                    weight = half * _node_weight(step, whole, rest)
                    if NEED_IMAGE:
                        share = weight * fraction
                        _add(d_image + begin, near, alive, (weight - share)[:, None] * wanted, precision, FIXED)
                        _add(d_image + begin, far, alive, share[:, None] * wanted, precision, FIXED)
                    if NEED_FLOW:
                        pixel = tl.load(image + begin + near[:, None] * 4 + lane, mask=alive[:, None], other=0)
                        seen = tl.sum(pixel * wanted, axis=1)
                        pixel = tl.load(image + begin + far[:, None] * 4 + lane, mask=alive[:, None], other=0)
                        change = tl.sum(pixel * wanted, axis=1) - seen
                        seen += fraction * change
                        turn += weight * step * change
                        # The blur grows by the image at the end point: d/dM = (I(end) - blur) / M.
                        end = tl.where(step == whole, 1 - rest, tl.where(step < whole, 0.0, rest))
                        grow += tl.where(whole == 0, (step - 0.5) * length, end - 2 * weight) * half * seen
                if NEED_FLOW:
                    turn /= length
                    d_major = sign * (grow - slope * turn)
                    sum_u += tl.where(horizontal, d_major, turn)
                    sum_v += tl.where(horizontal, turn, d_major)
        if NEED_FLOW:
            d_flow = d_next if side == 0 else d_prev
            if MAX_FLOW > 0:
                sum_u = tl.where(tl.abs(u) < MAX_FLOW, sum_u, 0)
                sum_v = tl.where(tl.abs(v) < MAX_FLOW, sum_v, 0)
            place = d_flow + batch * 2 * size + (y.to(WIDE) * width + x)
            tl.store(place, (factor * tl.where(drawable, sum_u, 0)).to(d_flow.dtype.element_ty), mask=exists)
            tl.store(place + size, (factor * tl.where(drawable, sum_v, 0)).to(d_flow.dtype.element_ty), mask=exists)
