"""The self-supervised loss of Reblur2Deblur: deblurred video, blurred again along its motion, is the blurry video.

Chen et al., "Reblur2Deblur: Deblurring Videos via Self-Supervised Learning", ICCP 2018. In the paper's letters:
three frames I_B are deblurred to I_S (equation 1), the flows F from the neighbours to the centre frame are estimated on
them (equations 3 and 4), the centre frame is blurred along both flows (equations 5, 6, 8, 9), and must then be what the
camera saw (equation 7).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from reblurkit.blur.arguments import LONGEST
from reblurkit.blur.mask import flow_kernel_mask
from reblurkit.blur.warp_blur import sample_along
from reblurkit.core.checks import check_images
from reblurkit.errors import ArgumentError, ShapeError

Distance = Callable[[Tensor, Tensor], Tensor]


class FlowReblurTerms(NamedTuple):
    """One evaluation: the scalar ``loss``, and what the centre frame went through, for pictures and logs."""

    loss: Tensor
    deblurred: Tensor
    reblurred: Tensor
    flow_next: Tensor
    flow_prev: Tensor
    mask: Tensor


def flow_reblur_loss(
    deblurred: Tensor,
    blurry: Tensor,
    flow_network: nn.Module,
    *,
    blur: nn.Module,
    distance: Distance | None = None,
    mask: bool = True,
    consistency: bool = False,
    detach: bool = False,
    photometric: float = 0.0,
    smoothness: float = 0.0,
) -> Tensor:
    """L_U = h(b(I_S; K), I_B) (equation 7), with h the mean squared error unless another is given.

    Gradients reach the deblurring network in two ways, through the image that is blurred and through the motion that
    is estimated on all frames, and the flow network in one.

    The paper says nothing about pixels whose motion cannot be right. Here they are left out by putting the observed
    value in place of the reblurred one, so that the loss stays a mean over all pixels for any distance: pixels whose
    motion is out of the blur model's range, leaves the image or is not finite, and, with ``consistency``, pixels where
    the flow forth and back do not cancel. Where a deblurred frame is not finite, or a flow nowhere, the loss is NaN.

    Args:
        deblurred: Deblurred frames t-1, t, t+1, ``(B, 3, 3, H, W)`` in [0, 1]; or t-1 and t, ``(B, 2, 3, H, W)``, and
            then motion is taken to be steady, F(t+1 -> t) = -F(t-1 -> t) (the paper's two-frame variant, Table 5).
        blurry: The observed frame t, ``(B, 3, H, W)`` in [0, 1].
        flow_network: Called as ``(source, target) -> flow``, see :mod:`reblurkit.models.flow`.
        blur: Formation model, for instance ``FlowKernelBlur(exposure=0.5)``; called as ``(image, flow_next,
            flow_prev)``. Its ``exposure`` and ``max_flow``, where it has them, also bound the mask.
        distance: h; called with the reblurred and the observed frame.
        mask: Leave out pixels whose motion is out of range.
        consistency: Leave out pixels where the flows forth and back do not cancel; costs a second pass of the flow
            network.
        detach: Hold the flow network's input fixed, so that the motion passes no gradient to the deblurring network.
        photometric: Weight of a term that trains the flow network alone: mean absolute difference between a
            neighbour and the centre frame warped to it.
        smoothness: Weight of a second such term: mean absolute differences of neighbouring flows, less across edges.

    Returns:
        Scalar loss.

    Raises:
        ShapeError: If the frames are not ``(B, 2 or 3, 3, H, W)``, the observed frame does not fit, or the flow network
            returns something else than ``(B, 2, H, W)``.

    Example:
        >>> from reblurkit.blur import FlowLineBlur
        >>> from reblurkit.models import create_model
        >>> frames = torch.rand(1, 1, 3, 32, 32).expand(1, 3, 3, 32, 32)  # nothing moves: the identity
        >>> round(flow_reblur_loss(frames, frames[:, 1], create_model("tvl1"), blur=FlowLineBlur()).item(), 6)
        0.0
    """
    return flow_reblur_terms(
        deblurred,
        blurry,
        flow_network,
        blur=blur,
        distance=distance,
        mask=mask,
        consistency=consistency,
        detach=detach,
        photometric=photometric,
        smoothness=smoothness,
    ).loss


def flow_reblur_terms(
    deblurred: Tensor,
    blurry: Tensor,
    flow_network: nn.Module,
    *,
    blur: nn.Module,
    distance: Distance | None = None,
    mask: bool = True,
    consistency: bool = False,
    detach: bool = False,
    photometric: float = 0.0,
    smoothness: float = 0.0,
) -> FlowReblurTerms:
    """:func:`flow_reblur_loss` with what it was made of."""
    _check_frames(deblurred, blurry)
    deblurred, blurry = _at_least_single(deblurred), _at_least_single(blurry)
    frames = deblurred.detach() if detach else deblurred
    centre = frames[:, 1]
    neighbours = [frames[:, 0], *([frames[:, 2]] if frames.shape[1] == 3 else [])]
    flows = [_flow(flow_network, neighbour, centre) for neighbour in neighbours]
    flow_prev, flow_next = flows[0], flows[1] if len(flows) == 2 else -flows[0]

    reblurred = blur(deblurred[:, 1], flow_next, flow_prev)
    trusted = flow_next.detach().isfinite().all(1, keepdim=True) & flow_prev.detach().isfinite().all(1, keepdim=True)
    # Frames or motion that are all broken would leave out every pixel, and the loss would be 0.
    broken = (deblurred.detach() * 0).sum() + torch.where(trusted.flatten(1).any(1).all(), 0.0, torch.nan)
    if mask:
        exposure, max_flow = getattr(blur, "exposure", 1.0), getattr(blur, "max_flow", int(LONGEST))
        trusted &= flow_kernel_mask(flow_next.detach(), flow_prev.detach(), exposure=exposure, max_flow=max_flow)
    if consistency:
        for neighbour, flow in zip(neighbours, flows, strict=True):
            trusted &= _cancels(flow_network, neighbour, centre, flow)
    loss = (distance or F.mse_loss)(torch.where(trusted, reblurred, blurry), blurry) + broken
    for neighbour, flow in zip(neighbours, flows, strict=True):
        finite = flow.detach().isfinite().all(1, keepdim=True)
        flow = torch.where(finite, flow, 0)
        if photometric:
            warped = torch.where(finite, sample_along(centre.detach(), flow), neighbour.detach())
            loss = loss + photometric / len(flows) * F.l1_loss(warped, neighbour.detach())
        if smoothness:
            loss = loss + smoothness / len(flows) * _roughness(flow, neighbour.detach())
    return FlowReblurTerms(loss, deblurred[:, 1], reblurred, flow_next, flow_prev, trusted)


def _check_frames(deblurred: Tensor, blurry: Tensor) -> None:
    if not isinstance(deblurred, Tensor):
        raise ArgumentError(f"`deblurred` must be a tensor of frames, but is a {type(deblurred).__name__}")
    if deblurred.ndim != 5 or deblurred.shape[1] not in (2, 3):
        raise ShapeError(
            "`deblurred` must hold the frames t-1, t, t+1 as (B, 3, 3, H, W), or t-1 and t as (B, 2, 3, H, W), but is "
            f"{tuple(deblurred.shape)}"
        )
    check_images(deblurred=deblurred[:, 1], blurry=blurry)


def _flow(network: nn.Module, source: Tensor, target: Tensor) -> Tensor:
    flow: Tensor = network(source, target)
    expected = (source.shape[0], 2, *source.shape[2:])
    if not isinstance(flow, Tensor) or tuple(flow.shape) != expected:
        came = tuple(flow.shape) if isinstance(flow, Tensor) else type(flow).__name__
        raise ShapeError(
            f"the flow network {type(network).__name__} must return flow in pixels at full size, {expected}, but "
            f"returned {came}"
        )
    return _at_least_single(flow)


def _at_least_single(tensor: Tensor) -> Tensor:
    """Motion and squares in half precision, which autocast brings, would be wrong by more than the loss."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


@torch.no_grad()
def _cancels(network: nn.Module, source: Tensor, target: Tensor, flow: Tensor) -> Tensor:
    """Where the way there and back ends where it began, up to half a pixel and a hundredth of its length.

    The rule of Sundaram et al., "Dense Point Trajectories by GPU-Accelerated Large Displacement Optical Flow" (2010).
    """
    back = sample_along(_flow(network, target, source), flow)
    lengths = flow.square().sum(1, keepdim=True) + back.square().sum(1, keepdim=True)
    return (flow + back).square().sum(1, keepdim=True) <= 0.01 * lengths + 0.5


def _roughness(flow: Tensor, image: Tensor) -> Tensor:
    terms = []
    for axis in (-1, -2):
        edges = image.diff(dim=axis).abs().mean(1, keepdim=True)
        terms.append((flow.diff(dim=axis).abs() * torch.exp(-10 * edges)).mean())
    return terms[0] + terms[1]
