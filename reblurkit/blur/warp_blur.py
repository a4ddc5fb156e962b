"""Blur as the mean of warped images (Reblur2Deblur, section 4.4)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reblurkit.blur.arguments import check_exposure, check_motion, computing_type
from reblurkit.core.numbers import check_whole


def flow_warp_blur(
    image: Tensor, flow_next: Tensor, flow_prev: Tensor, *, exposure: float = 1.0, samples: int = 1
) -> Tensor:
    """Mean of the images warped towards both neighbouring frames; differentiable in the image and both flows.

    ``B(p) = 1 / (2 n) sum over k = 1..n of I(p + k/n F_next(p)) + I(p + k/n F_prev(p))``, read bilinearly.

    From Chen et al., "Reblur2Deblur: Deblurring Videos via Self-Supervised Learning", ICCP 2018, section 4.4, which
    warps once per side (``samples=1``). That is the cheapest model and physically poor, as it skips the time between
    the frames; more samples add intermediate times.

    The border is repeated. A pixel with a NaN or infinite flow becomes NaN and takes part in no gradient. Half
    precision is computed in single.

    Args:
        image: Sharp images, ``(B, C, H, W)``, any floating type, any range.
        flow_next: F(t+1 -> t), ``(B, 2, H, W)``, in pixels, channel 0 right, channel 1 down.
        flow_prev: F(t-1 -> t), ``(B, 2, H, W)``, in pixels.
        exposure: Half-length of the exposure in frame intervals; greater than 0.
        samples: Warps per side, n above; at least 1.

    Returns:
        Blurred images, ``(B, C, H, W)``, of the image's type.

    Raises:
        ShapeError: If a flow has not the image's size and two channels.
        ArgumentError: If a tensor is not floating point, devices differ, ``exposure`` or ``samples`` is not a number
            of its range.

    Example:
        >>> dot = torch.zeros(1, 1, 1, 7)
        >>> dot[..., 3] = 1
        >>> right = torch.tensor([2.0, 0.0]).view(1, 2, 1, 1).expand(1, 2, 1, 7)
        >>> flow_warp_blur(dot, right, -right).flatten().round(decimals=4).abs()
        tensor([0.0000, 0.5000, 0.0000, 0.0000, 0.0000, 0.5000, 0.0000])
    """
    check_motion(image, flow_next, flow_prev, exposure)
    check_whole(samples=samples)
    dtype = computing_type(image, flow_next, flow_prev)
    motions = [exposure * flow.to(dtype) for flow in (flow_next, flow_prev)]
    undefined = ~(motions[0].isfinite() & motions[1].isfinite()).all(dim=1, keepdim=True)
    source = image.to(dtype)
    total = torch.zeros_like(source)
    for motion in motions:
        offset = motion.masked_fill(undefined, 0)
        for sample in range(1, int(samples) + 1):
            total = total + sample_along(source, offset * (sample / samples))
    return (total / (2 * samples)).masked_fill(undefined, torch.nan).to(image.dtype)


def sample_along(image: Tensor, flow: Tensor) -> Tensor:
    """``image(p + flow(p))``, read bilinearly, with the border repeated.

    Args:
        image: ``(B, C, H, W)``.
        flow: ``(B, 2, H, W)``, in pixels, of the image's type.

    Returns:
        ``(B, C, H, W)``; gradients reach both.
    """
    height, width = image.shape[2:]
    x = torch.arange(width, dtype=flow.dtype, device=flow.device) + flow[:, 0]
    y = torch.arange(height, dtype=flow.dtype, device=flow.device).view(-1, 1) + flow[:, 1]
    # grid_sample counts from the outer edge of the first pixel (-1) to that of the last (1).
    place = torch.stack([(2 * x + 1) / width - 1, (2 * y + 1) / height - 1], dim=-1)
    return F.grid_sample(image, place, padding_mode="border", align_corners=False)


class FlowWarpBlur(nn.Module):
    """Module of :func:`flow_warp_blur`, without parameters.

    Args:
        exposure: Half-length of the exposure in frame intervals; greater than 0.
        samples: Warps per side; at least 1.

    Example:
        >>> FlowWarpBlur(samples=8)(torch.rand(2, 3, 8, 9), torch.rand(2, 2, 8, 9), torch.rand(2, 2, 8, 9)).shape
        torch.Size([2, 3, 8, 9])
    """

    def __init__(self, exposure: float = 1.0, samples: int = 1) -> None:
        super().__init__()
        check_exposure(exposure)
        check_whole(samples=samples)
        self.exposure = exposure
        self.samples = samples

    def forward(self, image: Tensor, flow_next: Tensor, flow_prev: Tensor) -> Tensor:
        """Blurred images, as :func:`flow_warp_blur` returns them."""
        return flow_warp_blur(image, flow_next, flow_prev, exposure=self.exposure, samples=self.samples)

    def extra_repr(self) -> str:
        """Arguments, for ``print(module)``."""
        return f"exposure={self.exposure}, samples={self.samples}"
