"""The CPU backend in Numba: one pass over the pixels, four channels at once (extra ``[cpu]``).

Images are laid out as rows of four channels, ``(B * H * W * groups, 4)``. The forward pass also keeps the derivative by
the flows. In the backward pass every band of image rows adds into a buffer of its own, and the number of bands depends
on the height only: the image gradient is the same to the last bit, however many threads there are.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from functools import cached_property
from types import FunctionType
from typing import Any

import numba
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from reblurkit.blur.arguments import LONGEST, computing_type
from reblurkit.blur.backends.choice import Flows, Gradients
from reblurkit.blur.backends.layout import LANES, groups_of, rows_of_four
from reblurkit.blur.backends.numba.pixel import Table, gather, scatter
from reblurkit.blur.backends.numba.vec4 import add_scaled, lane, load, zeros
from reblurkit.blur.table import merged_cells

keeps_jacobian = True
Array = NDArray[Any]


class _Kernel:
    """A kernel on as many threads as torch uses, and on the calling one alone."""

    def __init__(self, function: Callable[..., None]) -> None:
        self.parallel = numba.njit(parallel=True, cache=True)(function)
        self._function = function

    @cached_property
    def serial(self) -> Any:
        # Under a name of its own: Numba's cache does not tell the two apart otherwise.
        copy = FunctionType(self._function.__code__, self._function.__globals__)
        copy.__qualname__ = f"{self._function.__qualname__}_serial"
        return numba.njit(cache=True)(copy)


class _Process:
    """What this process may do with Numba's threads."""

    def __init__(self) -> None:
        # Numba's fallback scheduler ends the process when two threads of Python enter it at once.
        self.one_at_a_time = threading.Lock()
        self.has_threads = True

    def after_fork(self) -> None:
        """A child cannot use the threads of GNU's OpenMP, once its parent has: the library ends the process."""
        self.one_at_a_time = threading.Lock()  # another thread of the parent's may hold the old one
        try:
            self.has_threads = numba.threading_layer() != "omp"
        except ValueError:  # the parent has not used them
            self.has_threads = True


_process = _Process()
if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_process.after_fork)


def forward(image: Tensor, flows: Flows, jacobian: bool) -> tuple[Tensor, Tensor]:
    """Blurred images, and the derivative by the flows if ``jacobian``; see :mod:`reblurkit.blur.backends`."""
    dtype = computing_type(image, flows.next, flows.prev)
    batch, channels, height, width = image.shape
    blurred = image.new_empty(image.shape, dtype=dtype)
    saved = image.new_empty((2, batch, height, width, channels, 2) if jacobian else 0, dtype=dtype)
    motion = _motion_arguments(flows, dtype)
    table = _table_arguments(flows.max_flow, dtype, width)
    _run(_forward, rows_of_four(image, dtype), *motion, table, blurred, saved if jacobian else None)
    return blurred.to(image.dtype), saved


def backward(grad: Tensor, image: Tensor, flows: Flows, saved: Tensor, need_image: bool, need_flow: bool) -> Gradients:
    """Gradients of the image and both flows; see :mod:`reblurkit.blur.backends`."""
    dtype = computing_type(image, flows.next, flows.prev)
    batch, channels, height, width = image.shape
    motion = _motion_arguments(flows, dtype)
    d_image = d_next = d_prev = None
    if need_flow:
        d_flow = grad.new_empty((2, *flows.next.shape), dtype=dtype)
        _run(_flow_gradient, grad.to(dtype).contiguous(), *motion, saved, d_flow)
        d_next, d_prev = d_flow[0].to(flows.next.dtype, copy=True), d_flow[1].to(flows.prev.dtype, copy=True)
    if need_image:
        bands = min(16, -(-height // 16))
        depth = -(-height // bands)
        reach = min(height, _reach(flows))
        rows = batch * bands * (depth + 2 * reach) * width * groups_of(channels)
        buffers = torch.zeros(rows, LANES, dtype=dtype)
        table = _table_arguments(flows.max_flow, dtype, width)
        _run(_scatter_bands, rows_of_four(grad, dtype), *motion, table, bands, depth, reach, buffers)
        total = grad.new_empty(image.shape, dtype=dtype)
        _run(_sum_bands, buffers, bands, depth, reach, total)
        d_image = total.to(image.dtype)
    return d_image, d_next, d_prev


def _motion_arguments(flows: Flows, dtype: torch.dtype) -> tuple[Any, ...]:
    """What every kernel takes to know the motion: both flows, their factor, the longest component."""
    number = np.float64 if dtype == torch.float64 else np.float32
    limit = LONGEST if flows.max_flow is None else np.finfo(number).max
    both = (flow.to(dtype).contiguous() for flow in (flows.next, flows.prev))
    return *both, number(flows.exposure), number(limit)


def _table_arguments(max_flow: int | None, dtype: torch.dtype, width: int) -> Table | None:
    """The table as the kernels take it; None is the line model, for which Numba compiles kernels of their own."""
    if max_flow is None:
        return None
    cells = merged_cells(max_flow, dtype, torch.device("cpu"))
    ahead = cells.y.long() * width + cells.x
    start, x, y, coefficients = (part.numpy() for part in (cells.start, cells.x, cells.y, cells.coefficients))
    return max_flow, start, x, y, ahead.numpy(), coefficients


def _reach(flows: Flows) -> int:
    """How many rows up or down a pixel is taken at most."""
    if flows.max_flow is not None:
        return flows.max_flow
    down = torch.stack([flows.next[:, 1], flows.prev[:, 1]])
    distance = (flows.exposure * down.double()).abs()
    # In single precision the kernels may round a product just beyond the limit down to it, and draw it.
    return int(torch.where(distance <= LONGEST + 1, distance.clamp(max=LONGEST), 0).max()) + 3


def _run(kernel: _Kernel, *arguments: Any) -> None:
    """Call a kernel with arrays in place of tensors."""
    arrays = [value.detach().numpy() if isinstance(value, Tensor) else value for value in arguments]
    with _process.one_at_a_time:
        if not _process.has_threads:
            kernel.serial(*arrays)
            return
        # Where both run on one OpenMP, Numba's first call gives torch all cores: what torch had is read before, and
        # put back.
        threads = torch.get_num_threads()
        before = numba.get_num_threads()
        numba.set_num_threads(min(threads, numba.config.NUMBA_NUM_THREADS))
        try:
            kernel.parallel(*arrays)
        finally:
            numba.set_num_threads(before)
            if torch.get_num_threads() != threads:
                torch.set_num_threads(threads)


@_Kernel
def _forward(
    image: Array,
    flow_next: Array,
    flow_prev: Array,
    exposure: float,
    limit: float,
    table: Table | None,
    blurred: Array,
    saved: Array | None,
) -> None:
    batch, channels, height, width = blurred.shape
    groups = (channels + 3) // 4
    number = blurred.dtype.type
    for row in numba.prange(batch * height):
        b, y = row // height, row % height
        for x in range(width):
            u_next, v_next = exposure * flow_next[b, 0, y, x], exposure * flow_next[b, 1, y, x]
            u_prev, v_prev = exposure * flow_prev[b, 0, y, x], exposure * flow_prev[b, 1, y, x]
            drawable = _drawable(u_next, v_next, limit) and _drawable(u_prev, v_prev, limit)
            for group in range(groups):
                last = min(4, channels - 4 * group)
                if not drawable:
                    for i in range(last):
                        blurred[b, 4 * group + i, y, x] = np.nan
                        if saved is not None:
                            # Not as a slice: that would cost every pixel its reference counting.
                            for side in range(2):
                                saved[side, b, y, x, 4 * group + i, 0] = 0
                                saved[side, b, y, x, 4 * group + i, 1] = 0
                    continue
                total = zeros(limit)
                for side in range(2):
                    u, v = (u_next, v_next) if side == 0 else (u_prev, v_prev)
                    value, d_u, d_v = gather(
                        image, groups, group, b, y, x, height, width, u, v, table
                    )  # fmt: skip
                    total = add_scaled(total, number(1), value)
                    if saved is not None:
                        # The table has a range: its gradient is 0 from the edge of the range on.
                        scale_u = exposure if table is None or abs(u) < table[0] else number(0)
                        scale_v = exposure if table is None or abs(v) < table[0] else number(0)
                        for i in range(last):
                            saved[side, b, y, x, 4 * group + i, 0] = scale_u * lane(d_u, i)
                            saved[side, b, y, x, 4 * group + i, 1] = scale_v * lane(d_v, i)
                for i in range(last):
                    blurred[b, 4 * group + i, y, x] = lane(total, i)


@_Kernel
def _flow_gradient(
    grad: Array, flow_next: Array, flow_prev: Array, exposure: float, limit: float, saved: Array, d_flow: Array
) -> None:
    batch, channels, height, width = grad.shape
    number = grad.dtype.type
    for row in numba.prange(batch * height):
        b, y = row // height, row % height
        for x in range(width):
            drawable = _drawable(
                exposure * flow_next[b, 0, y, x], exposure * flow_next[b, 1, y, x], limit
            ) and _drawable(exposure * flow_prev[b, 0, y, x], exposure * flow_prev[b, 1, y, x], limit)
            for side in range(2):
                d_u, d_v = number(0), number(0)
                if drawable:
                    for c in range(channels):
                        d_u += grad[b, c, y, x] * saved[side, b, y, x, c, 0]
                        d_v += grad[b, c, y, x] * saved[side, b, y, x, c, 1]
                d_flow[side, b, 0, y, x] = d_u
                d_flow[side, b, 1, y, x] = d_v


@_Kernel
def _scatter_bands(
    grad: Array,
    flow_next: Array,
    flow_prev: Array,
    exposure: float,
    limit: float,
    table: Table | None,
    bands: int,
    depth: int,
    reach: int,
    buffers: Array,
) -> None:
    batch, _, height, width = flow_next.shape
    groups = len(grad) // (batch * height * width)
    for unit in numba.prange(batch * bands):
        b, band = unit // bands, unit % bands
        base = _first_pixel(unit, band, depth, reach, width)
        for y in range(band * depth, min(height, (band + 1) * depth)):
            for x in range(width):
                u_next, v_next = exposure * flow_next[b, 0, y, x], exposure * flow_next[b, 1, y, x]
                u_prev, v_prev = exposure * flow_prev[b, 0, y, x], exposure * flow_prev[b, 1, y, x]
                if not (_drawable(u_next, v_next, limit) and _drawable(u_prev, v_prev, limit)):
                    continue
                for group in range(groups):
                    value = load(grad, ((b * height + y) * width + x) * groups + group)
                    for side in range(2):
                        u, v = (u_next, v_next) if side == 0 else (u_prev, v_prev)
                        scatter(
                            value, buffers, base, groups, group, y, x, height, width, u, v, table
                        )  # fmt: skip


@_Kernel
def _sum_bands(buffers: Array, bands: int, depth: int, reach: int, total: Array) -> None:
    batch, channels, height, width = total.shape
    groups = (channels + 3) // 4
    number = total.dtype.type
    for row in numba.prange(batch * height):
        b, y = row // height, row % height
        first, last = max(0, (y - reach) // depth), min(bands - 1, (y + reach) // depth)
        for x in range(width):
            for group in range(groups):
                value = zeros(number(0))
                for band in range(first, last + 1):
                    base = _first_pixel(b * bands + band, band, depth, reach, width)
                    value = add_scaled(value, number(1), load(buffers, (base + y * width + x) * groups + group))
                for i in range(min(4, channels - 4 * group)):
                    total[b, 4 * group + i, y, x] = lane(value, i)


@numba.njit(cache=True)
def _first_pixel(unit: int, band: int, depth: int, reach: int, width: int) -> int:
    """Where pixel (0, 0) of the image would be in the buffer of a band, which begins ``reach`` rows above the band."""
    return (unit * (depth + 2 * reach) - max(0, band * depth - reach)) * width


@numba.njit(cache=True)
def _drawable(u: float, v: float, limit: float) -> bool:
    """False for NaN as well."""
    return abs(u) <= limit and abs(v) <= limit
