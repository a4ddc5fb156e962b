"""RAFT, as torchvision has it."""

from __future__ import annotations

from typing import Literal

from torch import Tensor
from torchvision.models import optical_flow

from reblurkit.errors import ArgumentError
from reblurkit.models.flow.flow_network import FlowNetwork


class RAFT(FlowNetwork, optical_flow.RAFT):
    """RAFT of Teed and Deng, *Recurrent All-Pairs Field Transforms for Optical Flow* (ECCV 2020), from torchvision.

    Parameters are named as in torchvision's files of weights. What comes on top: images in [0, 1] of any size, the
    last of the refined flows alone, and nothing kept from one call to the next (torchvision's module holds on to the
    cost volume and its graph). It computes in float32, whatever the images' type, as torchvision's coordinates demand.

    Args:
        size: ``"small"`` or ``"large"``.
        updates: Refinements; 12 is torchvision's default.

    Raises:
        ArgumentError: If the size is neither, or there are no refinements.

    Example:
        >>> sum(p.numel() for p in RAFT("small").parameters())
        990162
    """

    multiple = 8
    smallest = 128

    def __init__(self, size: Literal["small", "large"] = "small", *, updates: int = 12) -> None:
        if size not in ("small", "large") or updates < 1:
            raise ArgumentError(
                f"`size` must be 'small' or 'large' and `updates` at least 1, but are {size!r} and {updates}"
            )
        parts = optical_flow.raft_small() if size == "small" else optical_flow.raft_large()
        super().__init__(
            feature_encoder=parts.feature_encoder,
            context_encoder=parts.context_encoder,
            corr_block=parts.corr_block,
            update_block=parts.update_block,
            mask_predictor=parts.mask_predictor,
        )
        self.updates = updates

    def estimate(self, source: Tensor, target: Tensor) -> Tensor:
        """The flow between images whose sides are at least 128 and divide by 8."""
        flows = optical_flow.RAFT.forward(
            self, 2 * source.float() - 1, 2 * target.float() - 1, num_flow_updates=self.updates
        )
        del self.corr_block.corr_pyramid  # type: ignore[union-attr]
        flow: Tensor = flows[-1]
        return flow.to(source.dtype)
