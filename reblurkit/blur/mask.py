"""Where a blur model can be trusted."""

from __future__ import annotations

import torch
from torch import Tensor

from reblurkit.blur.arguments import check_flows
from reblurkit.core.numbers import check_whole


def flow_kernel_mask(flow_next: Tensor, flow_prev: Tensor, *, exposure: float = 1.0, max_flow: int = 16) -> Tensor:
    """Pixels whose scaled flows lie in the range of the table and whose two segments stay inside the image.

    Elsewhere the blur is made of clamped flow or of repeated border; a loss may leave these pixels out.

    Args:
        flow_next: F(t+1 -> t), ``(B, 2, H, W)``, in pixels.
        flow_prev: F(t-1 -> t), ``(B, 2, H, W)``, in pixels.
        exposure: Half-length of the exposure in frame intervals; greater than 0.
        max_flow: Range of the table in pixels, at least 1; as no table is built, any.

    Returns:
        Mask ``(B, 1, H, W)``, bool; False where a flow is NaN or infinite.

    Raises:
        ShapeError: If the flows' shapes differ or are not ``(B, 2, H, W)``.
        ArgumentError: If a flow is no tensor of floating point, devices differ, ``exposure`` or ``max_flow`` is not a
            number of its range.

    Example:
        >>> flow = torch.zeros(1, 2, 1, 4)
        >>> flow[:, 0] = 2
        >>> flow_kernel_mask(flow, -flow)
        tensor([[[[False, False, False, False]]]])
        >>> flow_kernel_mask(flow, -flow, exposure=0.5)
        tensor([[[[False,  True,  True, False]]]])
    """
    check_flows(flow_next, flow_prev, exposure)
    check_whole(max_flow=max_flow, unit=" of pixels")
    height, width = flow_next.shape[2:]
    x = torch.arange(width, device=flow_next.device)
    y = torch.arange(height, device=flow_next.device).view(-1, 1)
    mask = torch.ones_like(flow_next[:, 0], dtype=torch.bool)
    for flow in (flow_next, flow_prev):
        # Positions in half precision would be wrong beyond 256 pixels.
        u, v = (exposure * flow.to(torch.promote_types(flow.dtype, torch.float32))).unbind(1)
        mask &= (u.abs() <= max_flow) & (v.abs() <= max_flow)
        mask &= (x + u >= 0) & (x + u <= width - 1) & (y + v >= 0) & (y + v <= height - 1)
    return mask.unsqueeze(1)
