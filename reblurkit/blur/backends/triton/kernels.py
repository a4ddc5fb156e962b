"""Kernels of the Triton backend: one program per tile of pixels, one thread per pixel, four channels per load.

``rows`` is the image laid out as rows of four channels. Flows, blurred images and upstream gradients are contiguous, so
that a launch passes no strides: what a launch costs grows with its arguments. All sums are in the type of
``coefficients``; ``scale`` holds the bits of a double, since a float argument would arrive in single precision. Pixels
that cannot be drawn become NaN and take part in no gradient.
"""

from __future__ import annotations

import triton
import triton.language as tl

from reblurkit.blur.backends.triton.pixel import (
    TILE,
    add,
    by_components,
    combine,
    course_of,
    motions_of,
    node_change,
    node_of,
    number_of,
    read,
    tap_of,
    tile_of,
    upstream,
)

# Compiled once for all sizes, and for tensors of the user's that begin anywhere.
SIZES = ["scale", "size", "height", "width", "channels"]
SIZES += ["batch_stride", "channel_stride", "row_stride", "column_stride"]
OTHERS = ["image", "flow_next", "flow_prev", "blurred", "grad", "d_next", "d_prev"]


@triton.jit(do_not_specialize=SIZES, do_not_specialize_on_alignment=OTHERS)
def layout_kernel(
    image, rows,
    batch_stride: tl.int64, channel_stride: tl.int64, row_stride: tl.int64, column_stride: tl.int64,
    size: tl.int64, width: tl.int32, channels: tl.int32,
):  # fmt: skip
    """Images ``(B, C, H, W)`` of ``size`` pixels, of any strides, as rows of four channels; missing channels are 0."""
    groups = tl.cdiv(channels, 4)
    blocks = tl.cdiv(size, TILE)
    batch = (tl.program_id(0) // blocks).to(tl.int64)
    pixel = tl.program_id(0) % blocks * TILE + tl.arange(0, TILE)
    exists = (pixel < size)[:, None]
    lane = tl.arange(0, 4)[None, :]
    offset = (pixel // width).to(tl.int64) * row_stride + (pixel % width).to(tl.int64) * column_stride
    for group in range(groups):
        channel = group * 4 + lane
        place = image + batch * batch_stride + offset[:, None] + channel.to(tl.int64) * channel_stride
        value = tl.load(place, mask=exists & (channel < channels), other=0).to(rows.dtype.element_ty)
        row = (batch * size + pixel) * groups + group
        tl.store(rows + row[:, None] * 4 + lane, value, mask=exists)


@triton.jit(do_not_specialize=SIZES, do_not_specialize_on_alignment=OTHERS)
def forward_kernel(
    rows, flow_next, flow_prev, blurred, scale: tl.int64, cells, coefficients,
    height: tl.int32, width: tl.int32, channels: tl.int32,
    MAX_FLOW: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    """Blurred images ``(B, C, H, W)``; by the table, or with MAX_FLOW = 0 by the line."""
    batch, size, y, x, inside, exists = tile_of(height, width, WIDE)
    factor = number_of(scale, coefficients.dtype.element_ty)
    motions = motions_of(flow_next, flow_prev, factor, batch, size, inside, exists, MAX_FLOW)
    u_next, v_next, u_prev, v_prev, drawable = motions
    course_next = course_of(u_next, v_next, drawable, cells, MAX_FLOW)
    course_prev = course_of(u_prev, v_prev, drawable, cells, MAX_FLOW)
    steps = tl.max(tl.maximum(course_next[0], course_prev[0]), axis=0)
    one = tl.full(u_next.shape, 1, u_next.dtype)
    groups = tl.cdiv(channels, 4)
    source = rows + batch * size * groups * 4
    for group in range(groups):
        total = tl.zeros([TILE, 4], dtype=factor.dtype)
        # Both motions in one loop: one's arithmetic runs while the other's pixels are on their way.
        for step in range(steps):
            for side in tl.static_range(2):
                course = course_next if side == 0 else course_prev
                alive = step < course[0]
                if MAX_FLOW > 0:
                    row, tap = tap_of(
                        step, course, alive, cells, coefficients, y, x, height, width, group, groups, MAX_FLOW, WIDE
                    )
                    weight = combine(tap, one, course[2], course[3], course[2] * course[3])
                    total += weight[:, None] * read(source, row, alive)
                else:
                    near, far, fraction, weight = node_of(step, course, y, x, height, width, group, groups, WIDE)
                    total += (weight * (1 - fraction))[:, None] * read(source, near, alive)
                    total += (weight * fraction)[:, None] * read(source, far, alive)
        total = tl.where(drawable[:, None], total, float("nan"))
        channel = group * 4 + tl.arange(0, 4)[None, :]
        place = blurred + (batch * channels + channel) * size + inside[:, None]
        tl.store(place, total.to(blurred.dtype.element_ty), mask=exists[:, None] & (channel < channels))


@triton.jit
def _gradients(
    grad, rows, flow_next, flow_prev, d_image, d_next, d_prev, unit, scale, cells, coefficients,
    height, width, channels,
    MAX_FLOW: tl.constexpr, NEED_IMAGE: tl.constexpr, NEED_FLOW: tl.constexpr, FIXED: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    batch, size, y, x, inside, exists = tile_of(height, width, WIDE)
    factor = number_of(scale, coefficients.dtype.element_ty)
    motions = motions_of(flow_next, flow_prev, factor, batch, size, inside, exists, MAX_FLOW)
    u_next, v_next, u_prev, v_prev, drawable = motions
    zero, one = tl.zeros(u_next.shape, u_next.dtype), tl.full(u_next.shape, 1, u_next.dtype)
    groups = tl.cdiv(channels, 4)
    begin = batch * size * groups * 4
    precision = tl.load(unit) if FIXED else 0.0
    if NEED_IMAGE and MAX_FLOW == 0:
        path, other = course_of(u_next, v_next, drawable, cells, 0), course_of(u_prev, v_prev, drawable, cells, 0)
        for group in range(groups):
            wanted = upstream(grad, batch, size, inside, group, channels, drawable).to(factor.dtype)
            for step in range(tl.max(tl.maximum(path[0], other[0]), axis=0)):
                near, far, fraction, weight = node_of(step, path, y, x, height, width, group, groups, WIDE)
                near_2, far_2, fraction_2, weight_2 = node_of(step, other, y, x, height, width, group, groups, WIDE)
                alive, alive_2 = step < path[0], step < other[0]
                # Both motions begin at the pixel itself: one addition in place of two.
                joint = alive & alive_2 & (near == near_2)
                rest_2 = weight_2 * (1 - fraction_2)
                both = weight * (1 - fraction) + tl.where(joint, rest_2, 0)
                add(d_image + begin, near, alive, both, wanted, precision, FIXED)
                add(d_image + begin, far, alive, weight * fraction, wanted, precision, FIXED)
                add(d_image + begin, near_2, alive_2 & ~joint, rest_2, wanted, precision, FIXED)
                add(d_image + begin, far_2, alive_2, weight_2 * fraction_2, wanted, precision, FIXED)
    if NEED_FLOW or MAX_FLOW > 0:
        # One motion after the other: both in one loop would take half as many registers again.
        for side in tl.static_range(2):
            u, v = (u_next, v_next) if side == 0 else (u_prev, v_prev)
            course = course_of(u, v, drawable, cells, MAX_FLOW)
            first, second = zero, zero
            for group in range(groups):
                wanted = upstream(grad, batch, size, inside, group, channels, drawable).to(factor.dtype)
                for step in range(tl.max(course[0], axis=0)):
                    alive = step < course[0]
                    if MAX_FLOW > 0:
                        row, tap = tap_of(
                            step, course, alive, cells, coefficients, y, x, height, width, group, groups, MAX_FLOW, WIDE
                        )
                        if NEED_IMAGE:
                            weight = combine(tap, one, course[2], course[3], course[2] * course[3])
                            add(d_image + begin, row, alive, weight, wanted, precision, FIXED)
                        if NEED_FLOW:
                            seen = tl.sum(read(rows + begin, row, alive) * wanted, axis=1)
                            first += seen * combine(tap, zero, one, zero, course[3])
                            second += seen * combine(tap, zero, zero, one, course[2])
                    else:
                        near, far, fraction, weight = node_of(step, course, y, x, height, width, group, groups, WIDE)
                        grow, turn = node_change(rows + begin, step, course, near, far, alive, fraction, weight, wanted)
                        first += grow
                        second += turn
            if NEED_FLOW:
                d_flow = d_next if side == 0 else d_prev
                if MAX_FLOW > 0:
                    d_u = tl.where(tl.abs(u) < MAX_FLOW, first, 0)
                    d_v = tl.where(tl.abs(v) < MAX_FLOW, second, 0)
                else:
                    d_u, d_v = by_components(course, first, second)
                place = d_flow + batch * 2 * size + inside
                tl.store(place, (factor * tl.where(drawable, d_u, 0)).to(d_flow.dtype.element_ty), mask=exists)
                tl.store(place + size, (factor * tl.where(drawable, d_v, 0)).to(d_flow.dtype.element_ty), mask=exists)


@triton.jit(do_not_specialize=SIZES, do_not_specialize_on_alignment=OTHERS)
def backward_kernel(
    grad, rows, flow_next, flow_prev, d_image, d_next, d_prev, unit, scale: tl.int64, cells, coefficients,
    height: tl.int32, width: tl.int32, channels: tl.int32,
    MAX_FLOW: tl.constexpr, NEED_IMAGE: tl.constexpr, NEED_FLOW: tl.constexpr, SPLIT: tl.constexpr,
    FIXED: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    """Gradients: ``d_image`` in rows of four (added to), ``d_next`` and ``d_prev`` contiguous ``(B, 2, H, W)``.

    With SPLIT the grid has two rows of programs, the first for the image's gradient and the second for the flows'.
    """
    if SPLIT:
        if tl.program_id(1) == 0:
            _gradients(
                grad, rows, flow_next, flow_prev, d_image, d_next, d_prev, unit, scale, cells, coefficients,
                height, width, channels, MAX_FLOW, True, False, FIXED, WIDE,
            )  # fmt: skip
        else:
            _gradients(
                grad, rows, flow_next, flow_prev, d_image, d_next, d_prev, unit, scale, cells, coefficients,
                height, width, channels, MAX_FLOW, False, True, FIXED, WIDE,
            )  # fmt: skip
    else:
        _gradients(
            grad, rows, flow_next, flow_prev, d_image, d_next, d_prev, unit, scale, cells, coefficients,
            height, width, channels, MAX_FLOW, NEED_IMAGE, NEED_FLOW, FIXED, WIDE,
        )  # fmt: skip
