"""The GPU backend: launches the Triton kernels.

The forward pass keeps nothing; the backward pass computes the flows' gradient anew, which costs a GPU no more than
reading it back. The image gradient is added up by atomics, whose order varies from run to run. With
``torch.use_deterministic_algorithms(True)`` it is added up in whole 64-bit numbers, where order does not matter.
"""

from __future__ import annotations

import contextlib
import functools
from typing import Any

import torch
import triton.language as tl
from torch import Tensor

from reblurkit.blur.arguments import LONGEST, computing_type
from reblurkit.blur.backends.layout import groups_of, rows_of_four
from reblurkit.blur.backends.triton.kernels import TILE_HEIGHT, TILE_WIDTH, WARPS, backward_kernel, forward_kernel
from reblurkit.blur.table import merged_cells

keeps_jacobian = False


def forward(
    image: Tensor, flow_next: Tensor, flow_prev: Tensor, exposure: float, max_flow: int | None, jacobian: bool
) -> tuple[Tensor, Tensor]:
    """Blurred images; nothing is kept for the backward pass. See :mod:`reblurkit.blur.backends`."""
    dtype = computing_type(image, flow_next, flow_prev)
    blurred = image.new_empty(image.shape)
    with _on(image.device):
        forward_kernel[_grid(image)](
            rows_of_four(image, dtype),
            flow_next,
            flow_prev,
            blurred,
            *_table(max_flow, dtype, image.device),
            _scalar(exposure, dtype, image.device),
            _limit(max_flow),
            *_sizes(image),
            *flow_next.stride(),
            *flow_prev.stride(),
            **_constants(image, max_flow),
        )
    return blurred, image.new_empty(0, dtype=dtype)


def backward(
    grad: Tensor,
    image: Tensor,
    flow_next: Tensor,
    flow_prev: Tensor,
    saved: Tensor,
    exposure: float,
    max_flow: int | None,
    need_image: bool,
    need_flow: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of the image and both flows; see :mod:`reblurkit.blur.backends`."""
    dtype = computing_type(image, flow_next, flow_prev)
    batch, channels, height, width = image.shape
    fixed = need_image and torch.are_deterministic_algorithms_enabled()
    unit = _unit(grad, flow_next, flow_prev, exposure, _limit(max_flow)) if fixed else None
    rows = batch * height * width * groups_of(channels) if need_image else 0
    total = image.new_zeros((rows, 4), dtype=torch.int64 if fixed else dtype)
    d_next, d_prev = (
        torch.empty_like(flow, memory_format=torch.contiguous_format) if need_flow else flow.new_empty(0)
        for flow in (flow_next, flow_prev)
    )
    # Both gradients at once share the reading of the table. For the line, and in whole numbers, that would only take
    # more registers.
    fused = need_image and need_flow and max_flow is not None and not fixed
    passes = [(True, True)] if fused else [(True, False)] * need_image + [(False, True)] * need_flow
    source = rows_of_four(image, dtype) if need_flow else image
    for do_image, do_flow in passes:
        with _on(image.device):
            backward_kernel[_grid(image)](
                grad,
                source,
                flow_next,
                flow_prev,
                total,
                d_next,
                d_prev,
                *_table(max_flow, dtype, image.device),
                _scalar(exposure, dtype, image.device),
                _limit(max_flow),
                unit,
                *_sizes(image),
                *grad.stride(),
                *flow_next.stride(),
                *flow_prev.stride(),
                NEED_IMAGE=do_image,
                NEED_FLOW=do_flow,
                FIXED=fixed,
                **_constants(image, max_flow),
            )
    d_image = image.new_empty(0)
    if need_image:
        pixels = total.view(batch, height, width, -1)[..., :channels].permute(0, 3, 1, 2)
        d_image = (pixels if unit is None else pixels / unit).to(image.dtype).contiguous()
    return d_image, d_next, d_prev


def _unit(grad: Tensor, flow_next: Tensor, flow_prev: Tensor, exposure: float, limit: float) -> Tensor:
    """How many whole numbers make up 1, so that no sum over an image can overflow; 0-dim, on the device.

    Each pixel adds at most its gradient, in several parts. A NaN or infinity among the gradients makes the unit NaN
    or 0, and then every image gradient NaN.
    """
    drawable = [(exposure * flow.float()).abs().amax(dim=1, keepdim=True) <= limit for flow in (flow_next, flow_prev)]
    largest = torch.where(drawable[0] & drawable[1], grad, 0).abs().max().double()
    return 2.0**61 / (grad[0, 0].numel() * largest.clamp(min=torch.finfo(torch.float64).tiny ** 0.5))


def _grid(image: Tensor) -> tuple[int]:
    batch, _, height, width = image.shape
    return (batch * -(-height // TILE_HEIGHT) * -(-width // TILE_WIDTH),)


def _sizes(image: Tensor) -> tuple[int, int, int, int]:
    _, channels, height, width = image.shape
    return height, width, channels, groups_of(channels)


def _constants(image: Tensor, max_flow: int | None) -> dict[str, Any]:
    _, channels, height, width = image.shape
    # Offsets inside one image; those of an image in the batch are always 64 bits wide.
    wide = height * width * groups_of(channels) * 4 >= 2**31
    return {
        "MAX_FLOW": max_flow or 0,
        "WIDE": tl.int64 if wide else tl.int32,
        "TILE_HEIGHT": TILE_HEIGHT,
        "TILE_WIDTH": TILE_WIDTH,
        "num_warps": WARPS,
    }


def _limit(max_flow: int | None) -> float:
    # In single precision, as scalars reach a kernel: the limit of double precision would become infinity.
    return LONGEST if max_flow is None else torch.finfo(torch.float32).max


@functools.lru_cache(maxsize=32)
def _table(max_flow: int | None, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """First tap of every cell, offsets of the taps (down in the upper, right in the lower 16 bits), coefficients."""
    cells = merged_cells(max_flow or 1, dtype, device)
    return cells.start, (cells.y << 16) | (cells.x & 0xFFFF), cells.coefficients


@functools.lru_cache(maxsize=32)
def _scalar(value: float, dtype: torch.dtype, device: torch.device) -> Tensor:
    """A number in memory: as a plain argument it would reach the kernel in single precision."""
    return torch.tensor(value, dtype=dtype, device=device)


def _on(device: torch.device) -> contextlib.AbstractContextManager[Any]:
    """Triton launches on the current device, which need not be the tensors'."""
    return torch.cuda.device(device) if device.type == "cuda" else contextlib.nullcontext()
