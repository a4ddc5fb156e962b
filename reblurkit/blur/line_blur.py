"""Blur from optical flow by a line integral at the real flow: no table, no range."""

from __future__ import annotations

from torch import Tensor, nn

from reblurkit.blur.arguments import check_exposure, check_motion
from reblurkit.blur.backends import blur


def flow_line_blur(
    image: Tensor,
    flow_next: Tensor,
    flow_prev: Tensor,
    *,
    exposure: float = 1.0,
    backend: str = "auto",
) -> Tensor:
    """Blur every pixel along its motion; differentiable in the image and both flows.

    The blur is the mean of two line integrals, from the pixel to the pixel plus either flow. With ``M = max(|u|, |v|)``
    and ``n = floor(M)``, nodes lie at whole steps of the longer axis, linear on the shorter one. The trapezoid rule
    sums the n full steps; the rest ``r = M - n`` is integrated over the straight line between the nodes n and n + 1,
    which weighs them by ``r - r^2 / 2`` and ``r^2 / 2``; the sum is divided by M. Zero flow is the pixel itself.

    At whole flows this is the table of equation 8 in Reblur2Deblur (Chen et al., ICCP 2018); between them it replaces
    the interpolation between kernels (equation 9), which smears a short motion over two kernels, by the motion itself.
    It is continuous in the flow, more accurate than the table, and has no range.

    Where the formula has a kink (a whole position on the shorter axis, a diagonal, zero flow) the gradient is the one
    of the side to the right and below. A pixel with a NaN or infinite flow, or one longer than 32768 pixels, becomes
    NaN and takes part in no gradient. The border is repeated. Half precision is computed in single. Second derivatives
    and forward mode are refused: use :func:`reblurkit.blur.reference.dense_flow_line_blur`.

    Args:
        image: Sharp images, ``(B, C, H, W)``, any floating type, any range.
        flow_next: F(t+1 -> t), ``(B, 2, H, W)``, in pixels, channel 0 right, channel 1 down.
        flow_prev: F(t-1 -> t), ``(B, 2, H, W)``, in pixels.
        exposure: Half-length of the exposure in frame intervals; greater than 0.
        backend: ``"auto"`` (Triton on CUDA, Numba on the CPU where installed, else torch), ``"torch"``, ``"numba"`` or
            ``"triton"``.

    Returns:
        Blurred images, ``(B, C, H, W)``, of the image's type.

    Raises:
        ShapeError: If a flow has not the image's size and two channels.
        ArgumentError: If a tensor is not floating point, devices differ, or ``exposure`` is not a finite number
            greater than 0.
        BackendError: If the backend asked for is not installed, or does not work on the device.

    Example:
        >>> import torch
        >>> dot = torch.zeros(1, 1, 1, 7)
        >>> dot[..., 3] = 1
        >>> right = torch.tensor([2.5, 0.0]).view(1, 2, 1, 1).expand(1, 2, 1, 7)
        >>> flow_line_blur(dot, right, -right).flatten()
        tensor([0.0250, 0.1750, 0.2000, 0.2000, 0.2000, 0.1750, 0.0250])
    """
    check_motion(image, flow_next, flow_prev, exposure)
    return blur(image, flow_next, flow_prev, exposure, None, backend)


class FlowLineBlur(nn.Module):
    """Module of :func:`flow_line_blur`, without parameters.

    Args:
        exposure: Half-length of the exposure in frame intervals; greater than 0.
        backend: As in the function.

    Example:
        >>> import torch
        >>> FlowLineBlur()(torch.rand(2, 3, 8, 9), torch.rand(2, 2, 8, 9), torch.rand(2, 2, 8, 9)).shape
        torch.Size([2, 3, 8, 9])
    """

    def __init__(self, exposure: float = 1.0, backend: str = "auto") -> None:
        super().__init__()
        check_exposure(exposure)
        self.exposure = exposure
        self.backend = backend

    def forward(self, image: Tensor, flow_next: Tensor, flow_prev: Tensor) -> Tensor:
        """Blurred images, as :func:`flow_line_blur` returns them."""
        return flow_line_blur(image, flow_next, flow_prev, exposure=self.exposure, backend=self.backend)

    def extra_repr(self) -> str:
        """Arguments, for ``print(module)``."""
        return f"exposure={self.exposure}, backend={self.backend!r}"
