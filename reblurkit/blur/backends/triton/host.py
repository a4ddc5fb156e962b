"""The GPU backend: launches the Triton kernels.

At training sizes a call costs as long as the host takes to launch it: few launches, few arguments, few tensors, and
what sizes and types decide is worked out once and kept as a plan. The forward pass keeps the image's rows of four where
the backward pass will read them; the flows' gradient is computed anew, which costs a GPU no more than reading it back.
The image gradient is added up by atomics, whose order varies from run to run. With
``torch.use_deterministic_algorithms(True)`` it is added up in whole 64-bit numbers, where order does not matter.
Nothing waits for the device, and no tensor is made on the host once table and device have met: calls can be captured in
a CUDA graph.
"""

from __future__ import annotations

import functools
import struct
from typing import Any, NamedTuple

import torch
import triton.language as tl
from torch import Tensor

from reblurkit.blur.arguments import LONGEST, computing_type
from reblurkit.blur.backends.choice import Flows, Gradients
from reblurkit.blur.backends.layout import LANES, groups_of
from reblurkit.blur.backends.triton.kernels import backward_kernel, forward_kernel, layout_kernel
from reblurkit.blur.backends.triton.launch import Launcher
from reblurkit.blur.backends.triton.pixel import TILE, TILE_HEIGHT, TILE_WIDTH
from reblurkit.blur.table import merged_cells

keeps_jacobian = False


def forward(image: Tensor, flows: Flows, jacobian: bool) -> tuple[Tensor, Tensor]:
    """Blurred images, and the image in rows of four if ``jacobian``; see :mod:`reblurkit.blur.backends`."""
    flow_next, flow_prev, exposure, max_flow = flows
    dtype = computing_type(image, flow_next, flow_prev)
    types = (image.dtype, flow_next.dtype, flow_prev.dtype)
    plan = _forward_plan(image.shape, image.device, dtype, types, max_flow)
    rows = image.new_empty(plan.rows, dtype=dtype)
    plan.layout(image, rows, *image.stride())
    blurred = _like(image)
    plan.blur(rows, flow_next.contiguous(), flow_prev.contiguous(), blurred, _bits(exposure))
    return blurred, rows if jacobian else image.new_empty(0, dtype=dtype)


def backward(grad: Tensor, image: Tensor, flows: Flows, saved: Tensor, need_image: bool, need_flow: bool) -> Gradients:
    """Gradients of the image and both flows; see :mod:`reblurkit.blur.backends`."""
    flow_next, flow_prev, exposure, max_flow = flows
    fixed = need_image and torch.are_deterministic_algorithms_enabled()
    types = (grad.dtype, flow_next.dtype, flow_prev.dtype)
    plan = _backward_plan(image.shape, image.device, saved.dtype, types, max_flow, need_image, need_flow, fixed)
    total = rows = unit = d_image = d_next = d_prev = None
    if fixed:
        unit = _unit(grad, flows)
    if need_image:
        total = image.new_zeros(plan.size, dtype=torch.int64 if fixed else saved.dtype)
    if need_flow:
        rows = saved.contiguous()
        d_next, d_prev = _like(flow_next), _like(flow_prev)
    both = flow_next.contiguous(), flow_prev.contiguous()
    plan.gradients(grad.contiguous(), rows, *both, total, d_next, d_prev, unit, _bits(exposure))
    if total is not None:
        if total.dtype == image.dtype:
            d_image = torch.as_strided_copy(total, image.shape, plan.strides)
        else:
            total = total if unit is None else total / unit
            d_image = _like(image).copy_(total.as_strided(image.shape, plan.strides))
    return d_image, d_next, d_prev


class _Forward(NamedTuple):
    """What the forward pass of images of one size, with one set of types, needs beside its tensors.

    Attributes:
        rows: Shape of the image as the kernels read it, ``(1, B, H, W, 4 * groups)``; the first dimension is
            ``saved``'s.
        layout: Writes it.
        blur: Reads it.
    """

    rows: tuple[int, ...]
    layout: Launcher
    blur: Launcher


class _Backward(NamedTuple):
    """What the backward pass of images of one size, with one set of types, needs beside its tensors.

    Attributes:
        size: How many numbers the image gradient has in rows of four.
        strides: Where they are for an image ``(B, C, H, W)``.
        gradients: Computes them, and the flows' gradients.
    """

    size: int
    strides: tuple[int, ...]
    gradients: Launcher


# `types` are those of the tensors that the user makes, `dtype` is the one computed in. They tell launchers apart.
@functools.lru_cache(maxsize=64)
def _forward_plan(
    shape: torch.Size, device: torch.device, dtype: torch.dtype, types: tuple[torch.dtype, ...], max_flow: int | None
) -> _Forward:
    batch, channels, height, width = shape
    size = height * width
    layout = Launcher(layout_kernel, device, (batch * -(-size // TILE.value), 1, 1), (size, width, channels))
    rest = (*_table(max_flow, dtype, device), height, width, channels)
    blur = Launcher(forward_kernel, device, (_tiles(shape), 1, 1), rest, (max_flow or 0, _wide(shape)))
    return _Forward((1, batch, height, width, groups_of(channels) * LANES), layout, blur)


@functools.lru_cache(maxsize=64)
def _backward_plan(
    shape: torch.Size,
    device: torch.device,
    dtype: torch.dtype,
    types: tuple[torch.dtype, ...],
    max_flow: int | None,
    need_image: bool,
    need_flow: bool,
    fixed: bool,
) -> _Backward:
    batch, channels, height, width = shape
    row = groups_of(channels) * LANES
    # Both gradients at once share the reading of the table. For the line, and in whole numbers, that would only take
    # more registers: programs of their own, in the same launch.
    split = need_image and need_flow and (max_flow is None or fixed)
    rest = (*_table(max_flow, dtype, device), height, width, channels)
    constants = (max_flow or 0, need_image, need_flow, split, fixed, _wide(shape))
    gradients = Launcher(backward_kernel, device, (_tiles(shape), 1 + split, 1), rest, constants)
    return _Backward(batch * height * width * row, (height * width * row, 1, width * row, row), gradients)


def _like(tensor: Tensor) -> Tensor:
    """A contiguous tensor for results."""
    return torch.empty_like(tensor, memory_format=torch.contiguous_format)


def _unit(grad: Tensor, flows: Flows) -> Tensor:
    """How many whole numbers make up 1, so that no sum over an image can overflow; 0-dim, on the device.

    Each pixel adds at most its gradient, in several parts. A NaN or infinity among the gradients makes the unit NaN
    or 0, and then every image gradient NaN.
    """
    limit = LONGEST if flows.max_flow is None else torch.finfo(torch.float32).max
    lengths = ((flows.exposure * flow.float()).abs().amax(dim=1, keepdim=True) for flow in (flows.next, flows.prev))
    drawable = [length <= limit for length in lengths]
    largest = grad.masked_fill(~(drawable[0] & drawable[1]), 0).abs().max().double()
    return 2.0**61 / (grad[0, 0].numel() * largest.clamp(min=torch.finfo(torch.float64).tiny ** 0.5))


def _tiles(shape: torch.Size) -> int:
    batch, _, height, width = shape
    tiles: int = batch * -(-height // TILE_HEIGHT.value) * -(-width // TILE_WIDTH.value)
    return tiles


def _wide(shape: torch.Size) -> Any:
    """Type of offsets inside one image; those of an image in the batch are always 64 bits wide."""
    _, channels, height, width = shape
    return tl.int64 if height * width * groups_of(channels) * LANES >= 2**31 else tl.int32


@functools.lru_cache(maxsize=32)
def _table(max_flow: int | None, dtype: torch.dtype, device: torch.device) -> tuple[Tensor | None, Tensor]:
    """Numbers of the table's first taps by cell and after them the taps' offsets, and coefficients; none for the line.

    An offset holds down in its upper and right in its lower 16 bits.
    """
    if max_flow is None:
        return None, torch.empty(1, dtype=dtype, device=device)
    cells = merged_cells(max_flow, dtype, device)
    return torch.cat([cells.start, (cells.y << 16) | (cells.x & 0xFFFF)]), cells.coefficients


@functools.lru_cache(maxsize=32)
def _bits(exposure: float) -> int:
    """A double as a whole number: as a float it would reach the kernel in single precision."""
    bits: int = struct.unpack("<q", struct.pack("<d", exposure))[0]
    return bits
