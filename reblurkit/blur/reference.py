"""The definitions, dense and differentiable: slow, for any float type, and the oracle of every backend."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from reblurkit.blur.arguments import LONGEST, check_motion, check_table, computing_type
from reblurkit.blur.table import kernel_table


def dense_flow_kernel_blur(
    image: Tensor, flow_next: Tensor, flow_prev: Tensor, *, exposure: float = 1.0, max_flow: int = 16
) -> Tensor:
    """Blur by the lookup table with every kernel written out (Reblur2Deblur, equations 8 and 9).

    Builds the kernel ``K(p)`` of every pixel, ``(2m+1)^2`` numbers each, and sums ``K(p)[x, y] I(p + (x, y))``.
    Ordinary autograd differentiates it. Needs about 46 KB per pixel in single precision: for tests and small images.

    Args:
        image: Sharp images, ``(B, C, H, W)``.
        flow_next: F(t+1 -> t), ``(B, 2, H, W)``, in pixels.
        flow_prev: F(t-1 -> t), ``(B, 2, H, W)``, in pixels.
        exposure: Half-length of the exposure in frame intervals; greater than 0.
        max_flow: Range of the table in pixels, from 1 to 64.

    Returns:
        Blurred images, ``(B, C, H, W)``.

    Example:
        >>> image, flow = torch.rand(1, 3, 5, 5), torch.zeros(1, 2, 5, 5)
        >>> torch.equal(dense_flow_kernel_blur(image, flow, flow), image)
        True
    """
    check_motion(image, flow_next, flow_prev, exposure)
    check_table(max_flow, dense=True)
    dtype = computing_type(image, flow_next, flow_prev)
    motions = [exposure * flow.to(dtype) for flow in (flow_next, flow_prev)]
    valid = _valid(motions, math.inf)
    side = 2 * max_flow + 1
    table = kernel_table(max_flow).to(image.device, dtype).flatten(2).flatten(0, 1)
    kernel = torch.zeros((), dtype=dtype, device=image.device)
    for motion in motions:
        motion = torch.where(valid, motion, 0)
        # torch.clamp would pass the gradient at exact equality in some releases.
        inside = motion.abs() < max_flow
        motion = torch.where(inside, motion, motion.detach().clamp(-max_flow, max_flow))
        kernel = kernel + _between_entries(table, motion, max_flow) / 2
    shape = image.shape
    padded = F.pad(image.to(dtype), [max_flow] * 4, mode="replicate")
    patches = F.unfold(padded, side).view(shape[0], shape[1], side**2, *shape[2:])
    blurred = (kernel.unsqueeze(1) * patches).sum(dim=2)
    return torch.where(valid, blurred, torch.nan).to(image.dtype)


def _between_entries(table: Tensor, motion: Tensor, max_flow: int) -> Tensor:
    """Kernels of motions between whole flows, bilinear, ``(B, side**2, H, W)``; ``table`` has a row for every flow.

    By index: torch 2.11 has no second derivative of grid_sample.
    """
    whole = motion.detach().floor().clamp(-max_flow, max_flow - 1)
    right, down = (motion - whole).unsqueeze(1).unbind(2)
    u, v = (whole.long() + max_flow).unbind(1)
    side = 2 * max_flow + 1

    def entry(row: Tensor, column: Tensor) -> Tensor:
        return table[row * side + column].movedim(-1, 1)

    upper = (1 - right) * entry(v, u) + right * entry(v, u + 1)
    lower = (1 - right) * entry(v + 1, u) + right * entry(v + 1, u + 1)
    return (1 - down) * upper + down * lower


def dense_flow_line_blur(image: Tensor, flow_next: Tensor, flow_prev: Tensor, *, exposure: float = 1.0) -> Tensor:
    """Blur along the real motion, all nodes of all pixels at once; :func:`reblurkit.blur.flow_line_blur` defines it.

    Arguments and result are those of :func:`dense_flow_kernel_blur`; there is no range.

    Example:
        >>> image, flow = torch.rand(1, 3, 5, 5), torch.zeros(1, 2, 5, 5)
        >>> torch.equal(dense_flow_line_blur(image, flow, flow), image)
        True
    """
    check_motion(image, flow_next, flow_prev, exposure)
    dtype = computing_type(image, flow_next, flow_prev)
    motions = [exposure * flow.to(dtype) for flow in (flow_next, flow_prev)]
    valid = _valid(motions, LONGEST)
    blurred = sum(_mean_along(image.to(dtype), torch.where(valid, motion, 0)) for motion in motions) / 2
    return torch.where(valid, blurred, torch.nan).to(image.dtype)


def _valid(motions: list[Tensor], longest: float) -> Tensor:
    """Pixels ``(B, 1, H, W)`` with motion that can be drawn; all others become NaN and take part in no gradient."""
    next_, prev = (motion.isfinite() & (motion.abs() <= longest) for motion in motions)
    return (next_ & prev).all(dim=1, keepdim=True)


def _mean_along(image: Tensor, motion: Tensor) -> Tensor:
    """Mean of the image over the segment from each pixel to the pixel plus ``motion``."""
    u, v = motion.unsqueeze(2).unbind(1)  # each (B, 1, H, W): the node's axis comes second
    horizontal = u.abs() >= v.abs()
    major, minor = torch.where(horizontal, u, v), torch.where(horizontal, v, u)
    length = torch.where(major < 0, -major, major)
    # The gradient at zero flow is the limit from u > v > 0, the octant to which rounding down points everywhere else.
    length = length + (length == 0).to(image.dtype) * (4 * torch.finfo(image.dtype).tiny)
    nodes = length.detach().floor()
    rest = length - nodes
    step = torch.arange(int(nodes.max()) + 2, dtype=image.dtype, device=image.device).view(1, -1, 1, 1)

    trapezoid = (step <= nodes).to(image.dtype) - 0.5 * (step == 0) - 0.5 * (step == nodes)
    total = trapezoid + (step == nodes) * (rest - rest**2 / 2) + (step == nodes + 1) * (rest**2 / 2)
    short = (step == 0) * (1 - length / 2) + (step == 1) * (length / 2)  # nodes = 0, with the length divided out
    weight = torch.where(nodes == 0, short, total / torch.where(nodes == 0, 1, length))

    along = step * torch.where(major < 0, -1, 1)
    across = step * (minor / length)
    low = across.detach().floor()
    fraction = across - low
    near = _at(image, along, low, horizontal)
    far = _at(image, along, low + 1, horizontal)
    return (weight.unsqueeze(1) * (near + fraction.unsqueeze(1) * (far - near))).sum(dim=2)


def _at(image: Tensor, along: Tensor, across: Tensor, horizontal: Tensor) -> Tensor:
    """Image values ``(B, C, nodes, H, W)`` at whole offsets from each pixel, clamped to the border."""
    batch, channels, height, width = image.shape
    rows = torch.arange(height, device=image.device).view(-1, 1)
    columns = torch.arange(width, device=image.device)
    x = (columns + torch.where(horizontal, along, across)).clamp(0, width - 1).long()
    y = (rows + torch.where(horizontal, across, along)).clamp(0, height - 1).long()
    index = (y * width + x).view(batch, 1, -1).expand(-1, channels, -1)
    return image.flatten(2).gather(2, index).view(batch, channels, *x.shape[1:])
