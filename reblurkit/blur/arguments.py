"""What the blur models demand of their arguments, checked once, at the public edge."""

from __future__ import annotations

import torch
from torch import Tensor

from reblurkit.core.checks import check_images
from reblurkit.core.numbers import check_positive, check_whole, is_number, shown
from reblurkit.errors import ArgumentError, ShapeError

#: Longest motion component, in pixels, that the line model follows. A component beyond it counts as not finite: no
#: real exposure is that long, and a network that diverged must not keep the device busy for hours.
LONGEST = 32768.0

#: Largest range of a table, in pixels. The memory to build one grows with the third power of the range; this one takes
#: 0.6 GB.
WIDEST = 64


def check_motion(image: Tensor, flow_next: Tensor, flow_prev: Tensor, exposure: float) -> None:
    """Check shapes, types and devices of an image and its two flows, and the exposure; tensors' values are not read.

    Args:
        image: Must be ``(B, C, H, W)``, floating point, with at least one pixel.
        flow_next: Must be ``(B, 2, H, W)``, floating point, on the image's device.
        flow_prev: As ``flow_next``.
        exposure: Must be a finite number greater than 0.

    Raises:
        ShapeError: If a shape is wrong.
        ArgumentError: If a type, a device or the exposure is wrong.

    Example:
        >>> check_motion(torch.zeros(1, 3, 4, 4), torch.zeros(1, 3, 4, 4), torch.zeros(1, 2, 4, 4), 1.0)
        Traceback (most recent call last):
        reblurkit.errors.ShapeError: `flow_next` must be (1, 2, 4, 4), channels u and v, as `image` is (1, 3, 4, 4), but is (1, 3, 4, 4)
    """  # noqa: E501
    check_image(image)
    _check_flow("flow_next", flow_next, "image", image)
    _check_flow("flow_prev", flow_prev, "image", image)
    check_exposure(exposure)


def check_flows(flow_next: Tensor, flow_prev: Tensor, exposure: float) -> None:
    """Check two flows that come without an image, and the exposure.

    Raises:
        ShapeError: If a shape is wrong.
        ArgumentError: If a type, a device or the exposure is wrong.
    """
    _check_type("flow_next", flow_next)
    if flow_next.ndim != 4 or flow_next.shape[1] != 2 or flow_next.numel() == 0:
        raise ShapeError(
            "`flow_next` must be (B, 2, H, W), channels u and v, with at least one pixel, but is "
            f"{tuple(flow_next.shape)}"
        )
    _check_flow("flow_prev", flow_prev, "flow_next", flow_next)
    check_exposure(exposure)


def check_image(image: Tensor) -> None:
    """Check that an image is ``(B, C, H, W)``, floating point, and not empty.

    Raises:
        ShapeError: If the shape is wrong.
        ArgumentError: If it is no tensor of floating point.
    """
    check_images(image=image)
    if image.numel() == 0:
        raise ShapeError(f"`image` must hold at least one pixel, but its shape is {tuple(image.shape)}")


def check_exposure(exposure: float) -> None:
    """Check that the exposure is a finite number greater than 0.

    Raises:
        ArgumentError: If it is not; a tensor is refused too, as it would get no gradient.
    """
    check_positive(
        exposure=exposure,
        unit=" of frame intervals",
        hint="; exposure_from(...) computes it, and what shall be learned may scale the flows instead",
    )


def check_table(max_flow: int, dense: bool = False) -> None:
    """Check the range of a table before memory is taken.

    Args:
        max_flow: Must be a whole number of pixels, from 1 to 64.
        dense: The table is written out, instead of being compressed: matters for the figure in the message.

    Raises:
        ArgumentError: If it is not.

    Example:
        >>> check_table(128)
        Traceback (most recent call last):
        reblurkit.errors.ArgumentError: `max_flow` may be at most 64 pixels, but is 128: its table would take 4.9 GB of memory; flow_line_blur has no range and no table
    """  # noqa: E501
    check_whole(max_flow=max_flow, unit=" of pixels")
    if max_flow > WIDEST:
        entries = (2 * max_flow + 1) ** 2
        needed = 8 * entries**2 if dense else 570 * entries * (max_flow + 1)  # bytes; compressed: as measured
        raise ArgumentError(
            f"`max_flow` may be at most {WIDEST} pixels, but is {max_flow}: its table would take "
            f"{needed / 1e9:,.1f} GB of memory; flow_line_blur has no range and no table"
        )


def own_generator(seed: int | None) -> torch.Generator | None:
    """The source of an object's random numbers, on the CPU; None, the global one, without a seed.

    Raises:
        ArgumentError: If the seed is no whole number of 64 bits.
    """
    if seed is None:
        return None
    if not is_number(seed, int) or not -(2**63) <= seed < 2**64:
        raise ArgumentError(f"`seed` must be a whole number of 64 bits (int) or None, but is {shown(seed)}")
    return torch.Generator().manual_seed(int(seed))


def computing_type(*tensors: Tensor) -> torch.dtype:
    """Type to compute in: double precision if any tensor has it, else single (half precision is widened).

    Example:
        >>> computing_type(torch.zeros(1, dtype=torch.bfloat16), torch.zeros(1))
        torch.float32
    """
    return torch.float64 if torch.float64 in [tensor.dtype for tensor in tensors] else torch.float32


def _check_flow(name: str, flow: Tensor, like_name: str, like: Tensor) -> None:
    """Check that a flow fits the image or the flow ``like``."""
    _check_type(name, flow)
    batch, _, height, width = like.shape
    expected = (batch, 2, height, width)
    if flow.shape != expected:
        raise ShapeError(
            f"`{name}` must be {expected}, channels u and v, as `{like_name}` is {tuple(like.shape)}, but is "
            f"{tuple(flow.shape)}"
        )
    if flow.device != like.device:
        raise ArgumentError(
            f"`{like_name}` and `{name}` must be on one device, but are on {like.device} and {flow.device}"
        )


def _check_type(name: str, flow: Tensor) -> None:
    if not isinstance(flow, Tensor):
        raise ArgumentError(f"`{name}` must be a tensor (B, 2, H, W), channels u and v, but is {shown(flow)}")
    if not flow.is_floating_point():
        raise ArgumentError(f"`{name}` must hold floating point pixels, but is {flow.dtype}; call .float()")
