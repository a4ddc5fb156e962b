"""A deblurring network at several sizes of the image, for blur longer than it knows."""

from __future__ import annotations

import torch
from kornia.filters import gaussian_blur2d
from torch import Tensor, nn
from torch.nn import functional as F

from reblurkit.core.calls import finest_scale, needs_of, stack_length
from reblurkit.core.numbers import is_number, shown
from reblurkit.errors import ArgumentError
from reblurkit.models.full_size import FullSize

_MOST = 5  # a sixteenth of the size
_WINDOW = 16  # pixels of one value of the weights, which are smooth
_REACH, _SIDE = 2.5, 13  # standard deviation of their smoothing, in windows, and where it is cut off
_POWER = 2


class MultiScale(nn.Module):
    """A deblurring network at full, half and quarter size of the image, put together where each of them sees blur.

    Not from a paper. Blur of 40 pixels is blur of 20 pixels in the image of half the size. So the network deblurs the
    image at each size, and what it changes there, enlarged, is one proposal for the image. Around each pixel the
    proposals are averaged, weighted by their mean squares, squared: a size at which the network finds little to remove
    has little say. Nothing is trained, and the network stays as it is.

    Power and smoothing (a Gaussian of 40 pixels) were chosen on eight Kodak photos with the network in the box.

    Args:
        network: A deblurring network of single images, of any size of blur; of a list of scales, from coarse to fine,
            the last counts.
        scales: How many sizes, each half of the one before, from 1 (the network alone) to 5. Three take 1.31 times
            the arithmetic of the network.

    Attributes:
        multiple: What height and width divide by if no scale shall be padded.
        smallest: The shortest side that the network takes; smaller sizes are padded by reflection.

    Shape:
        ``(B, 3, H, W)`` in [0, 1] to the same shape, not clamped.

    Raises:
        ArgumentError: If there are too few or too many scales, or the network takes several frames.

    Example:
        >>> from reblurkit.models import UNet
        >>> MultiScale(UNet(blocks=1, widths=(8, 8, 8)))(torch.rand(1, 3, 99, 70)).shape
        torch.Size([1, 3, 99, 70])
    """

    def __init__(self, network: nn.Module, scales: int = 3) -> None:
        super().__init__()
        if not is_number(scales, int) or not 1 <= scales <= _MOST:
            raise ArgumentError(f"`scales` must be a whole number from 1 to {_MOST}, but is {shown(scales)}")
        self.network = FullSize(network)  # for its padding
        if (frames := stack_length(network)) > 1:
            raise ArgumentError(
                f"several scales are for networks of single images, but {type(network).__name__} takes {frames} frames"
            )
        self.training = network.training
        self.scales = scales
        needs = needs_of(network)
        self.multiple = needs.multiple * 2 ** (scales - 1)
        self.smallest = needs.smallest

    def forward(self, blurry: Tensor) -> Tensor:
        """Return the deblurred image."""
        size = blurry.shape[-2:]
        changes = [finest_scale(self.network(blurry)) - blurry]
        for scale in range(1, self.scales):
            small = F.interpolate(blurry, [-(-side // 2**scale) for side in size], mode="area")
            change = finest_scale(self.network(small)) - small
            changes.append(F.interpolate(change, size, mode="bilinear"))
        deblurred: Tensor = blurry + (_weights(changes) * torch.stack(changes)).sum(0)
        return deblurred


def _weights(changes: list[Tensor]) -> Tensor:
    """Weights ``(scales, B, 1, H, W)`` of what each scale changes; they sum to 1."""
    dtype, size = changes[0].dtype, changes[0].shape[-2:]
    windows = [-(-side // _WINDOW) for side in size]
    # Squares are too small for half precision.
    squares = torch.cat([change.to(torch.promote_types(dtype, torch.float32)).square() for change in changes])
    energies = F.interpolate(squares.mean(1, keepdim=True), windows, mode="area")
    energies = gaussian_blur2d(energies, (_SIDE, _SIDE), (_REACH, _REACH), border_type="replicate")
    logarithms = energies.clamp(min=torch.finfo(energies.dtype).tiny).log()
    weights = torch.softmax(_POWER * logarithms.view(len(changes), -1, 1, *windows), 0)
    return F.interpolate(weights.flatten(0, 1), size, mode="bilinear").view(len(changes), -1, 1, *size).to(dtype)
