"""The backend in plain torch: always there, on any device, in single and double precision.

The pixels of both motions are sorted, by table cell or by length, and worked off in chunks that share their taps:
gather ``(C, pixels, taps)``, then one matrix product (table) or weighted sum (line). Images are planes ``(C, pixels)``.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor

from reblurkit.blur.arguments import LONGEST, computing_type
from reblurkit.blur.backends.choice import Flows, Gradients
from reblurkit.blur.table import merged_cells

keeps_jacobian = True
Result = TypeVar("Result")

_CHUNK = 1 << 18  # pixels times taps at once: a few megabytes, so that they stay in the processor's cache


def _without_autocast(function: Callable[..., Result]) -> Callable[..., Result]:
    """The types are chosen here; autocast would compute the matrix products in half precision."""

    @functools.wraps(function)
    def wrapped(image: Tensor, *arguments: Any) -> Result:
        with torch.autocast(image.device.type, enabled=False):
            return function(image, *arguments)

    return wrapped


@_without_autocast
def forward(image: Tensor, flows: Flows, jacobian: bool) -> tuple[Tensor, Tensor]:
    """Blurred images, and the derivative by the flows if ``jacobian``; see :mod:`reblurkit.blur.backends`."""
    dtype = computing_type(image, flows.next, flows.prev)
    batch, channels, height, width = image.shape
    max_flow = flows.max_flow
    motion, drawable = _motions(flows, dtype)
    planes = _planes(image.to(dtype), max_flow or 0)
    both = 2 * batch * height * width
    sums = image.new_empty((3 if jacobian else 1, channels, both), dtype=dtype)
    along = _gather_line if max_flow is None else _gather_table
    along(sums, planes, motion, max_flow or 0)

    blurred = sums[0].view(channels, 2, batch, height, width).sum(dim=1).transpose(0, 1)
    blurred = torch.where(drawable, blurred, torch.nan).to(image.dtype)
    saved = image.new_empty(0, dtype=dtype)
    if jacobian:
        scale = flows.exposure * drawable.to(dtype).expand(2, batch, 2, height, width)
        if max_flow is not None:
            # The table has a range: its gradient is 0 from the edge of the range on.
            scale = scale * (motion.abs() < max_flow)
        derivative = sums[1:].view(2, channels, 2, batch, height, width).permute(2, 3, 4, 5, 1, 0)
        saved = derivative * scale.permute(0, 1, 3, 4, 2).unsqueeze(-2)
    return blurred.contiguous(), saved.contiguous()


@_without_autocast
def backward(grad: Tensor, image: Tensor, flows: Flows, saved: Tensor, need_image: bool, need_flow: bool) -> Gradients:
    """Gradients of the image and both flows; see :mod:`reblurkit.blur.backends`."""
    dtype = computing_type(image, flows.next, flows.prev)
    max_flow = flows.max_flow
    motion, drawable = _motions(flows, dtype)
    # Where the blur is undefined the upstream gradient may be NaN: such a pixel takes part in no gradient.
    grad = torch.where(drawable, grad.to(dtype), 0)
    d_image = d_next = d_prev = None
    if need_flow:
        d_flow = torch.zeros_like(motion)
        for channel in range(image.shape[1]):
            d_flow += grad[:, channel, None] * saved[..., channel, :].movedim(-1, 2)
        d_next = d_flow[0].to(flows.next.dtype, copy=True)
        d_prev = d_flow[1].to(flows.prev.dtype, copy=True)
    if need_image:
        # Thousands of nodes of long motions fall on one pixel of the border: too many to add up in single precision.
        # (Apple's devices have no other.)
        sums = torch.float64 if max_flow is None and grad.device.type != "mps" else dtype
        total = _planes(torch.zeros_like(grad, dtype=sums), max_flow or 0)
        against = _scatter_line if max_flow is None else _scatter_table
        against(total, _planes(grad, 0), motion, max_flow or 0)
        d_image = _fold(total, image.shape, max_flow or 0).to(image.dtype).contiguous()
    return d_image, d_next, d_prev


def _motions(flows: Flows, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Scaled flows ``(2, B, 2, H, W)``, with 0 where a pixel cannot be drawn, and where it can, ``(B, 1, H, W)``."""
    motion = flows.exposure * torch.stack([flows.next.to(dtype), flows.prev.to(dtype)])
    limit = LONGEST if flows.max_flow is None else torch.finfo(dtype).max
    drawable = (motion.abs() <= limit).all(dim=2, keepdim=True).all(dim=0)
    return torch.where(drawable, motion, 0), drawable


def _planes(image: Tensor, pad: int) -> Tensor:
    """Pixels of the batch in one row per channel, ``(C, B * H * W)``, with a border of ``pad`` repeated pixels."""
    return F.pad(image, [pad] * 4, mode="replicate").transpose(0, 1).flatten(1)


def _fold(planes: Tensor, shape: torch.Size, pad: int) -> Tensor:
    """Adjoint of :func:`_planes`: the border's pixels add to those that they repeat."""
    batch, channels, height, width = shape
    total = planes.view(channels, batch, height + 2 * pad, width + 2 * pad)
    for dim, size in ((2, height), (3, width)):
        index = torch.arange(-pad, size + pad, device=planes.device).clamp(0, size - 1)
        target = list(total.shape)
        target[dim] = size
        total = total.new_zeros(target).index_add_(dim, index, total)
    return total.transpose(0, 1)


@dataclass
class _Cells:
    """Pixels of both motions, sorted by table cell."""

    order: Tensor  # position of each pixel among the 2 * B * H * W, sorted
    basis: Tensor  # (pixels, 4): 1, a, b, a * b with the place (a, b) inside the cell
    start: Tensor  # first tap's place in the padded image
    chunks: list[tuple[int, int, int]]  # cell, first and last sorted pixel


def _sort_by_cell(motion: Tensor, max_flow: int) -> _Cells:
    _, batch, _, height, width = motion.shape
    motion = motion.clamp(-max_flow, max_flow)
    corner = motion.floor().clamp(max=max_flow - 1)
    u, v = (corner + max_flow).long().unbind(2)
    side = 2 * max_flow
    small = torch.int16 if side**2 <= torch.iinfo(torch.int16).max else torch.int32
    cell, order = torch.sort((v * side + u).flatten().to(small), stable=True)

    a, b = (motion - corner).unbind(2)
    basis = torch.stack([torch.ones_like(a), a, b, a * b], dim=-1).view(-1, 4)[order]
    padded = (batch, height + 2 * max_flow, width + 2 * max_flow)
    place = torch.arange(padded[0] * padded[1] * padded[2], device=motion.device).view(padded)
    place = place[:, max_flow : max_flow + height, max_flow : max_flow + width].flatten()

    largest = _CHUNK // 64
    present, counts = torch.unique_consecutive(cell, return_counts=True)
    chunks, first = [], 0
    for number, count in zip(present.tolist(), counts.tolist(), strict=True):
        last = first + count
        chunks += [(number, begin, min(begin + largest, last)) for begin in range(first, last, largest)]
        first = last
    return _Cells(order, basis, place[order % len(place)], chunks)


def _cell_taps(cells: _Cells, motion: Tensor, max_flow: int) -> Iterator[tuple[slice, Tensor, Tensor]]:
    """For each chunk: its sorted pixels, the places of their taps, and the taps' coefficients ``(taps, 4)``."""
    table = merged_cells(max_flow, motion.dtype, motion.device)
    ahead = table.y.long() * (motion.shape[-1] + 2 * max_flow) + table.x
    bounds = table.start.tolist()
    for cell, first, last in cells.chunks:
        taps = slice(bounds[cell], bounds[cell + 1])
        index = cells.start[first:last, None] + ahead[taps]
        yield slice(first, last), index.flatten(), table.coefficients[taps]


def _gather_table(sums: Tensor, planes: Tensor, motion: Tensor, max_flow: int) -> None:
    """Half the blur along each motion; with room for them, also its derivatives by u and v."""
    channels = len(planes)
    cells = _sort_by_cell(motion, max_flow)
    products = planes.new_empty(channels, len(cells.order), 4)
    for pixels, index, coefficients in _cell_taps(cells, motion, max_flow):
        patches = planes.index_select(1, index).view(-1, len(coefficients))
        products[:, pixels] = (patches @ coefficients).view(channels, -1, 4)
    sums[0].index_copy_(1, cells.order, (products * cells.basis).sum(dim=-1))
    if len(sums) == 3:
        _, a, b, _ = cells.basis.unbind(-1)
        sums[1].index_copy_(1, cells.order, torch.addcmul(products[..., 1], b, products[..., 3]))
        sums[2].index_copy_(1, cells.order, torch.addcmul(products[..., 2], a, products[..., 3]))


def _scatter_table(total: Tensor, grad: Tensor, motion: Tensor, max_flow: int) -> None:
    """Add the gradient of half the blur to the padded planes, as :func:`_gather_table` read them."""
    cells = _sort_by_cell(motion, max_flow)
    grad = grad[:, cells.order % grad.shape[1]]
    for pixels, index, coefficients in _cell_taps(cells, motion, max_flow):
        products = (grad[:, pixels, None] * cells.basis[pixels]).view(-1, 4)
        taps = (products @ coefficients.T).view(len(grad), -1)
        for plane, values in zip(total, taps, strict=True):
            plane.index_add_(0, index, values)


@dataclass
class _Nodes:
    """The nodes ``(pixels, steps)`` of motions of about one length; see :func:`reblurkit.blur.flow_line_blur`."""

    near: Tensor  # places of the two pixels around the node on the shorter axis
    far: Tensor
    fraction: Tensor  # place between them
    weight: Tensor  # half the node's weight
    turn: Tensor  # weight of far - near in the derivative by the shorter component
    end: Tensor  # weight in the derivative by the length
    horizontal: Tensor  # (pixels, 1): the longer axis is u
    sign: Tensor
    slope: Tensor


def _line_nodes(motion: Tensor) -> Iterator[tuple[Tensor, _Nodes]]:
    """For each chunk of pixels, longest motions first: their positions among all, and their nodes."""
    _, batch, _, height, width = motion.shape
    u, v = (component.flatten() for component in motion.unbind(2))
    horizontal = u.abs() >= v.abs()
    major, minor = torch.where(horizontal, u, v), torch.where(horizontal, v, u)
    length = major.abs()
    slope = torch.where(length > 0, minor / length, 0)
    whole, order = torch.sort(length.floor().to(torch.int32), stable=True, descending=True)
    first, count = 0, len(order)
    while first < count:
        steps = int(whole[first]) + 2
        last = min(first + max(1, _CHUNK // steps), count)
        chosen = order[first:last]
        yield (
            chosen,
            _nodes(
                steps,
                chosen % (batch * height * width),
                horizontal[chosen, None],
                torch.where(major < 0, -1, 1)[chosen, None],
                length[chosen, None],
                slope[chosen, None],
                height,
                width,
            ),
        )
        first = last


def _nodes(
    steps: int, pixel: Tensor, horizontal: Tensor, sign: Tensor, length: Tensor, slope: Tensor, height: int, width: int
) -> _Nodes:
    step = torch.arange(steps, device=length.device)
    whole = length.floor()
    rest = length - whole
    at_end, after, short = step == whole, step == whole + 1, whole == 0
    partial = rest * rest / 2
    divisor = 2 * torch.where(short, 1, length)
    trapezoid = (step <= whole) * torch.where((step == 0) | at_end, 0.5, 1.0)
    weight = (trapezoid + at_end * (rest - partial) + after * partial) / divisor
    weight = torch.where(short, torch.where(at_end, 0.5 - length / 4, after * length / 4), weight)
    # The blur grows by the image at the end point: d/dM = (I(end) - blur) / M, in the limit M = 0 as well.
    end = (at_end * (1 - rest) + after * rest) / divisor - weight / torch.where(short, 1, length)
    end = torch.where(short, 0.25 * (after.to(length.dtype) - at_end.to(length.dtype)), end)
    turn = torch.where(short, 0.25 * after, step * weight / torch.where(short, 1, length))

    across = step * slope
    low = across.floor()
    along = step * sign
    row = (pixel // width % height).unsqueeze(1)
    x, y = (pixel % width).unsqueeze(1), row
    image = (pixel // (height * width) * (height * width)).unsqueeze(1)
    low_long = low.long()
    places = []
    for shift in (low_long, low_long + 1):
        column = (x + torch.where(horizontal, along, shift)).clamp_(0, width - 1)
        line = (y + torch.where(horizontal, shift, along)).clamp_(0, height - 1)
        places.append((image + line * width + column).flatten())
    return _Nodes(places[0], places[1], across - low, weight, turn, end, horizontal, sign, slope)


def _gather_line(sums: Tensor, planes: Tensor, motion: Tensor, _: int) -> None:
    """Half the blur along each motion; with room for them, also its derivatives by u and v."""
    for chosen, nodes in _line_nodes(motion):
        shape = (len(planes), *nodes.weight.shape)
        near = planes.index_select(1, nodes.near).view(shape)
        change = planes.index_select(1, nodes.far).view(shape).sub_(near)
        value = torch.addcmul(near, nodes.fraction, change)
        sums[0].index_copy_(1, chosen, (nodes.weight * value).sum(dim=-1))
        if len(sums) == 3:
            d_minor = (nodes.turn * change).sum(dim=-1)
            slope, sign, horizontal = nodes.slope[:, 0], nodes.sign[:, 0], nodes.horizontal[:, 0]
            d_major = sign * ((nodes.end * value).sum(dim=-1) - slope * d_minor)
            sums[1].index_copy_(1, chosen, torch.where(horizontal, d_major, d_minor))
            sums[2].index_copy_(1, chosen, torch.where(horizontal, d_minor, d_major))


def _scatter_line(total: Tensor, grad: Tensor, motion: Tensor, _: int) -> None:
    """Add the gradient of half the blur to the planes, as :func:`_gather_line` read them."""
    for chosen, nodes in _line_nodes(motion):
        far = nodes.weight * nodes.fraction
        near = nodes.weight - far
        for plane, values in zip(total, grad[:, chosen % grad.shape[1]], strict=True):
            plane.index_add_(0, nodes.near, (values.unsqueeze(1) * near).flatten().to(plane.dtype))
            plane.index_add_(0, nodes.far, (values.unsqueeze(1) * far).flatten().to(plane.dtype))
