"""Pictures of motion: flow as colours, and what fine-tuning on video makes of a clip (Reblur2Deblur, Figure 4)."""

from __future__ import annotations

import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F
from torchvision.utils import flow_to_image

from reblurkit.core.numbers import check_positive
from reblurkit.errors import ShapeError
from reblurkit.losses.flow_reblur import FlowReblurTerms
from reblurkit.pictures.grid import comparison_grid

_FULL_ERROR = 0.1
_UNTRUSTED = (0.1, 0.2, 0.6)


def flow_colours(flow: Tensor, scale: float) -> Tensor:
    """Draw flow by the colour wheel of Baker et al. (2007): hue is direction, strength of colour is length.

    Args:
        flow: ``(B, 2, H, W)`` in pixels.
        scale: Length in pixels that has full colour, greater than 0; longer flow is drawn as this long. Two flows drawn
            with one scale can be compared.

    Returns:
        ``(B, 3, H, W)`` in [0, 1]; no motion is white, flow that is not finite black.

    Raises:
        ShapeError: If the flow is not ``(B, 2, H, W)``.
        ArgumentError: If the scale is not greater than 0.

    Example:
        >>> flow_colours(torch.zeros(1, 2, 4, 6), scale=3).unique()
        tensor([1.])
    """
    if flow.ndim != 4 or flow.shape[1] != 2:
        raise ShapeError(f"`flow` must be (B, 2, H, W), but is {tuple(flow.shape)}")
    check_positive(scale=scale)
    flow = flow.detach().float().cpu()
    finite = flow.isfinite().all(1, keepdim=True)
    flow = torch.where(finite, flow, 0)
    length = flow.norm(dim=1, keepdim=True)
    flow = flow * (scale / length.clamp(min=scale))
    # flow_to_image scales by the longest flow: a column of that length, drawn along and cut off, fixes the scale.
    longest = torch.tensor([float(scale), 0.0]).view(1, 2, 1, 1).expand(len(flow), 2, flow.shape[2], 1)
    colours: Tensor = flow_to_image(torch.cat((flow, longest), 3))[..., :-1] / 255
    return colours * finite


def error_map(reblurred: Tensor, observed: Tensor, mask: Tensor | None = None) -> Tensor:
    """Where the reblurred image is not what the camera saw.

    Args:
        reblurred: ``(B, 3, H, W)`` in [0, 1].
        observed: The same.
        mask: ``(B, 1, H, W)``, True where the loss looks; other pixels are drawn blue.

    Returns:
        ``(B, 3, H, W)``: mean absolute difference of the channels, white from 0.1 on.

    Example:
        >>> error_map(torch.full((1, 3, 2, 2), 0.55), torch.full((1, 3, 2, 2), 0.5)).mean()
        tensor(0.5000)
    """
    error = (reblurred - observed).detach().float().abs().mean(1, keepdim=True) / _FULL_ERROR
    picture = error.clamp(max=1).expand(-1, 3, -1, -1)
    if mask is None:
        return picture
    return torch.where(mask, picture, torch.tensor(_UNTRUSTED, device=picture.device).view(1, 3, 1, 1))


def motion_figure(before: FlowReblurTerms, after: FlowReblurTerms, observed: Tensor) -> Image.Image:
    """Draw what fine-tuning has changed, as Figure 4 of Reblur2Deblur.

    Columns: flow F(t-1 -> t) before and after, in one scale that the title tells; the error map; and the observed, the
    reblurred, and the deblurred frame before and after. One row per clip, each with an enlarged detail.

    Args:
        before: The loss's terms of some clips before fine-tuning.
        after: The same afterwards.
        observed: The clips' blurry centre frames, ``(B, 3, H, W)`` in [0, 1].

    Returns:
        The picture, RGB.
    """
    flows = torch.cat((before.flow_prev, after.flow_prev)).detach().float()
    lengths = flows.norm(dim=1)
    lengths = lengths[lengths.isfinite()]
    # All but the outliers, so that one wrong vector does not turn the picture white.
    typical = lengths.kthvalue(max(int(0.99 * len(lengths)), 1)).values if len(lengths) else 0.0
    scale = max(float(typical), 1.0)
    colours = [_with_wheel(flow_colours(terms.flow_prev, scale)) for terms in (before, after)]
    columns = {
        f"flow before (wheel: {scale:.1f} px)": colours[0],
        "flow after": colours[1],
        f"error after (white: {_FULL_ERROR})": error_map(after.reblurred, observed, after.mask),
        "observed": observed,
        "reblurred after": after.reblurred,
        "deblurred before": before.deblurred,
        "deblurred after": after.deblurred,
    }
    rows = [{title: images[index] for title, images in columns.items()} for index in range(len(observed))]
    return comparison_grid(rows, width=270)


def _with_wheel(colours: Tensor) -> Tensor:
    """Put the colour wheel into the lower left corner: the colour at a place is that of flow from the middle to it."""
    size = min(colours.shape[-2:]) // 4
    if size < 8:
        return colours
    axis = torch.linspace(-1, 1, size)
    flow = torch.stack(torch.meshgrid(axis, axis, indexing="xy"))[None]
    wheel, inside = flow_colours(flow, 1.0), flow.norm(dim=1, keepdim=True) <= 1
    place = F.pad(wheel * inside, (0, colours.shape[-1] - size, colours.shape[-2] - size, 0))
    covered = F.pad(inside, (0, colours.shape[-1] - size, colours.shape[-2] - size, 0))
    return torch.where(covered, place, colours)
