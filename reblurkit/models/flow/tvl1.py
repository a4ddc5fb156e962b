"""TV-L1 optical flow, which needs no weights."""

from __future__ import annotations

import torch
from kornia.color import rgb_to_grayscale
from skimage.registration import optical_flow_tvl1
from torch import Tensor

from reblurkit.core.numbers import check_positive, check_whole
from reblurkit.models.flow.flow_network import FlowNetwork


class TVL1(FlowNetwork):
    """TV-L1 optical flow of Zach et al. (2007), coarse to fine, from scikit-image.

    Needs no weights, and is accurate to a tenth of a pixel on textured images that move little. It runs on the CPU,
    on grey images, one pair after the other, and is **not differentiable**: its flow is a constant for autograd,
    wherever the images came from. A loss may still pass gradients to the image that is blurred along it.

    Args:
        attachment: How closely the flow must explain the images; smaller is smoother.
        warps: Linearisations at each level of the pyramid.

    Example:
        >>> source, target = torch.rand(2, 1, 3, 20, 30)
        >>> TVL1()(source, target).shape
        torch.Size([1, 2, 20, 30])
    """

    smallest = 16  # below, its pyramid has no level
    differentiable = False

    def __init__(self, *, attachment: float = 15.0, warps: int = 5) -> None:
        super().__init__()
        check_positive(attachment=attachment)
        check_whole(warps=warps)
        self.attachment = attachment
        self.warps = warps

    def estimate(self, source: Tensor, target: Tensor) -> Tensor:
        """The flow between two batches of images."""
        flows = []
        for pair in zip(*(rgb_to_grayscale(image.detach().double()).cpu() for image in (source, target)), strict=True):
            reference, moving = (image.squeeze(0).numpy() for image in pair)
            v, u = optical_flow_tvl1(
                reference, moving, attachment=self.attachment, num_warp=self.warps, dtype=reference.dtype
            )
            flows.append(torch.stack((torch.from_numpy(u), torch.from_numpy(v))))
        return torch.stack(flows).to(source)
