"""Blur from optical flow by a lookup table of kernels (Reblur2Deblur, equations 5, 6, 8 and 9)."""

from __future__ import annotations

from torch import Tensor, nn

from reblurkit.blur.arguments import check_exposure, check_motion, check_table
from reblurkit.blur.backends import blur


def flow_kernel_blur(
    image: Tensor,
    flow_next: Tensor,
    flow_prev: Tensor,
    *,
    exposure: float = 1.0,
    max_flow: int = 16,
    backend: str = "auto",
) -> Tensor:
    """Blur every pixel with the kernel that its motion draws; differentiable in the image and both flows.

    ``B(p) = sum over (x, y) of K(p)[x, y] I(p + (x, y))``, with ``K(p)`` the mean of two table entries, one per flow,
    and each entry interpolated bilinearly between whole flows. Equal to
    :func:`reblurkit.blur.reference.dense_flow_kernel_blur`, without ever building K.

    From Chen et al., "Reblur2Deblur: Deblurring Videos via Self-Supervised Learning", ICCP 2018, equations 8 and 9.
    What the paper leaves open or misprints: each segment has mass 1/2, whatever its length; the flows of equations 3
    and 4 live on the frames t+1 and t-1 and point to t, hence the image is gathered at +F, not at -F; a segment becomes
    pixels as in :func:`reblurkit.blur.kernel_table`; the border is repeated; flow beyond the range is clamped per
    component.

    The flow's gradient passes strictly inside the range and is 0 at its edge and outside. At whole flows it is the
    gradient of the cell to the right and below. A pixel with a NaN or infinite flow becomes NaN and takes part in no
    gradient. Half precision is computed in single. Second derivatives and forward mode are refused: use the reference,
    which is ordinary torch code.

    Args:
        image: Sharp images I, ``(B, C, H, W)``, any floating type, any range.
        flow_next: F(t+1 -> t), ``(B, 2, H, W)``, in pixels, channel 0 right, channel 1 down.
        flow_prev: F(t-1 -> t), ``(B, 2, H, W)``, in pixels.
        exposure: Half-length of the exposure in frame intervals; greater than 0. The paper uses 1;
            :func:`reblurkit.blur.exposure_from` computes it.
        max_flow: Range of the table in pixels, from 1 to 64. The paper uses 16. The table of 64 takes 0.6 GB of memory
            to build, and memory grows with the third power.
        backend: ``"auto"`` (Triton on CUDA, Numba on the CPU where installed, else torch), ``"torch"``, ``"numba"`` or
            ``"triton"``.

    Returns:
        Blurred images B, ``(B, C, H, W)``, of the image's type.

    Raises:
        ShapeError: If a flow has not the image's size and two channels.
        ArgumentError: If a tensor is not floating point, devices differ, ``exposure`` or ``max_flow`` is not a number
            of its range.
        BackendError: If the backend asked for is not installed, or does not work on the device.

    Example:
        >>> import torch
        >>> dot = torch.zeros(1, 1, 1, 7)
        >>> dot[..., 3] = 1
        >>> right = torch.tensor([2.0, 0.0]).view(1, 2, 1, 1).expand(1, 2, 1, 7)
        >>> flow_kernel_blur(dot, right, -right).flatten()
        tensor([0.0000, 0.1250, 0.2500, 0.2500, 0.2500, 0.1250, 0.0000])
    """
    check_motion(image, flow_next, flow_prev, exposure)
    check_table(max_flow)
    return blur(image, flow_next, flow_prev, exposure, max_flow, backend)


class FlowKernelBlur(nn.Module):
    """Module of :func:`flow_kernel_blur`, without parameters.

    Args:
        exposure: Half-length of the exposure in frame intervals; greater than 0.
        max_flow: Range of the table in pixels, from 1 to 64.
        backend: As in the function.

    Example:
        >>> import torch
        >>> FlowKernelBlur(exposure=0.5)(torch.rand(2, 3, 8, 9), torch.rand(2, 2, 8, 9), torch.rand(2, 2, 8, 9)).shape
        torch.Size([2, 3, 8, 9])
    """

    def __init__(self, exposure: float = 1.0, max_flow: int = 16, backend: str = "auto") -> None:
        super().__init__()
        check_exposure(exposure)
        check_table(max_flow)
        self.exposure = exposure
        self.max_flow = max_flow
        self.backend = backend

    def forward(self, image: Tensor, flow_next: Tensor, flow_prev: Tensor) -> Tensor:
        """Blurred images, as :func:`flow_kernel_blur` returns them."""
        return flow_kernel_blur(
            image, flow_next, flow_prev, exposure=self.exposure, max_flow=self.max_flow, backend=self.backend
        )

    def extra_repr(self) -> str:
        """Arguments, for ``print(module)``."""
        return f"exposure={self.exposure}, max_flow={self.max_flow}, backend={self.backend!r}"
