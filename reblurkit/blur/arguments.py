"""What the blur models demand of their arguments, checked once, at the public edge."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from reblurkit.checks import check_images
from reblurkit.errors import ArgumentError, ShapeError

#: Longest motion component, in pixels, that the line model follows. A component beyond it counts as not finite: no
#: real exposure is that long, and a network that diverged must not keep the device busy for hours.
LONGEST = 32768.0


def check_motion(image: Tensor, flow_next: Tensor, flow_prev: Tensor, exposure: float, max_flow: int = 1) -> None:
    """Check shapes, types and devices of an image and its two flows, and the scalars; values are not read.

    Args:
        image: Must be ``(B, C, H, W)``, floating point.
        flow_next: Must be ``(B, 2, H, W)``, floating point, on the image's device.
        flow_prev: As ``flow_next``.
        exposure: Must be finite and greater than 0.
        max_flow: Must be a whole number, at least 1.

    Raises:
        ShapeError: If a shape is wrong.
        ArgumentError: If a type, a device or a scalar is wrong.

    Example:
        >>> check_motion(torch.zeros(1, 3, 4, 4), torch.zeros(1, 3, 4, 4), torch.zeros(1, 2, 4, 4), 1.0)
        Traceback (most recent call last):
        reblurkit.errors.ShapeError: `flow_next` must be (1, 2, 4, 4), channels u and v, as `image` is (1, 3, 4, 4), but is (1, 3, 4, 4)
    """  # noqa: E501
    check_images(image=image)
    if image.numel() == 0:
        raise ShapeError(f"`image` must hold at least one pixel, but its shape is {tuple(image.shape)}")
    check_flows(flow_next, flow_prev, exposure, max_flow, like=image)


def check_flows(
    flow_next: Tensor, flow_prev: Tensor, exposure: float, max_flow: int = 1, like: Tensor | None = None
) -> None:
    """Check two flows, and that they fit the image ``like``; without it, that they fit each other.

    Raises:
        ShapeError: If a shape is wrong.
        ArgumentError: If a type, a device or a scalar is wrong.
    """
    reference = flow_next if like is None else like
    name = "flow_next" if like is None else "image"
    expected = (*reference.shape[:1], 2, *reference.shape[2:])
    for flow_name, flow in (("flow_next", flow_next), ("flow_prev", flow_prev)):
        if flow.ndim != 4 or tuple(flow.shape) != expected:
            raise ShapeError(
                f"`{flow_name}` must be {expected}, channels u and v, as `{name}` is {tuple(reference.shape)}, but is "
                f"{tuple(flow.shape)}"
            )
        if not flow.is_floating_point():
            raise ArgumentError(f"`{flow_name}` must hold floating point pixels, but is {flow.dtype}; call .float()")
        if flow.device != reference.device:
            raise ArgumentError(
                f"`{name}` and `{flow_name}` must be on one device, but are on {reference.device} and {flow.device}"
            )
    if not (math.isfinite(exposure) and exposure > 0):
        raise ArgumentError(
            f"`exposure` must be a finite number of frame intervals greater than 0, but is {exposure}; "
            "exposure_from(...) computes it"
        )
    if max_flow != int(max_flow) or max_flow < 1:
        raise ArgumentError(f"`max_flow` must be a whole number of pixels, at least 1, but is {max_flow}")


def computing_type(*tensors: Tensor) -> torch.dtype:
    """Type to compute in: double precision if any tensor has it, else single (half precision is widened).

    Example:
        >>> computing_type(torch.zeros(1, dtype=torch.bfloat16), torch.zeros(1))
        torch.float32
    """
    return torch.float64 if any(tensor.dtype == torch.float64 for tensor in tensors) else torch.float32
